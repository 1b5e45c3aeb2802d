"""Frames and Delta tables: what a table can keep, and whether two frames hold the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import polars as pl
from deltalake import CommitProperties, write_deltalake

from cryptoml_assets.errors import LakeError

#: The column that partitions every table written by days.
DAY_COLUMN = "date"
#: The commit must be the next one after the version it was made from: what was decided on the rows
#: of that version holds for no other.
NEXT_COMMIT = CommitProperties(max_commit_retries=0)
_PLAIN_TYPES = frozenset(
    {
        pl.String,
        pl.Binary,
        pl.Boolean,
        pl.Date,
        pl.Decimal,
        pl.Float32,
        pl.Float64,
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.Int64,
    }
)
_INSTANT = pl.Datetime("us", "UTC")


def scan(opened: Any, files: Sequence[str]) -> pl.LazyFrame:
    """The rows in ``files`` of a table, oldest day first."""
    schema = pl.Schema(opened.schema())
    partitioned = by_days(opened)
    if not files:
        return pl.LazyFrame(schema=schema)
    # Not pl.scan_delta: it skips files by the log's statistics, and those are clipped to 64
    # bits for decimals; and it lists the newest commit first, not the oldest day.
    return pl.scan_parquet(
        sorted(files),
        schema=pl.Schema({name: kind for name, kind in schema.items() if name != DAY_COLUMN})
        if partitioned
        else schema,
        hive_partitioning=partitioned,
        hive_schema={DAY_COLUMN: pl.Date} if partitioned else None,
        missing_columns="insert",
    ).select(schema.names())


def files_in(opened: Any, days: Sequence[date]) -> list[str]:
    """The addresses of the files of ``days``."""
    if not days:
        return []
    asked = [(DAY_COLUMN, "in", [day.isoformat() for day in days])]
    files: list[str] = opened.file_uris(file_pruning_predicate=asked)
    return files


def files_of_days(opened: Any, days: Sequence[date]) -> dict[date, tuple[str, ...]]:
    """The addresses of the files of those of ``days`` that have any."""
    asked = {f"{DAY_COLUMN}={day.isoformat()}": day for day in days}
    found: dict[date, list[str]] = {}
    for file in sorted(opened.file_uris()):
        if (day := asked.get(file.rsplit("/", 2)[-2])) is not None:
            found.setdefault(day, []).append(file)
    return {day: tuple(files) for day, files in found.items()}


def by_days(opened: Any) -> bool:
    """Whether an opened Delta table is partitioned by days."""
    columns: list[str] = opened.metadata().partition_columns
    return columns == [DAY_COLUMN]


def replace(opened: Any, rows: pl.DataFrame, days: Sequence[date], *, stored: bool) -> None:
    """Put those of ``rows`` that belong to ``days`` in the place of the stored rows of ``days``.

    ``stored`` says whether there are any; nothing has to be looked for where there are none.
    """
    names = ", ".join(f"DATE '{day.isoformat()}'" for day in days)
    write_deltalake(
        opened,
        rows.filter(pl.col(DAY_COLUMN).is_in(list(days))),
        mode="overwrite" if stored else "append",
        schema_mode="merge",
        predicate=f"{DAY_COLUMN} IN ({names})" if stored else None,
        commit_properties=NEXT_COMMIT,
    )


def widened(stored: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """``stored`` with a null column for each of ``schema`` it lacks, in that order."""
    lacking = [pl.lit(None, schema[name]).alias(name) for name in schema if name not in stored]
    extra = [name for name in stored.columns if name not in schema]
    return stored.with_columns(lacking).select(*schema, *extra)


def days_held(rows: pl.DataFrame) -> tuple[date, ...]:
    """The days that ``rows`` belong to, oldest first."""
    return tuple(rows[DAY_COLUMN].unique().sort().to_list())


def days_changed(before: pl.DataFrame, after: pl.DataFrame) -> tuple[date, ...]:
    """The days that do not hold the same rows in both."""
    if before.is_empty() or after.is_empty():
        return days_held(after if before.is_empty() else before)
    old, new = (
        {day: rows for (day,), rows in frame.partition_by(DAY_COLUMN, as_dict=True).items()}
        for frame in (before, after)
    )
    none = before.clear()
    changed = (
        day
        for day in old.keys() | new.keys()
        if not same_rows(old.get(day, none), new.get(day, none))
    )
    return tuple(sorted(changed))


def require_by_days(table: str, opened: Any) -> None:
    """Refuse a table that is not stored by days."""
    if not by_days(opened):
        message = f"lake table {table} is not stored by days"
        raise LakeError(message)


def require_not_by_days(table: str, opened: Any) -> None:
    """Refuse a table that is stored by days."""
    if by_days(opened):
        message = f"lake table {table} is stored by days; replace its days instead"
        raise LakeError(message)


def check_fits(table: str, stored: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Refuse rows of ``schema`` that lack a stored column or have it as another type."""
    wrong = [
        f"{name} is {kind} in the table, {schema.get(name, 'absent')} in the rows"
        for name, kind in stored.items()
        if schema.get(name) != kind
    ]
    if wrong:
        message = f"lake table {table}: {'; '.join(wrong)}"
        raise LakeError(message)


