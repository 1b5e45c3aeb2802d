"""The commands about what is deployed: approve, history, rollback, withdraw, lineage."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from cryptoml_assets.cli_world import WorldOption, load_settings
from cryptoml_serving.contract.settings import SettingsError

JsonOption = Annotated[bool, typer.Option("--json", help="answer with one JSON object")]
ReasonOption = Annotated[str, typer.Option(help="why, in words; it is signed with the decision")]


def approve(
    version: Annotated[str, typer.Argument(help="the registry's own, which passed the gate")],
    *,
    reason: ReasonOption,
    role: Annotated[
        Literal["champion", "shadow", "canary"],
        typer.Option("--as", help="answers, is scored beside the champion, or answers a share"),
    ] = "champion",
    percent: Annotated[
        float | None,
        typer.Option(help="of the requests, for a canary; else CRYPTOML_GATE_CANARY_PERCENT"),
    ] = None,
    as_json: JsonOption = False,
    world: WorldOption = None,
) -> None:
    """Let a version serve that passed the gate, under your name and a signed record."""
    from cryptoml_assets.operations.approve import approve as run  # noqa: PLC0415
    from cryptoml_assets.operations.decisions import summary, told  # noqa: PLC0415

    if percent is not None and not 0 < percent < 100:  # noqa: PLR2004 - percent
        raise SettingsError(f"--percent {percent:g}: accepted is more than 0 and less than 100")
    configured = load_settings(world, None)
    entry = run(configured, version, reason=reason, role=role, percent=percent)
    typer.echo(json.dumps(told(entry)) if as_json else summary(entry))


def history(
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="exit with 1 and name each fault unless it is sound")
    ] = False,
    as_json: JsonOption = False,
    world: WorldOption = None,
) -> None:
    """List every decision about what serves; --verify proves that none was edited or lost."""
    from cryptoml_assets.operations.history_table import (  # noqa: PLC0415
        history_faults,
        history_lines,
        history_rows,
    )

    configured = load_settings(world, None)
    rows = history_rows(configured)
    faults = history_faults(configured) if verify else None
    if as_json:
        proof = {} if faults is None else {"sound": not faults, "faults": faults}
        typer.echo(json.dumps({"decisions": rows, **proof}))
    else:
        typer.echo("\n".join(history_lines(rows)))
        for fault in faults or ():
            typer.secho(f"FAULT {fault}", err=True, fg=typer.colors.RED)
        if faults is not None and not faults:
            typer.echo(f"sound: {len(rows)} decisions, signatures, chain and registry agree")
    if faults:
        raise typer.Exit(1)


def served_at(
    time: Annotated[str, typer.Argument(help="ISO 8601, UTC unless it says otherwise")],
    *,
    as_json: JsonOption = False,
    world: WorldOption = None,
) -> None:
    """Say which versions served at an instant, in which role, by whose decision."""
    from cryptoml_assets.operations.history_table import served_lines, served_then  # noqa: PLC0415

    found = served_then(load_settings(world, None), _instant(time))
    typer.echo(json.dumps(found) if as_json else "\n".join(served_lines(found)))


def rollback(
    *,
    to: Annotated[
        str | None, typer.Option(help="a version approved before; else the champion before")
    ] = None,
    reason: ReasonOption,
    as_json: JsonOption = False,
    world: WorldOption = None,
) -> None:
    """Make an earlier version champion again; the policy does not approve the one it replaces."""
    from cryptoml_assets.operations.decisions import summary, told  # noqa: PLC0415
    from cryptoml_assets.operations.rollback import rollback as run  # noqa: PLC0415

    entry = run(load_settings(world, None), to=to, reason=reason)
    typer.echo(json.dumps(told(entry)) if as_json else summary(entry))


def withdraw(
    version: Annotated[str, typer.Argument(help="of a shadow or a canary")],
    *,
    reason: ReasonOption,
    as_json: JsonOption = False,
    world: WorldOption = None,
) -> None:
    """Take a challenger out of service; for the champion there is rollback."""
    from cryptoml_assets.operations.decisions import summary, told  # noqa: PLC0415
    from cryptoml_assets.operations.withdraw import withdraw as run  # noqa: PLC0415

    entry = run(load_settings(world, None), version, reason=reason)
    typer.echo(json.dumps(told(entry)) if as_json else summary(entry))


def lineage(
    prediction_id: Annotated[str, typer.Argument(help="as answered; its beginning will do")],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="let the bundle answer again from the same inputs")
    ] = False,
    as_json: JsonOption = False,
    world: WorldOption = None,
) -> None:
    """Walk a prediction back to its approval, training run, feature rows, bars and blocks."""
    from cryptoml_assets.operations.lineage import lineage as run  # noqa: PLC0415
    from cryptoml_assets.operations.lineage_lines import lineage_lines  # noqa: PLC0415

    found = run(load_settings(world, None), prediction_id, verify=verify).told()
    typer.echo(json.dumps(found) if as_json else "\n".join(lineage_lines(found)))
    if verify and not (found["answers_again"] and found["same_inputs"]):
        raise typer.Exit(1)


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{text!r} is no instant; accepted: ISO 8601, such as 2024-03-01T12:00 or "
            "2024-03-01T12:00:00+02:00"
        ) from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


#: What ``cryptoml`` registers.
COMMANDS = (approve, history, served_at, rollback, withdraw, lineage)
