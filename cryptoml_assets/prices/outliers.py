"""Returns far from the rest of a run's, found in one pass over its days and in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

#: Returns are told apart to a millionth, a hundredth of a basis point.
_STEP = 1e-6
_LOWER, _UPPER = 0.25, 0.75
_SERIES = ("venue", "symbol", "timeframe")
_COUNTS = pl.Schema(
    {
        "symbol": pl.String(),
        "step": pl.Int64(),
        "bars": pl.Int64(),
        "open_time": pl.Datetime("us", "UTC"),
    }
)


@dataclass
class Returns:
    """How often each log return from one close to the next occurs, by symbol.

    Only returns between neighbouring bars count: the one across a gap is that of many bars. What is
    kept grows with how many different returns there are, not with how many bars.
    """

    _counts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_COUNTS))
    _last: pl.DataFrame | None = None

    def add(self, bars: pl.DataFrame) -> None:
        """Count the returns of ``bars``: rows of ``raw_prices``, later than all before.

        Closes that are no price are left out.
        """
        usable = (pl.col("close") > 0) & pl.col("close").is_finite()
        bars = bars.filter(usable).select(*_SERIES, "open_time", "close_time", "close")
        known = bars if self._last is None else pl.concat([self._last, bars])
        known = known.sort(*_SERIES, "open_time")
        steps = ((pl.col("close") / pl.col("close").shift(1).over(_SERIES)).log() / _STEP).round()
        neighbours = pl.col("close_time").shift(1).over(_SERIES) == pl.col("open_time")
        counted = (
            known.select("symbol", "open_time", pl.when(neighbours).then(steps).alias("step"))
            .drop_nulls()
            .group_by("symbol", pl.col("step").cast(pl.Int64))
            .agg(pl.len().cast(pl.Int64).alias("bars"), pl.col("open_time").min())
        )
        self._counts = (
            pl.concat([self._counts, counted])
            .group_by("symbol", "step")
            .agg(pl.col("bars").sum(), pl.col("open_time").min())
        )
        self._last = known.group_by(_SERIES).tail(1).select(bars.columns)

    def outliers(self, iqrs: float) -> pl.DataFrame:
        """Returns further than ``iqrs`` interquartile ranges from the nearer quartile.

        Quartiles are those of the symbol's returns other than 0: most bars of a pair that seldom
        trades stand still, and each of its trades would be far from that. A symbol without a spread
        has no outliers.

        Returns:
            Most distant first: ``symbol``, ``open_time`` of the first bar with this return,
            ``log_return``, ``iqrs``, its distance in interquartile ranges, and ``bars`` that share
            it.
        """
        moved = self._counts.filter(pl.col("step") != 0).sort("symbol", "step")
        below = pl.col("bars").cum_sum() / pl.col("bars").sum()
        quartiles = moved.group_by("symbol").agg(
            pl.col("step").filter(below >= _LOWER).first().alias("lower"),
            pl.col("step").filter(below >= _UPPER).first().alias("upper"),
        )
        beyond = pl.max_horizontal(
            pl.col("lower") - pl.col("step"), pl.col("step") - pl.col("upper")
        )
        return (
            moved.join(quartiles.filter(pl.col("lower") < pl.col("upper")), on="symbol")
            .select(
                "symbol",
                "open_time",
                (pl.col("step") * _STEP).alias("log_return"),
                (beyond / (pl.col("upper") - pl.col("lower"))).alias("iqrs"),
                "bars",
            )
            .filter(pl.col("iqrs") > iqrs)
            .sort("iqrs", "symbol", "open_time", descending=[True, False, False])
        )
