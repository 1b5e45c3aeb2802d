"""The commands of who delivers: smoke and manifest-check. They need no settings and no world."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from cryptoml_assets.errors import ManifestError
from cryptoml_serving.contract.settings import SettingsError, parse_duration

_MARKS = {True: "ok", False: "!!"}
_MOST_RISK = 100


def smoke(
    *,
    url: Annotated[str, typer.Option(help="of the service's public port, e.g. https://host")],
    key_file: Annotated[
        Path | None, typer.Option(help="file with an API key of the role predict")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="file with a bearer token, in place of a key")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM file of the authorities to trust; else the machine's")
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option(help="must be served; may be repeated; else all that the service serves"),
    ] = None,
    model_version: Annotated[str, typer.Option(help="that must be champion")] = "",
    release: Annotated[str, typer.Option(help="version that the software must be")] = "",
    max_age: Annotated[str, typer.Option(help="of the features of an answer")] = "30m",
    wait: Annotated[str, typer.Option(help="how long to look again until all is well")] = "60s",
    watch: Annotated[str, typer.Option(help="how long to go on asking then")] = "0s",
    error_budget: Annotated[
        float, typer.Option(help="largest share of requests that may fail meanwhile, 0 to 1")
    ] = 0.01,
    prometheus: Annotated[
        str, typer.Option(help="address of the Prometheus that counts all callers")
    ] = "",
    matching: Annotated[
        str, typer.Option(help='its labels of this deployment, e.g. namespace="production"')
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON object")] = False,
) -> None:
    """Ask a deployed service everything a caller needs; exits with 1 unless all of it is well."""
    from cryptoml_assets.operations.smoke import budget, checks, run, service  # noqa: PLC0415

    if not 0 <= error_budget < 1:
        raise SettingsError(f"--error-budget {error_budget:g}: accepted is 0 or more, less than 1")
    wanted = checks.Wanted(
        symbols=tuple(symbol or ()),
        model_version=model_version,
        release=release,
        most_age=_duration("--max-age", max_age).total_seconds(),
    )
    counts = budget.Prometheus(prometheus, matching) if prometheus else None
    watched = run.Watch(_duration("--watch", watch), error_budget, counts)
    credential = service.Credential.read(key_file, token_file)
    with service.Service(url, credential, ca_file) as asked:
        found = run.smoke(asked, wanted, wait=_duration("--wait", wait), watch=watched)
    well = all(each.well for each in found)
    if as_json:
        told = [{"check": each.name, "well": each.well, "seen": each.seen} for each in found]
        typer.echo(json.dumps({"well": well, "checks": told}))
    else:
        lines = [f"{_MARKS[each.well]}  {each.name:24} {each.seen}" for each in found]
        typer.echo("\n".join(lines))
    if not well:
        raise typer.Exit(1)


def manifest_check(
    file: Annotated[
        list[Path], typer.Argument(help="rendered manifests, all of one deployment; - for stdin")
    ],
    *,
    max_risk: Annotated[float, typer.Option(help="largest risk score that is accepted")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON object")] = False,
) -> None:
    """Look for what is not secure in Kubernetes manifests; exits with 1 above --max-risk."""
    from cryptoml_assets.operations.manifest_check.check import check  # noqa: PLC0415
    from cryptoml_assets.operations.manifest_check.manifests import read  # noqa: PLC0415

    if not 0 <= max_risk <= _MOST_RISK:
        raise SettingsError(f"--max-risk {max_risk:g}: accepted is a number from 0 to 100")
    report = check([each for path in file for each in read(_text(path), str(path))])
    well = report.risk <= max_risk
    if as_json:
        typer.echo(json.dumps({"well": well, "max_risk": max_risk, **report.told()}))
    else:
        typer.echo("\n".join(report.lines()))
    if not well:
        raise typer.Exit(1)


def _text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ManifestError(f"{path}: {why}") from None


def _duration(option: str, text: str) -> timedelta:
    try:
        read = parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{option} {text!r}: {error}") from None
    if not isinstance(read, timedelta):
        raise SettingsError(f"{option} {text!r}: accepted is a duration such as 30s")
    return read


#: What ``cryptoml`` registers.
COMMANDS = (smoke, manifest_check)
