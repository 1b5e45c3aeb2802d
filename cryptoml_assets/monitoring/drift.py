"""Drift of columns of rows, each symbol against its own past: the report.

A pair of column and symbol has drifted where its recent values differ more from the reference than
chance allows (:mod:`~cryptoml_assets.monitoring.two_sample`), and by enough to matter: its
population stability index is above the threshold.

What is judged together has windows of one length. Inputs of bars and those that are read once a day
cannot share one: a window that a few weeks of bars allow holds a single value of the latter. So
each kind has its own, and where both can be judged they share the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from cryptoml_assets.monitoring.two_sample import (
    Distances,
    Judgement,
    Sample,
    Windows,
    choose_windows,
    distances,
    judge,
)

_INSTANT = pl.Datetime("us", "UTC")
SCHEMA = pl.Schema(
    {
        "feature": pl.String(),
        "symbol": pl.String(),
        "psi": pl.Float64(),
        "threshold": pl.Float64(),
        "ks": pl.Float64(),
        "ks_spread": pl.Float64(),
        "statistic": pl.Float64(),
        "p_value": pl.Float64(),
        "adjusted_p_value": pl.Float64(),
        "drifted": pl.Boolean(),
        "window_start": _INSTANT,
        "window_end": _INSTANT,
        "reference_start": _INSTANT,
        "reference_end": _INSTANT,
        "reference_rows": pl.Int64(),
        "current_rows": pl.Int64(),
        "effective_rows": pl.Float64(),
        "model_version": pl.String(),
        "source": pl.String(),
    }
)
MEANINGS = {
    "feature": "model input, or output of the model",
    "symbol": "base and quote currency, BASE/QUOTE",
    "psi": "population stability index; null where not judged",
    "threshold": "index above which a significant change counts as drift",
    "ks": "Kolmogorov-Smirnov distance of the recent values from the reference, 0 to 1",
    "ks_spread": "the same of their distances from the reference's median",
    "statistic": "larger of both, in standard deviations above the mean of past windows",
    "p_value": "chance of so large a statistic without drift, were this the only pair",
    "adjusted_p_value": "the same, counting that all pairs were looked at",
    "drifted": "whether it has; false where not judged",
    "window_start": "start of the recent rows (UTC)",
    "window_end": "end of the recent rows (UTC)",
    "reference_start": "start of the rows compared with (UTC)",
    "reference_end": "end of the rows compared with (UTC)",
    "reference_rows": "reference rows with a value",
    "current_rows": "recent rows with a value",
    "effective_rows": "recent rows in lengths of the column's own window",
    "model_version": "champion whose past is compared with; null: the newest training set",
    "source": "source of the newest recent row",
}
#: Values that are read once a day are compared in windows of so many days, and more.
_SHORTEST_OF_DAYS = timedelta(days=3)
#: So many of them allow a judgement: the newest may not have come yet.
_FEWEST_DAYS = 2
#: Least share of a column's own window that the recent one must be as long as. In a shorter one
#: values hardly move, and no change of them stands out.
_LEAST_SPAN = 0.5
#: What makes a row of the report unique.
KEY = ("feature", "symbol")


@dataclass(frozen=True)
class Rules:
    """When something has drifted; the settings of the same names explain each.

    Attributes:
        threshold: ``drift_threshold``, of the population stability index.
        significance: ``drift_significance``.
        minimum: ``drift_minimum``, of recent rows.
        share: ``drift_share``, from which on a report is an alarm.
        longest: the most the recent window may be.
        shortest: the least it may be.
        level: whether means are compared too, as windows of a few values need.
    """

    threshold: float
    significance: float
    minimum: int
    share: float
    longest: timedelta = timedelta(days=7)
    shortest: timedelta = timedelta(0)
    level: bool = False

    def of_days(self) -> Rules:
        """The same rules for columns that are read once a day."""
        longest = max(self.longest, _SHORTEST_OF_DAYS)
        return replace(
            self, minimum=_FEWEST_DAYS, shortest=_SHORTEST_OF_DAYS, longest=longest, level=True
        )

    def shared(self) -> Rules:
        """The same rules for one of two parts of a report that share the level."""
        return replace(self, significance=self.significance / 2)


@dataclass(frozen=True)
class Share:
    """How much has drifted: ``drifted`` of ``judged`` pairs; ``unjudged`` had too little data."""

    drifted: int
    judged: int
    unjudged: int

    @property
    def share(self) -> float:
        """Share of the judged pairs that drifted; 0 where none could be judged."""
        return self.drifted / self.judged if self.judged else 0.0


def recent_windows(reference: pl.DataFrame, now: datetime, rules: Rules) -> Windows | None:
    """How the reference is cut so that its windows are as long as the newest one; see there.

    Args:
        reference: rows with an ``event_timestamp``.
        now: end of the newest window.
        rules: the level and the longest window.
    """
    start, end = _ends(reference)
    if start is None or end is None:
        return None
    return choose_windows(
        start, end, now,
        significance=rules.significance, longest=rules.longest, shortest=rules.shortest,
    )  # fmt: skip


def windows_of_both(
    bars: pl.DataFrame, days: pl.DataFrame, now: datetime, rules: Rules
) -> tuple[tuple[Windows | None, Rules], tuple[Windows | None, Rules]]:
    """How the pasts of two parts of one report are cut, and the rules of each part.

    They share the level, so that it bounds the whole report. As long as the past of the second is
    too short to be judged at half of it, the first has all of it.

    Args:
        bars: the past of columns with a value of their own in each row.
        days: the past of columns that are read once a day.
        now: end of the newest windows.
        rules: of the whole report.
    """
    shared = rules.of_days().shared()
    windows = recent_windows(days, now, shared)
    of_bars = rules if windows is None else rules.shared()
    return (recent_windows(bars, now, of_bars), of_bars), (windows, shared)


def drift_report(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    spans: Mapping[str, int],
    windows: Windows | None,
    rules: Rules,
    *,
    now: datetime,
    model_version: str | None = None,
    symbols: Sequence[str] | None = None,
) -> pl.DataFrame:
    """How far each column of each symbol has moved.

    Args:
        reference: ``symbol``, ``event_timestamp`` and the columns; rows outside the windows of the
            past do not count.
        current: the same and ``source``; rows outside the newest window do not count.
        spans: for each column, how many rows share one independent value (the length of its window
            in rows).
        windows: of :func:`recent_windows`; where there are none, nothing is judged.
        rules: when something has drifted.
        now: end of the newest window.
        model_version: the champion whose past the reference is.
        symbols: whose columns; those of the newest window where not given.

    Returns:
        :data:`SCHEMA`, one row per column and symbol, sorted; ``psi`` and all that
        is concluded are null where too little data allows no judgement.
    """
    width = windows.width if windows else rules.longest
    past, newest = before_and_now(reference, current, windows, now)
    rows, found = [], []
    newest = newest.sort("symbol", "event_timestamp")
    for symbol in newest["symbol"].unique(maintain_order=True) if symbols is None else symbols:
        before, own = (frame.filter(pl.col("symbol") == symbol) for frame in (past, newest))
        for name, span in spans.items():
            then, recent = _sample(before, name), _sample(own, name)
            effective = len(recent.values) / span
            enough = len(recent.values) >= rules.minimum and effective >= _LEAST_SPAN
            found.append(
                distances(then, recent, windows, level=rules.level) if windows and enough else None
            )
            rows.append(
                {
                    "feature": name,
                    "symbol": symbol,
                    "reference_rows": len(then.values),
                    "current_rows": len(recent.values),
                    "effective_rows": effective,
                    "source": own["source"].last(),
                }
            )
    concluded = _concluded(found, windows.independent if windows else 0, rules)
    start, end = _ends(past)
    shared = {
        "threshold": rules.threshold,
        "window_start": now - width,
        "window_end": now,
        "reference_start": start,
        "reference_end": end,
        "model_version": model_version,
    }
    table = [row | each | shared for row, each in zip(rows, concluded, strict=True)]
    return pl.DataFrame(table, schema=SCHEMA, orient="row").sort(KEY)


def before_and_now(
    reference: pl.DataFrame, current: pl.DataFrame, windows: Windows | None, now: datetime
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of the reference what is in the windows of the past, of the current rows the newest window.

    Without windows all of both.
    """
    if windows is None:
        return reference, current
    instant = pl.col("event_timestamp")
    return (
        reference.filter(instant.is_between(windows.start, windows.end)),
        current.filter(instant.is_between(now - windows.width, now, closed="right")),
    )


