"""Drift of features: the population stability index of recent rows against the training rows.

With shares ``a`` of the recent and ``e`` of the reference rows in each bin, the index is
``sum((a - e) * ln(a / e))`` (Siddiqi, Credit Risk Scorecards, 2006). Without any drift its
expectation is about ``(bins - 1) * (1 / n + 1 / m)`` for ``n`` and ``m`` independent rows (Yurdakul
and Naranjo, Statistical properties of the population stability index, 2020). Values of overlapping
windows are far from independent, so an index is only given where the recent rows hold enough
independent values for that expectation to stay below the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

BINS = 10
#: Shares are floored at this, so that an empty bin gives a large index and not an infinite one.
_LEAST_SHARE = 1e-4
_INSTANT = pl.Datetime("us", "UTC")
SCHEMA = pl.Schema(
    {
        "feature": pl.String(),
        "symbol": pl.String(),
        "psi": pl.Float64(),
        "threshold": pl.Float64(),
        "drifted": pl.Boolean(),
        "window_start": _INSTANT,
        "window_end": _INSTANT,
        "reference_rows": pl.Int64(),
        "current_rows": pl.Int64(),
        "source": pl.String(),
    }
)


@dataclass(frozen=True)
class Share:
    """How much has drifted: ``drifted`` of ``judged`` pairs of feature and symbol."""

    drifted: int
    judged: int

    @property
    def share(self) -> float:
        """Share of the judged pairs that drifted; 0 where none could be judged."""
        return self.drifted / self.judged if self.judged else 0.0


def population_stability(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """The index over bins at the deciles of ``reference``; both 1-d, non-empty, without NaN.

    Deciles that coincide, as with few distinct values, are one bin edge.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    expected, actual = (
        np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        / len(values)
        for values in (reference, current)
    )
    expected, actual = (np.maximum(shares, _LEAST_SHARE) for shares in (expected, actual))
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def least_independent_rows(threshold: float) -> float:
    """Independent recent rows below which the index passes ``threshold`` by chance alone."""
    return (BINS - 1) / threshold


def feature_drift(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    spans: Mapping[str, int],
    *,
    threshold: float,
    window: tuple[datetime, datetime],
) -> pl.DataFrame:
    """The index of each feature and symbol.

    Args:
        reference: Training rows: ``symbol``, ``source`` and the features.
        current: Recent rows of the same shape.
        spans: For each feature, how many rows share one independent value (the length of its
            window in rows).
        threshold: Index above which a feature has drifted.
        window: First and last instant of ``current``.

    Returns:
        :data:`SCHEMA`, one row per feature and symbol of ``current``, sorted; ``psi`` is null where
        too little data allows no judgement.
    """
    least = least_independent_rows(threshold)
    rows = []
    for symbol in current["symbol"].unique().sort():
        then = reference.filter(pl.col("symbol") == symbol)
        now = current.filter(pl.col("symbol") == symbol)
        for feature, span in spans.items():
            old, new = (_values(frame, feature) for frame in (then, now))
            enough = min(len(old), len(new)) / span >= least
            psi = population_stability(old, new) if enough else None
            drifted = psi is not None and psi > threshold
            source = now["source"][-1]
            counts = (len(old), len(new))
            rows.append((feature, symbol, psi, threshold, drifted, *window, *counts, source))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("feature", "symbol")


def drifted_share(report: pl.DataFrame) -> Share:
    """Count the drifted and the judged pairs of a drift report."""
    return Share(
        drifted=int(report["drifted"].sum()), judged=int(report["psi"].is_not_null().sum())
    )


def _values(frame: pl.DataFrame, feature: str) -> NDArray[np.float64]:
    return frame[feature].drop_nulls().to_numpy()
