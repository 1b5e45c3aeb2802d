"""Writes docs/feature_reference.md from the catalog: every feature, under the name it has there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptoml_assets.features.catalog import FEATURES, features_of, model_features
from cryptoml_assets.features.feature import Feature, Table

PAGE = Path(__file__).with_name("feature_reference.md")
_ABOUT = f"""# Feature reference

Written from the catalog by `python docs/feature_reference.py`; a test holds it to that.

{len(FEATURES)} features, {len(model_features())} of them model inputs. The window is the number of
rows a value is about. The warm-up is the number of rows before the newest one that it needs, all of
them there; it follows from the formula. How values are made and what they promise:
[Features](features.md).
""".splitlines()
_HEADER = ("feature", "unit", "window", "warm-up", "from", "model input", "meaning")
_TABLES: dict[Table, tuple[str, str]] = {
    "price_features": (
        "Price features",
        "One row per symbol and closed bar. Rows are bars of `CRYPTOML_TIMEFRAME`.",
    ),
    "onchain_features": (
        "On-chain features",
        "One row per symbol and UTC day. Rows are days.",
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
        feature.unit,
        str(feature.window),
        str(feature.warmup),
        ", ".join(f"`{source}`" for source in feature.sources) or "time alone",
        "yes" if feature.model_input else "",
        feature.description,
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(render())
