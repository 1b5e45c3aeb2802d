"""The process that answers Prometheus for the asset graph."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

import dagster as dg
import typer
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.process_collector import ProcessCollector

from cryptoml_assets.deployment import standing
from cryptoml_assets.monitoring.exporter import (
    GraphCollector,
    Sample,
    Source,
    lake_sources,
    of_notices,
)
from cryptoml_assets.notices.outbox import Outbox
from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.operations.processes import require_port
from cryptoml_assets.resources import runs
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.notifier import OUTBOX

if TYPE_CHECKING:
    from cryptoml_assets.settings import Settings

_LOOK_SECONDS = 3600.0


def exporter(configured: Settings) -> None:
    """Answer on ``CRYPTOML_EXPORTER_PORT`` until interrupted.

    Raises:
        PortInUseError: something else listens there.
    """
    require_port("CRYPTOML_EXPORTER_PORT", configured.exporter_host, configured.exporter_port)
    prepare_dagster_home(configured.home_path)
    with dg.DagsterInstance.get() as instance:
        server, _ = start(configured, instance)
        address = f"http://{configured.exporter_host}:{configured.exporter_port}/metrics"
        typer.echo(f"metrics of the asset graph at {address}; Ctrl-C stops")
        try:
            while True:
                time.sleep(_LOOK_SECONDS)
        except KeyboardInterrupt:
            server.shutdown()


def start(
    configured: Settings, instance: dg.DagsterInstance, port: int | None = None
) -> tuple[WSGIServer, threading.Thread]:
    """Answer from a thread; the server and its thread.

    Args:
        configured: where the lake is and which model is served.
        instance: of Dagster.
        port: to listen on, 0 for any; else ``CRYPTOML_EXPORTER_PORT``.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    sources = lake_sources(
        Lake(configured.lake_uri), lambda: standing.current(configured), configured.clock
    )
    outbox = Outbox(configured.home_path / OUTBOX)
    others: dict[str, Source] = {
        "dagster": dagster_source(instance),
        "notices": lambda: of_notices(outbox.counts()),
    }
    registry.register(GraphCollector({**sources, **others}))
    chosen = configured.exporter_port if port is None else port
    return start_http_server(chosen, configured.exporter_host, registry)


def dagster_source(instance: dg.DagsterInstance) -> Source:
    """Runs, their errors and the age of assets; errors of runs seen once are remembered."""
    pipelines = runs.pipelines()
    seen: dict[str, str] = {}

    def read() -> Iterator[Sample]:
        seen.update(runs.failures(instance, seen))
        for labels, count in runs.finished_runs(instance, pipelines).items():
            yield Sample("pipeline_runs_total", labels, count)
        for pipeline, seconds in runs.newest_run_seconds(instance, pipelines).items():
            yield Sample("pipeline_run_seconds", (pipeline,), seconds)
        for error_type, count in Counter(seen.values()).items():
            yield Sample("pipeline_errors_total", (error_type,), count)
        now = time.time()
        for asset, when in runs.materialised_at(instance).items():
            yield Sample("asset_age_seconds", (asset,), max(now - when, 0.0))

    return read
