"""The commands about how the platform does: exporter, quality and dashboard."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cryptoml_assets.cli_world import WorldOption, load_settings


def exporter(world: WorldOption = None) -> None:
    """Tell Prometheus the metrics of the asset graph until stopped."""
    from cryptoml_assets.operations.exporter import exporter as run  # noqa: PLC0415

    run(load_settings(world, None))


def quality(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON object")] = False,
    world: WorldOption = None,
) -> None:
    """Measure how the platform does, now; exits with 1 where it is CRITICAL."""
    from cryptoml_assets.monitoring.quality import State, as_markdown  # noqa: PLC0415
    from cryptoml_assets.monitoring.quality import as_json as json_text  # noqa: PLC0415
    from cryptoml_assets.operations.quality import quality as run  # noqa: PLC0415

    report = run(load_settings(world, None))
    typer.echo(json_text(report) if as_json else as_markdown(report), nl=False)
    if report.overall is State.CRITICAL:
        raise typer.Exit(1)


def dashboard() -> None:
    """Print the Grafana dashboard as JSON, for a Grafana that reads dashboards from files."""
    from cryptoml_assets.monitoring.dashboard import dashboard as made  # noqa: PLC0415

    typer.echo(json.dumps(made(), indent=2))


COMMANDS = (exporter, quality, dashboard)
