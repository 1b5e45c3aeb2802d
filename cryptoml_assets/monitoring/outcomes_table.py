"""The table of outcomes, brought up to what was served and to the bars.

An outcome is a function of what was served, of the bars and of the present instant alone, so the
table is the same however often it was brought up to date and in whatever pieces predictions and
bars arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from cryptoml_assets.days import days_between
from cryptoml_assets.monitoring.outcomes import (
    PREDICTION_OUTCOMES,
    SCHEMA,
    Rules,
    longest_horizon,
    outcomes,
    without_duplicates,
)
from cryptoml_assets.resources.delta import DAY_COLUMN
from cryptoml_assets.resources.lake import Lake, Stored
from cryptoml_serving.contract.served import SERVED_PREDICTIONS

#: The lake table of bars.
PRICES = "raw_prices"
#: Days whose rows are in memory at a time.
_DAYS_AT_A_TIME = 16
_DAY = timedelta(days=1)
_INSTANT = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Seen:
    """What the table of outcomes was brought up to.

    Attributes:
        now: ISO instant that was the present.
        rules: text of the rules.
        served: version of the table of predictions.
        prices: version of the table of bars, -1 without one.
        outcomes: version of the table of outcomes.
        horizon_seconds: longest that was met.
    """

    now: str
    rules: str
    served: int
    prices: int
    outcomes: int
    horizon_seconds: int

    def record(self) -> dict[str, Any]:
        """All that the next time needs, as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """What bringing the table up to date came to.

    Attributes:
        stored: version, rows of the whole table, and the days that changed.
        outcomes: rows with an outcome, of the whole table.
        missing: rows whose bar is missing for good.
        waiting: predictions of the days that were computed whose outcome is not known yet.
        duplicates: rows of those days that say again what another row says.
        days: days that were computed.
        seen: for the next time; none before anything was served.
    """

    stored: Stored
    outcomes: int
    missing: int
    waiting: int
    duplicates: int
    days: int
    seen: Seen | None


def bring_up_to_date(
    lake: Lake,
    *,
    now: datetime,
    rules: Rules,
    bars: Callable[[pl.LazyFrame], pl.LazyFrame],
    since: Seen | None = None,
) -> Report:
    """Make the table of outcomes what the served predictions and the bars say at ``now``.

    Computed are the days whose predictions or bars changed since the last time and those that were
    still open then. Whatever makes that doubtful has all days computed again: no record of the last
    time, other rules, a clock that went back, a table that somebody else has written.

    Args:
        lake: holds all three tables; outcomes are created when missing.
        now: the present instant.
        rules: how outcomes are computed.
        bars: picks the bars of one venue and length out of ``raw_prices``.
        since: what the last time ended with.

    Raises:
        LakeError: a table that cannot be read or written.
    """
    if not lake.exists(SERVED_PREDICTIONS):
        stored = lake.rewrite_days(PREDICTION_OUTCOMES, (), lambda rows: rows, SCHEMA)
        return Report(stored, 0, 0, 0, 0, 0, None)
    tables = _Tables.of(lake, rules, bars, now)
    known = since if since is not None and tables.trusts(since) else None
    horizon = max(rules.horizon, timedelta(seconds=known.horizon_seconds if known else 0))
    done = tables.bring(known, horizon)
    if done.longest > horizon:
        # A prediction that reaches further than was known says that bars of more days matter, and
        # predictions of more days to each other.
        horizon = done.longest
        done = tables.bring(known, horizon)
    nulls = pl.col("realised_return").is_null().sum()
    written = lake.scan(PREDICTION_OUTCOMES, version=done.version)
    rows, missing = written.select(pl.len(), nulls).collect().row(0)
    return Report(
        stored=Stored(done.version, rows, tuple(sorted(done.changed))),
        outcomes=rows - missing,
        missing=missing,
        waiting=done.waiting,
        duplicates=done.duplicates,
        days=done.days,
        seen=Seen(
            now=now.isoformat(),
            rules=rules.text(),
            served=tables.served,
            prices=tables.prices,
            outcomes=done.version,
            horizon_seconds=int(horizon.total_seconds()),
        ),
    )


@dataclass
class _Done:
    """What one pass over the days has come to so far."""

    days: int = 0
    version: int = -1
    waiting: int = 0
    duplicates: int = 0
    longest: timedelta = timedelta(0)
    changed: set[date] = field(default_factory=set)


