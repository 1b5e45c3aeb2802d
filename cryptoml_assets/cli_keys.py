"""``cryptoml keys``: who may ask the inference service."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.security.roles import Role

app = typer.Typer(
    no_args_is_help=True, help="API keys of the inference service: add, list and revoke."
)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="of the keys; else CRYPTOML_SERVING_KEYS")
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="who will use it; told in logs")],
    *,
    role: Annotated[
        list[Role], typer.Option(help="predict or admin, which includes predict; may be repeated")
    ] = [Role.PREDICT],  # noqa: B006 - typer reads it, nobody changes it
    rate: Annotated[
        float | None,
        typer.Option(help="requests a second, 0 for no limit; else CRYPTOML_SERVING_RATE_LIMIT"),
    ] = None,
    file: FileOption = None,
) -> None:
    """Make a key and print it, this once; the file keeps its hash. Services take it in a second."""
    from cryptoml_serving.security.keys import add_key  # noqa: PLC0415

    if rate is not None and not 0 <= rate < float("inf"):
        raise SettingsError(f"--rate {rate:g}: accepted is a number of 0 or more")
    typer.echo(add_key(_path(file), name, roles=role, rate=rate, now=datetime.now(UTC)))


@app.command("list")
def list_keys(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON object")] = False,
    file: FileOption = None,
) -> None:
    """List the keys: name, roles, rate and when each was made. The keys themselves are not kept."""
    from cryptoml_serving.security.keys import read_keys  # noqa: PLC0415

    keys = read_keys(_path(file))
    if as_json:
        told = [each.model_dump(mode="json", exclude={"sha256"}) for each in keys]
        typer.echo(json.dumps({"keys": told}))
        return
    for each in keys:
        rate = (
            "usual rate" if each.rate is None else f"{each.rate:g}/s" if each.rate else "no limit"
        )
        roles = ",".join(each.roles)
        typer.echo(f"{each.name:24} {roles:16} {rate:12} {each.created_at:%Y-%m-%d %H:%M} UTC")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="as `cryptoml keys list` tells it")],
    *,
    file: FileOption = None,
) -> None:
    """Take a key out of the file; services refuse it within a second."""
    from cryptoml_serving.security.keys import revoke_key  # noqa: PLC0415

    revoke_key(_path(file), name)
    typer.echo(f"{name} is revoked")


def _path(file: Path | None) -> Path:
    from cryptoml_serving.settings import ServingSettings  # noqa: PLC0415

    found = file or ServingSettings.load().serving_keys
    if found is None:
        raise SettingsError(
            "which file of keys? Set CRYPTOML_SERVING_KEYS, as for the service, or give --file"
        )
    return found
