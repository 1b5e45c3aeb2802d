"""Why a value of ``price_features`` is null, told to a person."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import days_before
from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.inputs import bars_of_settings
from cryptoml_assets.features.reasons import REASONS
from cryptoml_assets.features.why import Why, why
from cryptoml_assets.prices.resample import scan_ledger
from cryptoml_assets.reads import days_read
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings


def explain(configured: Settings, name: str, symbol: str, event_timestamp: datetime) -> list[str]:
    """Lines that say why one value is null, or that it is not.

    Args:
        configured: says where the lake is, and of which venue and bar length.
        name: a feature of ``price_features``.
        symbol: BASE/QUOTE.
        event_timestamp: of the row; UTC where it names no zone.

    Raises:
        LakeError: no such feature, or no such row.
    """
    feature = _feature(name)
    zoned = event_timestamp.tzinfo is not None
    at = event_timestamp.astimezone(UTC) if zoned else event_timestamp.replace(tzinfo=UTC)
    bar = configured.bar
    days = days_read([(at - bar).date()], days_before(bar))
    lake = Lake(configured.lake_uri)
    found = why(
        bars_of_settings(lake.scan("raw_prices", days)),
        feature,
        symbol,
        at,
        bar,
        ledger=bars_of_settings(scan_ledger(lake, days)).collect(),
        history=bars_of_settings(lake.scan("raw_prices")),
    )
    place = f"{name} of {symbol} at {at:%Y-%m-%d %H:%M} UTC"
    if not found:
        return [f"{place} is not null"]
    return [f"{place} is null:", *_told(found)]


def _told(found: tuple[Why, ...]) -> Iterator[str]:
    for each in found:
        yield f"  {each.reason}: {REASONS[each.reason]}"
        if each.start is not None and each.end is not None:
            whose = each.symbol or "every other symbol"
            cause = each.cause or "not accounted for by the gap ledger"
            yield f"    {whose}, {each.start:%Y-%m-%d %H:%M} .. {each.end:%Y-%m-%d %H:%M}: {cause}"


def _feature(name: str) -> Feature:
    features = {feature.name: feature for feature in features_of("price_features")}
    if name not in features:
        near = ", ".join(difflib.get_close_matches(name, features)) or "see docs/features.md"
        raise LakeError(f"price_features has no feature {name}; close matches: {near}")
    return features[name]