def drifted_share(report: pl.DataFrame) -> Share:
    """Count the drifted and the judged pairs of a drift report."""
    return Share(
        drifted=int(report["drifted"].sum()),
        judged=int(report["psi"].is_not_null().sum()),
        unjudged=report["psi"].null_count(),
    )


def _concluded(
    found: list[Distances | None], independent: int, rules: Rules
) -> list[dict[str, object]]:
    judged = iter(judge([each for each in found if each is not None], independent))
    return [
        {"drifted": False} if each is None else _columns(each, next(judged), rules)
        for each in found
    ]


def _columns(found: Distances, judgement: Judgement, rules: Rules) -> dict[str, object]:
    significant = judgement.adjusted_p_value <= rules.significance
    return {
        "psi": found.psi,
        "ks": float(found.recent[0]),
        "ks_spread": float(found.recent[1]),
        "statistic": judgement.statistic,
        "p_value": judgement.p_value,
        "adjusted_p_value": judgement.adjusted_p_value,
        "drifted": significant and found.psi > rules.threshold,
    }


def _sample(frame: pl.DataFrame, column: str) -> Sample:
    kept = frame.select(
        pl.col("event_timestamp").dt.replace_time_zone(None), pl.col(column).cast(pl.Float64)
    ).filter(pl.col(column).is_finite())
    return Sample(kept["event_timestamp"].to_numpy(), np.asarray(kept[column].to_numpy()))


def _ends(frame: pl.DataFrame) -> tuple[datetime | None, datetime | None]:
    first, last = frame.select(
        pl.col("event_timestamp").min().alias("first"), pl.col("event_timestamp").max()
    ).row(0)
    return first, last
