"""What serving reads from the lake to show it: tables that others write, read only.

Each function takes the lake's address and gives plain values. A table that is not there yet is
empty; one that cannot be read raises what deltalake raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date
from typing import TYPE_CHECKING, Any

from cryptoml_serving.contract.served import SERVED_DAY, SERVED_PREDICTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

FEATURE_DRIFT = "feature_drift"
PREDICTION_DRIFT = "prediction_drift"
OUTCOMES = "prediction_outcomes"
#: Partition column of the tables stored by days.
_DAY = SERVED_DAY
_DRIFT_COLUMNS = (
    *("feature", "symbol", "psi", "threshold", "adjusted_p_value", "drifted"),
    *("window_start", "window_end", "model_version"),
)
_SERVED_COLUMNS = (
    *("prediction_id", "symbol", "feature_timestamp", "expected_return", "lower", "upper"),
    *("computed_at", "role"),
)


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one column of one symbol moved from its past; the asset graph judged it.

    Attributes:
        feature: model input, or output of the model.
        symbol: whose.
        psi: population stability index; none where not judged.
        threshold: index above which a significant change counts as drift.
        adjusted_p_value: of the change, over all pairs judged together; none where not judged.
        drifted: the verdict; none where too little data allows none.
        window_start: of the newest values.
        window_end: of the newest values.
        model_version: whose past; none: the newest training set.
    """

    feature: str
    symbol: str
    psi: float | None
    threshold: float | None
    adjusted_p_value: float | None
    drifted: bool | None
    window_start: datetime | None
    window_end: datetime | None
    model_version: str | None


@dataclass(frozen=True, slots=True)
class Point:
    """One answer of the past, and what came of it.

    Attributes:
        at: feature instant.
        expected_return: log return.
        lower: end of the 90 % interval.
        upper: end of the 90 % interval.
        realised: the return that came; none where it is not known yet.
    """

    at: datetime
    expected_return: float
    lower: float
    upper: float
    realised: float | None


def stamp(lake: str, table: str) -> tuple[str, int] | None:
    """Which table it is and its newest version; none where there is no such table."""
    from deltalake import DeltaTable  # noqa: PLC0415 - takes time

    address = _address(lake, table)
    if not DeltaTable.is_deltatable(address):
        return None
    found = DeltaTable(address)
    return str(found.metadata().id), int(found.version())


def rows(lake: str, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """These columns of a whole table; for tables of hundreds of rows."""
    table_rows = _read(lake, table, columns)
    return [] if table_rows is None else list(table_rows.to_pylist())


def drift(lake: str, table: str) -> tuple[Drift, ...]:
    """One of the two tables of drift, whole: each holds its newest report only."""
    return tuple(Drift(**row) for row in rows(lake, table, _DRIFT_COLUMNS))


def track(lake: str, start: datetime, end: datetime) -> dict[str, tuple[Point, ...]]:
    """What the champion answered in a span, by symbol, oldest first, with its outcomes.

    Where the features of an instant were revised, the newest answer counts.

    Args:
        lake: its address.
        start: feature instant from which on.
        end: feature instant up to which.
    """
    served = _of_days(lake, SERVED_PREDICTIONS, _SERVED_COLUMNS, start, end)
    came = _of_days(lake, OUTCOMES, ("prediction_id", "realised_return"), start, end)
    realised = {row["prediction_id"]: row["realised_return"] for row in came}
    newest: dict[tuple[str, datetime], dict[str, Any]] = {}
    for row in sorted(served, key=lambda row: row["computed_at"]):
        if row["role"] == "champion":
            newest[row["symbol"], row["feature_timestamp"]] = row
    found: dict[str, list[Point]] = {}
    for (symbol, at), row in sorted(newest.items()):
        point = Point(
            at=at,
            expected_return=row["expected_return"],
            lower=row["lower"],
            upper=row["upper"],
            realised=realised.get(row["prediction_id"]),
        )
        found.setdefault(symbol, []).append(point)
    return {symbol: tuple(points) for symbol, points in found.items()}


def served(lake: str, prediction_id: str) -> dict[str, Any] | None:
    """The row of one prediction among all that were ever served."""
    return _one(lake, SERVED_PREDICTIONS, prediction_id, day=None)


def outcome(lake: str, prediction_id: str, at: datetime) -> dict[str, Any] | None:
    """What came of one prediction; none where it is not known yet.

    Args:
        lake: its address.
        prediction_id: of the prediction.
        at: its feature instant, whose day is the only one read.
    """
    return _one(lake, OUTCOMES, prediction_id, day=at)


def _one(lake: str, table: str, prediction_id: str, day: datetime | None) -> dict[str, Any] | None:
    import pyarrow.dataset as ds  # noqa: PLC0415 - takes time

    days = None if day is None else [str(day.astimezone(UTC).date())]
    found = _read(lake, table, None, days, ds.field("prediction_id") == prediction_id)
    listed = [] if found is None else found.to_pylist()
    return dict(listed[0]) if listed else None


def _of_days(
    lake: str, table: str, columns: Sequence[str], start: datetime, end: datetime
) -> list[dict[str, Any]]:
    """Rows with a feature instant of that span; only files of its days are opened."""
    import pyarrow.dataset as ds  # noqa: PLC0415 - takes time

    first, last = (each.astimezone(UTC).date().toordinal() for each in (start, end))
    days = [str(date.fromordinal(each)) for each in range(first, last + 1)]
    instant = ds.field("feature_timestamp")
    found = _read(lake, table, columns, days, (instant >= start) & (instant <= end))
    return [] if found is None else list(found.to_pylist())


def _read(
    lake: str,
    table: str,
    columns: Sequence[str] | None,
    days: Sequence[str] | None = None,
    only: Any = None,
) -> Any:
    from deltalake import DeltaTable  # noqa: PLC0415 - takes time

    address = _address(lake, table)
    if not DeltaTable.is_deltatable(address):
        return None
    pruned = None if days is None else [(_DAY, "in", list(days))]
    dataset = DeltaTable(address).to_pyarrow_dataset(file_pruning_predicate=pruned)
    return dataset.to_table(columns=None if columns is None else list(columns), filter=only)


def _address(lake: str, table: str) -> str:
    return f"{lake.rstrip('/')}/{table}"
