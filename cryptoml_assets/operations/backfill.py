"""A range of days of every daily asset, in one run."""

from __future__ import annotations

from datetime import date

from cryptoml_assets.operations.demo import Narrator, require_reachable
from cryptoml_assets.operations.graph import keep_log, prepare_dagster_home, run_job
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.settings import SettingsError


def backfill(configured: Settings, start: date, end: date) -> None:
    """Materialise the daily assets of ``[start, end]`` against the world that is configured.

    Raises:
        SettingsError: when the range is empty or outside the partitions.
        WorldUnreachableError: when the world does not answer.
        RunFailedError: naming the step that failed.
    """
    today = configured.clock().date()
    if not configured.start <= start <= end <= today:
        raise SettingsError(
            f"backfill {start} … {end}: expected days from {configured.start} (CRYPTOML_START) "
            f"to {today}, the first not after the last"
        )
    narrator = Narrator.begin()
    require_reachable(configured, narrator)
    keep_log(configured.home_path / "logs" / "graph.log")
    prepare_dagster_home(configured.home_path)
    run_job("ingest", narrator.say, days=(start, end))
