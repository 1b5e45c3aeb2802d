"""Times as files write them: epochs in any unit, texts with and without a zone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from cryptoml_assets.errors import RecordingError
from cryptoml_assets.prices.importer.notes import refuse_rows

_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
#: Bitcoin's first block, and an instant far enough: between them only one unit makes sense.
_EARLIEST = int(datetime(2009, 1, 3, tzinfo=UTC).timestamp())
_LATEST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
_MICRO = 10**6
_INSTANT = pl.Datetime("us", "UTC")
_ZONED = r"(?:Z|UTC|[+-]\d\d:?\d\d)$"


@dataclass(frozen=True)
class Times:
    """Times of a column.

    Attributes:
        values: UTC instants, or local times where ``zoned`` is false.
        zoned: whether it is known which instants they are.
        how: how they were written.
    """

    values: pl.Series
    zoned: bool
    how: str


def read_times(column: pl.Series) -> Times:
    """The times of ``column``, whatever they are written as.

    Raises:
        RecordingError: naming rows that hold no time, or none between 2009 and 2100.
    """
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        zoned = kind.time_zone is not None
        values = column.dt.convert_time_zone("UTC") if zoned else column
        target = _INSTANT if zoned else pl.Datetime("us")
        return _known(column, values.cast(target), zoned, f"instants, zone {kind.time_zone}")
    if kind == pl.Date:
        return _known(column, column.cast(pl.Datetime("us")), False, "dates")  # noqa: FBT003
    if kind.is_integer() or kind.is_float():
        return _epochs(column, column)
    if kind == pl.String:
        return _texts(column)
    raise RecordingError(f"column {column.name} is {kind}: expected times, epochs or text")


def in_zone(times: Times, zone: str) -> pl.Series:
    """Local ``times`` as UTC instants.

    Raises:
        RecordingError: no such zone, or a time that it had twice or never.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise RecordingError(f"--zone {zone}: no such time zone; expected e.g. UTC") from error
    try:
        local = times.values.dt.replace_time_zone(zone)
    except pl.exceptions.PolarsError as error:
        raise RecordingError(f"--zone {zone}: {error}") from error
    return local.dt.convert_time_zone("UTC")


def _texts(column: pl.Series) -> Times:
    text = column.str.strip_chars()
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count() == 0 and len(numbers):
        return _epochs(column, numbers)
    fractions = text.cast(pl.Float64, strict=False)
    if fractions.null_count() == 0 and len(fractions):
        return _epochs(column, fractions)
    zoned = text.str.contains(_ZONED)
    if zoned.any() and not zoned.all():
        raise RecordingError(f"column {column.name}: some times have a zone, others have none")
    plain = (
        text.str.replace("T", " ", literal=True)
        .str.replace(r"\s*(?:Z|UTC)$", "+00:00")
        .str.replace(r"\s+([+-]\d\d:?\d\d)$", "${1}")
        .str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1} 00:00:00")
        .str.replace(r"^(\d{4}-\d\d-\d\d \d\d:\d\d)($|[+-])", "${1}:00${2}")
    )
    pattern = "%Y-%m-%d %H:%M:%S%.f"
    if zoned.all():
        values = plain.str.to_datetime(f"{pattern}%z", time_unit="us", strict=False)
        return _known(column, values.dt.convert_time_zone("UTC"), True, "text with a zone")  # noqa: FBT003
    values = plain.str.to_datetime(pattern, time_unit="us", strict=False)
    return _known(column, values, False, "text without a zone")  # noqa: FBT003


def _epochs(column: pl.Series, numbers: pl.Series) -> Times:
    """Seconds since 1970 or parts of them, each row in the only unit that makes sense."""
    frame = pl.DataFrame({"number": numbers})
    values, unit = pl.lit(None, pl.Int64), pl.lit(None, pl.String)
    for name, parts in _UNITS.items():
        fits = pl.col("number").is_between(_EARLIEST * parts, _LATEST * parts, closed="left")
        number = pl.col("number")
        whole = number * (_MICRO // parts) if parts <= _MICRO else number // (parts // _MICRO)
        values = pl.when(fits).then(whole.round().cast(pl.Int64, strict=False)).otherwise(values)
        unit = pl.when(fits).then(pl.lit(name)).otherwise(unit)
    read = frame.select(values.cast(_INSTANT).alias("value"), unit.alias("unit"))
    units = " and ".join(_in_order(read["unit"].drop_nulls()))
    return _known(column, read["value"], True, f"epochs in {units}")  # noqa: FBT003


def _in_order(units: Iterable[str]) -> list[str]:
    found = set(units)
    return [name for name in _UNITS if name in found]


def _known(column: pl.Series, values: pl.Series, zoned: bool, how: str) -> Times:
    rows = pl.DataFrame({column.name: column}).with_row_index("row", offset=1)
    unread = rows.filter(values.is_null())
    refuse_rows(
        unread, f"column {column.name}: no time between 2009 and 2100 like 2024-01-31T00:00Z"
    )
    return Times(values.alias(column.name), zoned, how)
