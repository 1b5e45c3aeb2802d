"""A range of days of every daily asset, in one run."""

from __future__ import annotations

from datetime import date

from cryptoml_assets.operations.demo import Narrator, require_reachable
from cryptoml_assets.operations.graph import keep_log, prepare_dagster_home, run_job
from cryptoml_assets.operations.world import (
    forget_frozen_instant,
    join_sandbox,
    set_environment,
)
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.settings import SettingsError, World


def backfill(configured: Settings, start: date, end: date) -> None:
    """Materialise the daily assets of ``[start, end]`` against the world that is configured.

    Raises:
        SettingsError: when the range is empty or outside the partitions.
        WorldUnreachableError: when the world does not answer.
        RunFailedError: naming the step that failed.
    """
    _require_days(configured, start, end, end)
    narrator = Narrator.begin()
    if configured.world is World.LIVE:
        require_reachable(configured, narrator)
    else:
        join_sandbox(configured)
        configured = set_environment({})
    _require_days(configured, start, end, configured.clock().date())
    forget_frozen_instant(configured)
    keep_log(configured.home_path / "logs" / "graph.log")
    prepare_dagster_home(configured.home_path)
    run_job("ingest", narrator.say, days=(start, end))


def _require_days(configured: Settings, start: date, end: date, newest: date) -> None:
    if not configured.start <= start <= end <= newest:
        raise SettingsError(
            f"backfill {start} … {end}: expected days from {configured.start} (CRYPTOML_START) "
            f"to {newest}, the first not after the last"
        )
