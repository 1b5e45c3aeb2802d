"""The online store brought up to the lake: of each symbol the newest row known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
from feast import FeatureStore

from cryptoml_assets.days import day_start
from cryptoml_assets.features.catalog import TTL, features_of, version_of
from cryptoml_assets.features.feature import Table
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.feature_store import JOIN_KEY, instant_in_use

_DAY = timedelta(days=1)
_INSTANT = pl.Datetime("us", "UTC")
#: Dates a row that is no more; Feast dates a row it does not hold so.
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Brought:
    """What of a table the online store was brought up to.

    Attributes:
        version: Version of the lake table.
        now: Instant as of which its rows were known.
        catalog: The formulas of its values, and where the lake is.
        days: Of each day of the time to live a text that changes when its rows are rewritten.
        later: Days with rows that were not known yet.
        rows: Digest of the online rows.
        written: Rows that were written online.
        days_read: Days whose rows were read.
    """

    version: int
    now: datetime
    catalog: str
    days: Mapping[date, str]
    later: tuple[date, ...]
    rows: str
    written: int = 0
    days_read: int = 0

    def record(self) -> dict[str, Any]:
        """All that the next time needs, as plain values."""
        return {
            "version": self.version,
            "now": self.now.isoformat(),
            "catalog": self.catalog,
            "days": {day.isoformat(): text for day, text in self.days.items()},
            "later": [day.isoformat() for day in self.later],
            "rows": self.rows,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Brought:
        """What :meth:`record` was made of.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: ``record`` is none.
        """
        return cls(
            version=int(record["version"]),
            now=datetime.fromisoformat(record["now"]),
            catalog=str(record["catalog"]),
            days={date.fromisoformat(day): str(text) for day, text in record["days"].items()},
            later=tuple(date.fromisoformat(day) for day in record["later"]),
            rows=str(record["rows"]),
        )


@dataclass(frozen=True)
class _Snapshot:
    """One version of a feature table, as far as it is known at ``now``."""

    lake: Lake
    table: Table
    version: int
    symbols: Sequence[str]
    now: datetime

    def index(self, days: Sequence[date]) -> pl.DataFrame:
        """Symbol, instant and day of every row of ``days``, those not known yet among them."""
        return (
            self.lake.scan(self.table, days, self.version)
            .select(JOIN_KEY, "event_timestamp", "date")
            .filter(pl.col(JOIN_KEY).is_in(list(self.symbols)))
            .collect()
        )

    def newest(self, index: pl.DataFrame) -> pl.DataFrame:
        """Of each symbol the key of its newest row that is known and within its time to live."""
        used = pl.col("event_timestamp").is_between(self.now - TTL, self.now)
        return index.filter(used).sort("event_timestamp").group_by(JOIN_KEY).last()

    def rows(self, keys: pl.DataFrame) -> pl.DataFrame:
        """The rows of ``keys``, shaped as :func:`online_rows`; null for other symbols."""
        days = keys["date"].unique().to_list()
        names = [feature.name for feature in features_of(self.table)]
        found = (
            self.lake.scan(self.table, days, self.version)
            .select(JOIN_KEY, "event_timestamp", *names)
            .join(keys.lazy().select(JOIN_KEY, "event_timestamp"), on=[JOIN_KEY, "event_timestamp"])
        )
        wanted = pl.LazyFrame({JOIN_KEY: list(self.symbols)}, schema={JOIN_KEY: pl.String})
        return wanted.join(found, on=JOIN_KEY, how="left", maintain_order="left").collect()


def bring_up_to_date(
    store: FeatureStore,
    lake: Lake,
    table: Table,
    symbols: Sequence[str],
    *,
    now: datetime,
    delay: timedelta,
    since: Brought | None = None,
) -> Brought:
    """Make the online store hold each symbol's newest row of ``table`` known at ``now``.

    Read are the days that changed in the lake since the last time, written are the rows that
    differ. Whatever makes that doubtful has the whole time to live read again: no record of the
    last time, other formulas or symbols, a clock that went back, online rows that are not those of
    the last time, a newest row that is gone.

    Args:
        store: The store, with the catalog in its registry.
        lake: Where ``table`` is.
        table: The table, and the view of its name.
        symbols: Symbols to hold.
        now: Rows with a later event timestamp do not exist yet.
        delay: Longest time from the end of a row's day to its event timestamp.
        since: What this function returned the last time.
    """
    version = lake.version(table)
    snapshot = _Snapshot(lake, table, version, symbols, now)
    days = lake.day_versions(table, _days(now, delay), version)
    held = online_rows(store, table, symbols, now)
    catalog = f"{version_of(table)} in {lake.address(table)}"
    wanted = None
    if since and since.catalog == catalog and since.now <= now and since.rows == _digest(held):
        read = [day for day in days if days[day] != since.days.get(day) or day in since.later]
        index = snapshot.index(read)
        wanted = _moved_on(snapshot, held, index, read)
    if wanted is None:
        read, index = list(days), snapshot.index(list(days))
        wanted = snapshot.rows(snapshot.newest(index))
    return Brought(
        version=version,
        now=now,
        catalog=catalog,
        days=days,
        later=_later(index, now),
        rows=_digest(wanted),
        written=_write(store, table, held, wanted),
        days_read=len(read),
    )


def online_rows(
    store: FeatureStore, table: Table, symbols: Sequence[str], now: datetime
) -> pl.DataFrame:
    """What readers of the online store get at ``now``: one row per symbol.

    A symbol without a row, or with one past its time to live, has nulls.

    Returns:
        Columns ``symbol``, ``event_timestamp`` and each feature of the view.
    """
    names = [feature.name for feature in features_of(table)]
    answer: dict[str, list[Any]] = store.get_online_features(
        features=[f"{table}:{name}" for name in names],
        entity_rows=[{JOIN_KEY: symbol} for symbol in symbols],
    ).to_dict(include_event_timestamps=True)
    instants = [instant_in_use(seconds, now, TTL) for seconds in answer[f"{names[0]}__ts"]]
    used = [instant is not None for instant in instants]
    return pl.DataFrame(
        [
            pl.Series(JOIN_KEY, symbols, pl.String),
            pl.Series("event_timestamp", instants, _INSTANT),
            *(
                pl.Series(
                    name,
                    [value if use else None for value, use in zip(answer[name], used, strict=True)],
                    pl.Float64,
                )
                for name in names
            ),
        ]
    )


def newest_rows(
    lake: Lake,
    table: Table,
    symbols: Sequence[str],
    now: datetime,
    delay: timedelta,
    *,
    version: int | None = None,
) -> pl.DataFrame:
    """What the lake says the online store must hold at ``now``; shaped as :func:`online_rows`."""
    number = lake.version(table) if version is None else version
    snapshot = _Snapshot(lake, table, number, symbols, now)
    return snapshot.rows(snapshot.newest(snapshot.index(_days(now, delay))))


def newest_keys(
    lake: Lake, table: Table, symbols: Sequence[str], now: datetime, delay: timedelta
) -> pl.DataFrame:
    """``symbol``, ``event_timestamp`` and ``date`` of each symbol's newest row in the lake."""
    snapshot = _Snapshot(lake, table, lake.version(table), symbols, now)
    return snapshot.newest(snapshot.index(_days(now, delay)))


