"""The catalog as Feast objects: an entity, a view of each table, services of model inputs."""

from __future__ import annotations

from collections.abc import Sequence

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Float64, String

from cryptoml_assets.features.catalog import TTL, features_of, input_sets, version_of
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


def return_services(price: FeatureView, onchain: FeatureView) -> tuple[FeatureService, ...]:
    """A service of each set of inputs that models of the return read, in their bundles' order."""
    return tuple(_return_service(inputs, (price, onchain)) for inputs in input_sets())


def _return_service(inputs: Sequence[Feature], views: Sequence[FeatureView]) -> FeatureService:
    names = {each.name for each in inputs}
    lags = sum(each.lag_of is not None for each in inputs)
    read = "a window of bars" if lags else "one bar"
    return FeatureService(
        name=return_service_name(inputs),
        description=f"Inputs of the models that predict the return over the horizon from {read}.",
        features=[
            each[[field.name for field in each.features if field.name in names]] for each in views
        ],
        tags={"inputs": str(len(inputs)), "lags": str(lags), "sources": _sources(inputs)},
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


def _sources(features: Sequence[Feature]) -> str:
    return ",".join(sorted({table for each in features for table in each.sources}))
