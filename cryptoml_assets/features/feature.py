"""What a feature is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryptoml_assets.features.terms import Term, columns_of

Table = Literal["price_features", "onchain_features"]
#: Both feature tables.
TABLES: tuple[Table, ...] = ("price_features", "onchain_features")

#: Columns an on-chain feature sees: of the symbol's base asset, and of the blocks, for all symbols.
METRICS = ("active_addresses", "transaction_count", "hash_rate", "nvt_ratio", "mvrv_ratio")
BLOCKS = (
    "block_gas_used",
    "block_gas_limit",
    "block_base_fee",
    "block_transactions",
    "block_active_addresses",
    "block_above_target",
)

BARS = ("open", "high", "low", "close", "volume")

#: What the features of a table are made of.
COLUMNS: dict[Table, tuple[str, ...]] = {
    "price_features": (*BARS, "day_phase", "week_phase"),
    "onchain_features": (*METRICS, *BLOCKS),
}

_SOURCES = {
    **dict.fromkeys(BARS, "raw_prices"),
    **dict.fromkeys(METRICS, "network_metrics"),
    **dict.fromkeys(BLOCKS, "onchain_blocks"),
}


@dataclass(frozen=True, eq=False)
class Feature:
    """One column of a feature table.

    Attributes:
        name: Column name, the same in the lake, in Feast and in the model bundle.
        table: The lake table and Feast view that hold it.
        term: Value at each row.
        window: Rows the value is about: those of its window, or the span of a smoothing, whose
            older rows weigh little. Values so far apart have little in common.
        unit: Unit of the value.
        description: Meaning, with the source of the formula where there is one.
        model_input: Whether models are trained on it. Levels (a price, a volume) are served for
            people and other consumers; models get stationary quantities.
        lag_of: The feature whose value this one is, and how many rows earlier: one step of a
            channel that models of windows read. None where it is no lag.
    """

    name: str
    table: Table
    term: Term
    window: int
    unit: str
    description: str
    model_input: bool = False
    lag_of: tuple[str, int] | None = None

    @property
    def warmup(self) -> int:
        """Rows (bars or days) before the newest one that a value needs; 0: the newest alone."""
        return self.term.reach

    @property
    def sources(self) -> tuple[str, ...]:
        """The lake tables a value is made of."""
        names = {each.name for each in columns_of([self.term])}
        return tuple(sorted({_SOURCES[name] for name in names & _SOURCES.keys()}))
