"""Which days of a derived table are to be computed again: those whose inputs are others now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg

from cryptoml_assets.events import newest_events
from cryptoml_assets.reads import Reads
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_assets.versions import INPUTS_TAG, VERSION_TAG

#: Days that may still get their first rows: yesterday's last bar closes, and its last blocks turn
#: final, after midnight.
OPEN_DAYS = timedelta(days=2)
#: A day whose run failed is asked for again when its inputs change, or after this long.
_ASK_AGAIN = timedelta(hours=1)


@dataclass(frozen=True)
class _Told:
    """The newest event of a day.

    Attributes:
        event: its number.
        run: the run that it is of.
        inputs: what the day was computed from; none where the event does not say.
        version: data version of the day's rows.
    """

    event: int
    run: str
    inputs: str | None
    version: str | None


@dataclass(frozen=True, eq=False)
class InputsChanged(dg.AutomationCondition[dg.AssetKey]):
    """True for the days whose rows no longer are those of their inputs.

    A day's newest event names what it was computed from and the version of its rows; it is out of
    date when the lake has other inputs or other rows. An open day that was never computed is as
    well. A day that was asked for is not asked for again until something has changed.

    Attributes:
        reads: what a day is computed from.
    """

    reads: Reads

    @property
    def description(self) -> str:
        """What the Dagster UI shows."""
        tables = ", ".join(self.reads.tables)
        return f"{tables} changed in the days it is computed from, or it is open and missing"

    @property
    def name(self) -> str:
        """What the Dagster UI shows; the cursor is kept under it."""
        return "inputs_changed"

    def evaluate(
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """The days to compute again, without those asked for already."""
        outdated = self._outdated(context)
        cursor = json.loads(context.cursor or "{}")
        asked = _asked(context, cursor, outdated)
        now = context.evaluation_time.timestamp()
        due = {
            day: state
            for day, state in outdated.items()
            if day not in asked
            or asked[day][0] != state
            or now - asked[day][1] > _ASK_AGAIN.total_seconds()
        }
        return dg.AutomationResult(
            context,
            context.candidate_subset.compute_intersection_with_partition_keys(set(due)),
            cursor=json.dumps({"due": due, "asked": asked}),
        )

    def _outdated(self, context: dg.AutomationContext[dg.AssetKey]) -> dict[str, str]:
        """Each day that is out of date, with what that was concluded from."""
        view, table = context.asset_graph_view, context.key.path[-1]
        newest = view.compute_latest_time_window_subset(context.key, lookback_delta=OPEN_DAYS)
        opened = newest.expensively_compute_partition_keys()
        told = _told(view.instance, context.key)
        lake, now = Lake(settings().lake_uri), settings().clock()
        keys = context.partitions_def.get_partition_keys() if context.partitions_def else ()
        days = {key: date.fromisoformat(key) for key in keys if key in told or key in opened}
        inputs = self.reads.versions(lake, list(days.values()), now)
        exists = lake.exists(table)
        rows = lake.day_versions(table, list(days.values())) if exists else {}
        found = {}
        for key, day in days.items():
            event = told.get(key)
            if event is None or event.inputs is None:
                outdated = key in opened and (event is None or _ended(view.instance, event.run))
            else:
                outdated = (event.inputs, event.version) != (inputs[day], rows.get(day))
            if outdated:
                found[key] = f"{inputs[day]} {event.event if event else '-'}"
        return found


def _asked(
    context: dg.AutomationContext[dg.AssetKey],
    cursor: Mapping[str, Any],
    outdated: Mapping[str, str],
) -> dict[str, Any]:
    """Days that are still out of date although asked for: what was known then, and when it was."""
    before = context.get_previous_requested_subset(context.key)
    requested = before.expensively_compute_partition_keys() if before is not None else ()
    at: datetime = context.previous_evaluation_time or context.evaluation_time
    asked: dict[str, Any] = dict(cursor.get("asked", {}))
    due = cursor.get("due", {})
    asked |= {day: [due[day], at.timestamp()] for day in requested if day in due}
    return {day: known for day, known in asked.items() if day in outdated}


def _told(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, _Told]:
    """The newest event of each day of an asset."""
    return {
        day.isoformat(): _Told(
            record.storage_id,
            record.run_id,
            (event.tags or {}).get(INPUTS_TAG),
            (event.tags or {}).get(VERSION_TAG),
        )
        for day, record, event in newest_events(instance, key)
    }


def _ended(instance: dg.DagsterInstance, run: str) -> bool:
    """Whether a run, which may still be about to tell of its days one by one, has ended."""
    found = instance.get_run_by_id(run)
    return found is None or found.is_finished
