"""The catalog as Feast objects: one entity, a view per feature table, a service for the models."""

from __future__ import annotations

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Float64, String

from cryptoml_assets.features.catalog import (
    FEATURES,
    TTL,
    features_of,
    model_features,
    version_of,
)
from cryptoml_assets.features.feature import Feature, Table
from cryptoml_assets.features.service import return_service_name
from cryptoml_serving.contract.feature_store import FORMULA_TAG, JOIN_KEY

_DESCRIPTIONS: dict[Table, str] = {
    "price_features": "One row per symbol and closed bar; known at the bar's close.",
    "onchain_features": "One row per symbol and UTC day; known once published and final.",
}


def crypto_symbol() -> Entity:
    """The entity every view is keyed by: a ccxt symbol such as ``BTC/USDT``."""
    return Entity(
        name="crypto_symbol",
        join_keys=[JOIN_KEY],
        value_type=ValueType.STRING,
        description="A ccxt symbol, such as BTC/USDT.",
    )


def push_source_name(table: Table) -> str:
    """Name by which a stream's rows of ``table`` are put online with ``store.push``."""
    return f"{table}_stream"


def view(table: Table, lake_uri: str) -> FeatureView:
    """The feature view of one lake table, with every feature the catalog puts there."""
    features = features_of(table)
    stored = FileSource(
        name=f"lake_{table}",
        path=f"{lake_uri.rstrip('/')}/{table}",
        file_format=DeltaFormat(),
        timestamp_field="event_timestamp",
    )
    return FeatureView(
        name=table,
        description=_DESCRIPTIONS[table],
        entities=[crypto_symbol()],
        ttl=TTL,
        schema=[Field(name=JOIN_KEY, dtype=String), *(_field(each) for each in features)],
        source=PushSource(name=push_source_name(table), batch_source=stored),
        online=True,
        tags={"catalog": version_of(table), "sources": _sources(features)},
    )


def return_service(price: FeatureView, onchain: FeatureView) -> FeatureService:
    """The inputs of the return models, in the order their bundles hold them."""
    inputs = model_features()
    return FeatureService(
        name=return_service_name(),
        description="Inputs of the models that predict the return over the horizon.",
        features=[
            each[[field.name for field in each.features if field.name in inputs]]
            for each in (price, onchain)
        ],
        tags={
            "inputs": str(len(inputs)),
            "sources": _sources([each for each in FEATURES if each.model_input]),
        },
    )


def _field(feature: Feature) -> Field:
    return Field(
        name=feature.name,
        dtype=Float64,
        description=feature.description,
        tags={
            "unit": feature.unit,
            "window": str(feature.window),
            "warm_up": str(feature.warmup),
            "sources": ",".join(feature.sources),
            FORMULA_TAG: feature.term.digest,
        },
    )


def _sources(features: list[Feature] | tuple[Feature, ...]) -> str:
    return ",".join(sorted({table for each in features for table in each.sources}))
