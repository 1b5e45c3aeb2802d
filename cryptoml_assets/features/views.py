"""The catalog as Feast objects: one entity, a view per feature table, a service for the models."""

from __future__ import annotations

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Float64, String

from cryptoml_assets.features.catalog import TTL, features_of, model_features
from cryptoml_assets.features.feature import Table
from cryptoml_serving.contract.feature_store import JOIN_KEY
from cryptoml_serving.contract.registry import FEATURE_SERVICE

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


def view(table: Table, lake_uri: str) -> FeatureView:
    """The feature view of one lake table, with every feature the catalog puts there."""
    return FeatureView(
        name=table,
        description=_DESCRIPTIONS[table],
        entities=[crypto_symbol()],
        ttl=TTL,
        schema=[
            Field(name=JOIN_KEY, dtype=String),
            *(
                Field(
                    name=feature.name,
                    dtype=Float64,
                    description=feature.description,
                    tags={"unit": feature.unit},
                )
                for feature in features_of(table)
            ),
        ],
        source=FileSource(
            name=f"lake_{table}",
            path=f"{lake_uri.rstrip('/')}/{table}",
            file_format=DeltaFormat(),
            timestamp_field="event_timestamp",
        ),
        online=True,
    )


def return_service(price: FeatureView, onchain: FeatureView) -> FeatureService:
    """The inputs of the return models, in the order their bundles hold them."""
    inputs = model_features()
    return FeatureService(
        name=FEATURE_SERVICE,
        description="Inputs of the models that predict the return over the horizon.",
        features=[
            each[[field.name for field in each.features if field.name in inputs]]
            for each in (price, onchain)
        ],
    )
