"""Writes docs/feature_reference.md from the catalog: every feature, under the name it has there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptoml_assets.features.catalog import FEATURES, features_of, model_features
from cryptoml_assets.features.feature import Feature, Table

PAGE = Path(__file__).with_name("feature_reference.md")
_ABOUT = f"""---
hide:
  - toc
---

# Feature reference

Written from the catalog by `python docs/feature_reference.py`; a test holds it to that.

{len(FEATURES)} features, {len(model_features())} of them model inputs.

- **window**: rows a value is about. Of a smoothing it is the span, whose older rows weigh little.
- **warm-up**: rows before the newest one that a value reaches back to. It follows from the formula.
  With fewer, and where a row that the formula names is missing, the value is null.
- **unit**: of the value. "Quote" is the quote currency of the symbol, "base" its base currency; a
  log return of 0.01 is about one percent. Nothing is annualised.

A value is also null where its formula has none, as said there, and never infinite or NaN. How
values are made and what they promise: [Features](features.md).

""".splitlines()
_HEADER = ("feature", "meaning", "unit", "window", "warm-up", "model input", "from")
_TABLES: dict[Table, tuple[str, str]] = {
    "price_features": (
        "Price features",
        "One row per symbol and bar of `CRYPTOML_TIMEFRAME`, known at its close.",
    ),
    "onchain_features": (
        "On-chain features",
        "One row per symbol and UTC day, known once final; `eth_` ones are the same for all.",
    ),
}


def render() -> str:
    """The whole page as markdown."""
    return "\n".join([*_ABOUT, *(line for table in _TABLES for line in _section(table))])


def _section(table: Table) -> Iterable[str]:
    title, about = _TABLES[table]
    yield from (f"## {title}", "", about, "", _row(_HEADER), _row(["---"] * len(_HEADER)))
    for feature in features_of(table):
        yield _row(_cells(feature))
    yield ""


def _cells(feature: Feature) -> tuple[str, ...]:
    return (
        f"`{feature.name}`",
        feature.description,
        feature.unit,
        str(feature.window),
        str(feature.warmup),
        "yes" if feature.model_input else "",
        ", ".join(feature.sources) or "time alone",
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(render())