def _days(now: datetime, delay: timedelta) -> list[date]:
    """Days whose rows can be known at ``now`` and be within their time to live."""
    first = (now - TTL - delay - _DAY).date()
    return [first + offset * _DAY for offset in range((now.date() - first).days + 1)]


def _moved_on(
    snapshot: _Snapshot, held: pl.DataFrame, index: pl.DataFrame, read: Sequence[date]
) -> pl.DataFrame | None:
    """The online rows after the days ``read`` changed; none where only all days can tell."""
    if not read:
        return held
    keys = snapshot.newest(index)
    newest = dict(keys.select(JOIN_KEY, "event_timestamp").iter_rows())
    before = dict(held.select(JOIN_KEY, "event_timestamp").iter_rows())
    taken = []
    for symbol, instant in before.items():
        new = newest.get(symbol)
        if new is not None and (instant is None or new >= instant):
            taken.append(symbol)
        elif instant is not None and instant > day_start(min(read)):
            # It may have been a row of a day that was read, and is no more. No row is known
            # before its day begins, so older ones are of other days.
            return None
    rows = snapshot.rows(keys.filter(pl.col(JOIN_KEY).is_in(taken)))
    keep = ~pl.col(JOIN_KEY).is_in(taken)
    return pl.concat([held.filter(keep), rows.filter(~keep)]).sort(
        pl.col(JOIN_KEY).cast(pl.Enum(list(snapshot.symbols)))
    )


def _later(index: pl.DataFrame, now: datetime) -> tuple[date, ...]:
    """The days with rows that are not known yet."""
    days = index.filter(pl.col("event_timestamp") > now)["date"].unique().sort()
    return tuple(days.to_list())


def _write(store: FeatureStore, table: Table, held: pl.DataFrame, wanted: pl.DataFrame) -> int:
    """Write the rows of ``wanted`` that are not ``held``; return how many.

    A symbol without a row any more is dated at the epoch: Feast can write rows, not delete them.
    """
    differs = [old != new for old, new in zip(_texts(held), _texts(wanted), strict=True)]
    rows = wanted.filter(pl.Series(differs, dtype=pl.Boolean))
    if rows.is_empty():
        return 0
    dated = rows.with_columns(pl.col("event_timestamp").fill_null(_EPOCH))
    store.provider.ingest_df(store.get_feature_view(table), dated.to_pandas())
    return rows.height


def _texts(rows: pl.DataFrame) -> list[str]:
    """Each row spelled out; floats to their last bit."""
    return [repr(row) for row in rows.iter_rows()]


def _digest(rows: pl.DataFrame) -> str:
    return hashlib.sha256("\n".join(_texts(rows)).encode()).hexdigest()
