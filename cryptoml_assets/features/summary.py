"""What a run tells of the feature rows it computed, gathered part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.report import hourly_volatility, null_shares
from cryptoml_assets.tables import markdown_table


@dataclass(frozen=True)
class _Part:
    """Figures of the rows of some days."""

    rows: int
    symbols: frozenset[str]
    missing: dict[str, int]
    nulls: pl.DataFrame
    volatility: pl.DataFrame


class Summary:
    """Figures of a run; a part that is computed again takes the place of what it was."""

    def __init__(self, features: Sequence[Feature]) -> None:
        """Nothing was computed yet; ``features`` are those of the table."""
        self._features = [feature.name for feature in features]
        self._parts: dict[tuple[date, ...], _Part] = {}

    def add(self, days: Sequence[date], frame: pl.DataFrame, nulls: pl.DataFrame) -> None:
        """Take in the rows of ``days``.

        Args:
            days: the days of the part.
            frame: their feature rows.
            nulls: how many values each feature lacks for each reason, in the columns ``feature``,
                ``reason`` and ``values``.
        """
        self._parts[tuple(days)] = _Part(
            rows=frame.height,
            symbols=frozenset(frame["symbol"].unique()),
            missing={name: frame[name].null_count() for name in self._features},
            nulls=nulls,
            volatility=hourly_volatility(frame)
            if "volatility" in frame.columns
            else pl.DataFrame(),
        )

    @property
    def days(self) -> int:
        """Days computed so far."""
        return sum(map(len, self._parts))

    @property
    def rows(self) -> int:
        """Rows of those days."""
        return sum(part.rows for part in self._parts.values())

    @property
    def symbols(self) -> int:
        """How many symbols have rows."""
        return len(frozenset().union(*(part.symbols for part in self._parts.values())))

    @property
    def volatility(self) -> pl.DataFrame:
        """Hourly means of the feature ``volatility``, for a picture."""
        return pl.concat([part.volatility for part in self._parts.values()])

    def null_shares(self) -> str:
        """A Markdown table of the share of missing values in each column."""
        missing = {
            name: sum(part.missing[name] for part in self._parts.values())
            for name in self._features
        }
        return null_shares(missing, self.rows)

    def null_reasons(self) -> str:
        """A Markdown table of the share of values that each feature lacks for each reason."""
        counts = pl.concat([part.nulls for part in self._parts.values()])
        keys = ("feature", "reason")
        sums = counts.group_by(keys, maintain_order=True).agg(pl.col("values").sum())
        rows = max(self.rows, 1)
        lines = [
            (feature, reason, f"{count:,}", f"{count / rows:.2%}")
            for feature, reason, count in sums.iter_rows()
        ]
        return markdown_table((*keys, "values", "share of rows"), lines)