@dataclass(frozen=True)
class _Tables:
    """Predictions and bars at one version each, and how outcomes are made of them."""

    lake: Lake
    rules: Rules
    bars: Callable[[pl.LazyFrame], pl.LazyFrame]
    now: datetime
    served: int
    prices: int

    @classmethod
    def of(
        cls,
        lake: Lake,
        rules: Rules,
        bars: Callable[[pl.LazyFrame], pl.LazyFrame],
        now: datetime,
    ) -> _Tables:
        prices = lake.version(PRICES) if lake.exists(PRICES) else -1
        return cls(lake, rules, bars, now, lake.version(SERVED_PREDICTIONS), prices)

    def trusts(self, since: Seen) -> bool:
        """Whether what was computed then still is what the table holds."""
        return (
            since.rules == self.rules.text()
            and datetime.fromisoformat(since.now) <= self.now
            and since.served <= self.served
            and since.prices <= self.prices
            and self.lake.exists(PREDICTION_OUTCOMES)
            and self.lake.version(PREDICTION_OUTCOMES) == since.outcomes
        )

    def bring(self, since: Seen | None, horizon: timedelta) -> _Done:
        """Compute and store the days that are due, a part of them at a time."""
        due = self._due(since, horizon)
        done = _Done(days=len(due))
        for start in range(0, max(len(due), 1), _DAYS_AT_A_TIME):
            days = due[start : start + _DAYS_AT_A_TIME]
            stored = self._store(days, self._rows(days, horizon, done))
            done.version = stored.version
            done.changed |= set(stored.days_changed)
        return done

    def _store(self, days: Sequence[date], rows: pl.DataFrame) -> Stored:
        return self.lake.rewrite_days(PREDICTION_OUTCOMES, days, lambda _: rows, SCHEMA)

    def _due(self, since: Seen | None, horizon: timedelta) -> tuple[date, ...]:
        """Days with predictions whose outcomes may be others than the stored ones, in order."""
        days = self.lake.day_versions(SERVED_PREDICTIONS, version=self.served)
        if since is None:
            return tuple(days)
        reach = _whole_days(horizon)
        open_from = datetime.fromisoformat(since.now) - horizon - self.rules.patience
        served = self._changed(SERVED_PREDICTIONS, since.served, self.served)
        prices = self._changed(PRICES, since.prices, self.prices)
        touched = {
            # Neighbours pay for what they take over from each other.
            *(day + _DAY * away for day in served for away in range(-reach, reach + 1)),
            # The bar that closes at midnight belongs to the day before.
            *(day + _DAY * away for day in prices for away in range(-reach, 2)),
        }
        return tuple(day for day in days if day in touched or day >= open_from.date())

    def _changed(self, table: str, then: int, now: int) -> set[date]:
        """Days whose rows are others in version ``now`` of a table than in ``then``."""
        old, new = (
            self.lake.day_versions(table, version=version) if version >= 0 else {}
            for version in (then, now)
        )
        return {day for day in old.keys() | new.keys() if old.get(day) != new.get(day)}

    def _rows(self, days: Sequence[date], horizon: timedelta, done: _Done) -> pl.DataFrame:
        """The outcomes of ``days``."""
        if not days:
            return pl.DataFrame(schema=SCHEMA)
        away = _DAY * _whole_days(horizon)
        around = days_between(days[0] - away, days[-1] + away)
        stored = self.lake.scan(SERVED_PREDICTIONS, around, self.served).collect()
        served = without_duplicates(stored)
        bars = pl.LazyFrame(schema={"symbol": pl.String, "close_time": _INSTANT, "close": float})
        if self.prices >= 0:
            read = days_between(days[0] - _DAY, days[-1] + away)
            bars = self.bars(self.lake.scan(PRICES, read, self.prices))
        rows = outcomes(served, bars.collect(), now=self.now, rules=self.rules)
        own = pl.col(DAY_COLUMN).is_in(list(days))
        rows = rows.filter(own)
        done.longest = max(done.longest, longest_horizon(served.filter(own)))
        done.waiting += served.filter(own).height - rows.height
        done.duplicates += stored.filter(own).height - served.filter(own).height
        return rows


def _whole_days(span: timedelta) -> int:
    return -(-span // _DAY)
