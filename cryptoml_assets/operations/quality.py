"""How the platform does, now: measured afresh, for a person or a program."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from cryptoml_assets.monitoring.quality_assets import last_look
from cryptoml_assets.monitoring.quality_figures import (
    RUNS_SINCE,
    look_at_service,
    quality_report,
)
from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.runs import run_figures

if TYPE_CHECKING:
    from cryptoml_assets.monitoring.quality import Report
    from cryptoml_assets.settings import Settings


def quality(configured: Settings) -> Report:
    """Measure and judge every figure; nothing is stored."""
    prepare_dagster_home(configured.home_path)
    with dg.DagsterInstance.get() as instance:
        now = datetime.now(UTC)
        runs = run_figures(instance, now - RUNS_SINCE)
        service = look_at_service(configured, last_look(instance, now))
    lake = Lake(configured.lake_uri)
    return quality_report(configured, lake, runs, service, configured.clock())
