"""Which models learnt from, and which predictions were made from, feature rows that are others now.

A reorganisation or a revised bar changes feature rows that were there before. What was there is
compared by key, value by value, in the days that two versions of a table do not share; rows that
are only new are no revision. A row is used from its instant on, until its symbol's next row or its
time to live is over; a model is affected by the inputs it reads, and by no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from cryptoml_assets.features.catalog import TTL
from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.features.point_in_time import LONGEST_LAG
from cryptoml_assets.resources.lake import Lake

KEY = ("symbol", "event_timestamp")
#: Days whose rows are compared at a time.
_DAYS_AT_A_TIME = 31
_INSTANT = pl.Datetime("us", "UTC")
_REVISED, _UNTIL = "revised", "until"
#: What :func:`revised_rows` tells of a row.
ROWS = pl.Schema(
    {
        "symbol": pl.String(),
        "event_timestamp": _INSTANT,
        _REVISED: pl.List(pl.String()),
        _UNTIL: _INSTANT,
    }
)
#: Columns of the asset's table.
SCHEMA = pl.Schema(
    {
        "kind": pl.String(),
        "model_version": pl.String(),
        "prediction_id": pl.String(),
        "table": pl.String(),
        "symbol": pl.String(),
        "first_instant": _INSTANT,
        "last_instant": _INSTANT,
        "rows": pl.Int64(),
        "noticed_at": _INSTANT,
    }
)
_FACT = [name for name in SCHEMA if name != "noticed_at"]


@dataclass(frozen=True)
class Learnt:
    """What a model version learnt from.

    Attributes:
        model_version: the registry's.
        inputs: feature table to the columns of it that the model reads.
        start: first instant of its training rows.
        end: last instant of the rows it was tested on.
        versions: feature table to the version it was trained on.
    """

    model_version: str
    inputs: Mapping[str, frozenset[str]]
    start: datetime
    end: datetime
    versions: Mapping[str, int]


def revised_values(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``old`` that ``new`` does not have with the same values.

    Args:
        old: ``symbol``, ``event_timestamp`` and features.
        new: the same, later; columns that only one of the two has are not compared.

    Returns:
        The key and ``revised``: the names of the features whose value is another, all of them where
        the row is gone. A null is a value, and two that are no numbers are the same.
    """
    names = [name for name in old.columns if name in new.columns and name not in KEY]
    there = pl.lit(value=True).alias("there")
    both = old.select(*KEY, *names).join(
        new.select(*KEY, *names, there), on=KEY, how="left", suffix="_now", validate="1:1"
    )
    gone = pl.col("there").is_null()
    differs = [
        pl.when(gone | pl.col(name).ne_missing(pl.col(f"{name}_now"))).then(pl.lit(name))
        for name in names
    ]
    listed = (
        pl.concat_list(differs).list.drop_nulls() if differs else pl.lit([], pl.List(pl.String))
    )
    rows = both.select(*KEY, listed.alias(_REVISED))
    return rows.filter(pl.col(_REVISED).list.len() > 0)


def revised_rows(lake: Lake, table: str, then: int, now: int, first: date) -> pl.DataFrame:
    """The rows of a feature table that two of its versions do not have in common.

    Only days that were rewritten are read, and days before ``first`` not at all.

    Args:
        lake: holds the table.
        table: a feature table.
        then: the older version.
        now: the newer one.
        first: oldest day that matters.

    Returns:
        :data:`ROWS`, for rows that ``then`` had; ``until`` is when a row was no longer used.

    Raises:
        LakeError: a version that is gone.
    """
    after = lake.day_versions(table, version=now)
    before = lake.day_versions(table, version=then)
    days = [day for day, text in before.items() if day >= first and after.get(day) != text]
    parts = [
        days[place : place + _DAYS_AT_A_TIME] for place in range(0, len(days), _DAYS_AT_A_TIME)
    ]
    found = [
        revised_values(_features(lake, table, part, then), _features(lake, table, part, now))
        for part in parts
    ]
    rows = pl.concat([each for each in found if each.height] or [ROWS.to_frame().drop(_UNTIL)])
    if rows.is_empty():
        return ROWS.to_frame()
    return used_until(rows, _instants(lake, table, days, then), ttl_of(table))


