"""The ``cryptoml`` command."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from cryptoml_assets import cli_delivery, cli_deployment, cli_keys, cli_monitoring
from cryptoml_assets.cli_world import ReplayOption, WorldOption, load_settings
from cryptoml_assets.errors import CryptomlError
from cryptoml_assets.production.parts import Part
from cryptoml_serving.contract.settings import SettingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="From exchange and chain to an approved, served, monitored prediction.",
)

DayOption = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"])]


def main() -> None:
    """Run the command; an error made for people is printed without a traceback."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    # Both signals leave by an exception, so that every context stops the children it started.
    # Shells start background jobs with SIGINT ignored, and Dagster hands SIGTERM what SIGINT has.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except (SettingsError, CryptomlError) as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        sys.exit(1)


@app.command()
def demo(
    world: WorldOption = None,
    replay: ReplayOption = None,
    profile: Annotated[
        Literal["embedded", "production"],
        typer.Option(help="files and SQLite, or PostgreSQL, Redis and S3 started here"),
    ] = "embedded",
) -> None:
    """Run the main job once, world to prediction; the last line is one JSON object."""
    from cryptoml_assets.operations.demo import demo as run  # noqa: PLC0415

    if profile == "embedded":
        run(load_settings(world, replay))
        return
    from cryptoml_assets.production.profile import production_profile  # noqa: PLC0415

    with production_profile(load_settings(world, replay)) as configured:
        run(configured)


@app.command()
def up(world: WorldOption = None, replay: ReplayOption = None) -> None:
    """Keep the world up: sandbox, Dagster UI, inference API, MLflow UI. Ctrl-C stops all."""
    from cryptoml_assets.operations.up import up as run  # noqa: PLC0415

    run(load_settings(world, replay))


@app.command()
def sandbox() -> None:
    """Run the local exchange, chain and metrics world alone."""
    load_settings(None, None)
    os.execv(sys.executable, [sys.executable, "-m", "cryptoml_sandbox"])  # noqa: S606


@app.command()
def serve() -> None:
    """Run the inference service alone; it answers once a model is approved."""
    load_settings(None, None)
    os.execv(sys.executable, [sys.executable, "-m", "cryptoml_serving"])  # noqa: S606


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def dagster(
    context: typer.Context,
    part: Annotated[Part, typer.Argument(help="webserver, daemon or api (code server, runs)")],
) -> None:
    """Run a part of Dagster over the instance of these settings; further arguments are its own."""
    from cryptoml_assets.production.parts import command, environment  # noqa: PLC0415

    variables = environment(load_settings(None, None))
    arguments = command(part, context.args)
    os.execve(arguments[0], arguments, variables)  # noqa: S606 - our own environment's program


@app.command()
def backfill(start: DayOption, end: DayOption, world: WorldOption = None) -> None:
    """Materialise every daily asset from START to END (both days included) in one run."""
    from cryptoml_assets.operations.backfill import backfill as run  # noqa: PLC0415

    run(load_settings(world, None), start.date(), end.date())


@app.command("import")
def import_recorded(
    path: Annotated[Path, typer.Argument(help="file or folder: .feather, .parquet, .csv, .zip")],
    *,
    symbol: Annotated[str | None, typer.Option(help="BASE/QUOTE, where the file has none")] = None,
    venue: Annotated[str | None, typer.Option(help="ccxt id; else CRYPTOML_VENUE")] = None,
    stamp: Annotated[
        Literal["open", "close"] | None, typer.Option(help="what the times of bars are")
    ] = None,
    last: Annotated[
        Literal["keep", "drop"] | None, typer.Option(help="whether the last bar is complete")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="of times without one, e.g. UTC")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="store nothing")] = False,
    world: WorldOption = None,
) -> None:
    """Put recorded bars of PATH into raw_prices; what files do not say is asked for."""
    from cryptoml_assets.operations.import_bars import import_bars  # noqa: PLC0415
    from cryptoml_assets.prices.importer.notes import Answers  # noqa: PLC0415

    answers = Answers(symbol=symbol, venue=venue, stamp=stamp, last=last, zone=zone)
    import_bars(load_settings(world, None), path, answers, dry_run=dry_run)


@app.command()
def why(
    feature: Annotated[str, typer.Argument(help="a feature of price_features, e.g. rsi")],
    symbol: Annotated[str, typer.Argument(help="BASE/QUOTE")],
    at: Annotated[
        datetime,
        typer.Argument(
            help="event timestamp of the row, UTC unless it says otherwise",
            formats=[
                "%Y-%m-%dT%H:%M:%S%z",
                "%Y-%m-%dT%H:%M:%S",
                "%Y-%m-%dT%H:%M%z",
                "%Y-%m-%dT%H:%M",
            ],
        ),
    ],
    world: WorldOption = None,
) -> None:
    """Say why a value of price_features is null: which bars are missing, and why."""
    from cryptoml_assets.operations.explain import explain  # noqa: PLC0415

    for line in explain(load_settings(world, None), feature, symbol, at):
        typer.echo(line)


@app.command()
def retrain(
    *,
    run: Annotated[str, typer.Option(help="MLflow id of the training run")],
    verify: Annotated[
        bool, typer.Option("--verify", help="exit with 1 unless the very same bundle comes out")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="folder for the bundle, new or empty")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON object")] = False,
    world: WorldOption = None,
) -> None:
    """Train again what a run trained, from its record alone; registers nothing."""
    from cryptoml_assets.operations.retrain import retrain as again  # noqa: PLC0415
    from cryptoml_assets.operations.retrain import summary  # noqa: PLC0415

    if not verify and out is None:
        raise SettingsError("nothing to do with the bundle: give --verify, --out DIR or both")
    outcome = again(
        load_settings(world, None), run, out=out, compare=verify, say=partial(typer.echo, err=True)
    )
    lines = [json.dumps(outcome.told())] if as_json else summary(outcome)
    typer.echo("\n".join(lines))
    if verify and not outcome.same:
        raise typer.Exit(1)


@app.command()
def doctor(world: WorldOption = None) -> None:
    """Check settings, ports, versions and reachability, and say what to do."""
    from cryptoml_assets.operations.doctor import doctor as run  # noqa: PLC0415

    if not run(world):
        raise typer.Exit(1)


@app.command("settings")
def show_settings() -> None:
    """Print every setting with its default and meaning, as an .env file."""
    from cryptoml_assets.operations.variables import example  # noqa: PLC0415

    typer.echo(example(), nl=False)


for _command in (*cli_deployment.COMMANDS, *cli_monitoring.COMMANDS, *cli_delivery.COMMANDS):
    app.command(_command.__name__.replace("_", "-"))(_command)
app.add_typer(cli_keys.app, name="keys")


if __name__ == "__main__":
    main()