def configuration(schema: pl.Schema, *, by_days: bool) -> dict[str, str]:
    """Table properties that readers of the log rely on."""
    # The log's statistics of decimals are clipped to 64 bits; a reader that skips files by them
    # would lose rows. An overwritten table may change columns, so it keeps none.
    kept = [name for name, kind in schema.items() if not isinstance(kind, pl.Decimal)]
    statistics = (
        {"delta.dataSkippingStatsColumns": ",".join(kept)}
        if by_days
        else {"delta.dataSkippingNumIndexedCols": "0"}
    )
    # Every version stays readable, so that a model can be trained again on the rows it saw.
    # Opening a table replays the commits since its newest checkpoint.
    return {
        "delta.enableExpiredLogCleanup": "false",
        "delta.checkpointInterval": "10",
        **statistics,
    }


def check_types(table: str, frame: pl.DataFrame) -> None:
    """Refuse types that come back from Delta as another type."""
    for name, kind in frame.schema.items():
        if kind.base_type() not in _PLAIN_TYPES and kind != _INSTANT:
            message = (
                f"lake table {table}: column {name} is {kind}; the lake keeps strings, booleans, "
                f"signed integers, floats, decimals, dates and {_INSTANT} instants"
            )
            raise LakeError(message)


def check_days(table: str, frame: pl.DataFrame, days: Sequence[date]) -> None:
    """Refuse rows without a day, or of other days than ``days``."""
    if frame.schema.get(DAY_COLUMN) != pl.Date:
        message = f"lake table {table}: rows need a column {DAY_COLUMN} of type Date"
        raise LakeError(message)
    stray = frame.filter(~pl.col(DAY_COLUMN).is_in(list(days)).fill_null(value=False))
    if stray.height:
        found = ", ".join(str(day) for day in stray[DAY_COLUMN].unique().sort().head(5))
        message = f"lake table {table}: {stray.height} rows outside the days to replace: {found}"
        raise LakeError(message)


def same_rows(stored: pl.DataFrame, frame: pl.DataFrame) -> bool:
    """Whether both hold the same rows, to the bit and each as often, in whatever order."""
    if stored.schema != frame.schema or stored.height != frame.height:
        return False
    old, new = exact(stored), exact(frame)
    return old.equals(new) or old.sort(pl.all()).equals(new.sort(pl.all()))


def exact(frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with the bits of its 64-bit floats: polars takes 0.0 and -0.0 for one number."""
    return frame.with_columns(pl.col(pl.Float64).reinterpret(dtype=pl.Int64))