def used_until(rows: pl.DataFrame, known: pl.DataFrame, ttl: timedelta) -> pl.DataFrame:
    """``rows`` with the instant at which another row took their place, or they were too old.

    Args:
        rows: the key beside other columns.
        known: keys of all rows that could take the place of one.
        ttl: age past which a row is no longer used.
    """
    following = known.sort(KEY).with_columns(
        following=pl.col("event_timestamp").shift(-1).over("symbol")
    )
    expired = pl.col("event_timestamp") + ttl + timedelta(microseconds=1)
    until = pl.min_horizontal("following", expired).alias(_UNTIL)
    joined = rows.join(following, on=KEY, how="left", validate="1:1").with_columns(until)
    return joined.select(*rows.columns, _UNTIL)


def ttl_of(table: str) -> timedelta:
    """Age past which a row is not what a prediction is made of.

    A prediction is of the very instant of its price row: it uses no older one.
    """
    return timedelta(0) if table == TABLES[0] else TTL


def training_impact(
    rows: pl.DataFrame, table: str, learnt: Learnt, noticed_at: datetime
) -> pl.DataFrame:
    """What of a model's training rows is another now: :data:`SCHEMA`, one row per symbol."""
    used = rows.filter(
        pl.col("event_timestamp") <= learnt.end,
        pl.col(_UNTIL) > learnt.start,
        _reads(learnt.inputs.get(table, frozenset())),
    )
    event = pl.col("event_timestamp")
    found = used.group_by("symbol", maintain_order=True).agg(
        first_instant=event.min(), last_instant=event.max(), rows=pl.len()
    )
    named = found.with_columns(
        kind=pl.lit("training"), model_version=pl.lit(learnt.model_version), table=pl.lit(table)
    )
    return _impact(named.with_columns(prediction_id=pl.lit(None, pl.String)), noticed_at)


def prediction_impact(
    rows: pl.DataFrame,
    table: str,
    predictions: pl.DataFrame,
    inputs: Mapping[str, Mapping[str, frozenset[str]]],
    noticed_at: datetime,
) -> pl.DataFrame:
    """The predictions that were made from rows which are others now.

    Args:
        rows: :data:`ROWS` of ``table``.
        table: a feature table.
        predictions: prediction_id, model_version, symbol and feature_timestamp of each.
        inputs: model version to what it reads of each table.
        noticed_at: the present instant.

    Returns:
        :data:`SCHEMA`, one row per prediction; its instants are that of the feature row.
    """
    # Between two of these rows the older one is the only one that can have been in use.
    made = predictions.sort("feature_timestamp").join_asof(
        rows.sort("event_timestamp").with_columns(pl.col("event_timestamp").set_sorted()),
        left_on="feature_timestamp",
        right_on="event_timestamp",
        by="symbol",
        strategy="backward",
        coalesce=False,
        check_sortedness=False,
    )
    used = made.filter(pl.col("feature_timestamp") < pl.col(_UNTIL))
    read = [
        used.filter(pl.col("model_version") == version, _reads(of.get(table, frozenset())))
        for version, of in sorted(inputs.items())
    ]
    found = pl.concat(read) if read else used.clear()
    instant = pl.col("event_timestamp")
    named = found.sort("feature_timestamp", "prediction_id").with_columns(
        kind=pl.lit("prediction"),
        table=pl.lit(table),
        first_instant=instant,
        last_instant=instant,
        rows=pl.lit(1),
    )
    return _impact(named, noticed_at)


def merged(known: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """``known`` with what of ``found`` is new: a fact is told once, as it was first noticed."""
    return pl.concat([known.select(SCHEMA.names()), found]).unique(
        _FACT, keep="first", maintain_order=True
    )


def _reads(names: frozenset[str]) -> pl.Expr:
    """Whether one of ``names`` is among the features that were revised."""
    return pl.col(_REVISED).list.eval(pl.element().is_in(sorted(names))).list.any()


def _impact(found: pl.DataFrame, noticed_at: datetime) -> pl.DataFrame:
    return found.with_columns(
        pl.col("rows").cast(pl.Int64), noticed_at=pl.lit(noticed_at, _INSTANT)
    ).select(SCHEMA.names())


def _features(lake: Lake, table: str, days: Sequence[date], version: int) -> pl.DataFrame:
    rows = lake.scan(table, days, version)
    kinds = rows.collect_schema()
    names = [name for name, kind in kinds.items() if kind == pl.Float64]
    return rows.select(*KEY, *names).collect()


def _instants(lake: Lake, table: str, days: Sequence[date], version: int) -> pl.DataFrame:
    """Keys of the rows of ``days`` and of those that could take their place."""
    reach = ttl_of(table) + LONGEST_LAG
    last = max(days) + reach
    wanted = [day for day in lake.day_versions(table, version=version) if min(days) <= day <= last]
    return lake.scan(table, wanted, version).select(KEY).collect()
