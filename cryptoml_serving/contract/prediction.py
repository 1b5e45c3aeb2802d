"""The answer to one prediction request, and the name a prediction is remembered by."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

if TYPE_CHECKING:
    from datetime import datetime

_NAMESPACE = UUID("0f7dbb8e-6f0e-5d0a-9f4e-3c1d7f0b8a51")


class Prediction(BaseModel):
    """What an approved model expects of one symbol, and everything needed to trace it back.

    Returns are log returns over ``horizon_seconds`` from ``feature_timestamp`` on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    symbol: str = Field(description="ccxt symbol", examples=["BTC/USDT"])
    expected_return: FiniteFloat = Field(description="expected log return over the horizon")
    lower: FiniteFloat = Field(description="lower end of the calibrated 90 % interval")
    upper: FiniteFloat = Field(description="upper end of the calibrated 90 % interval")
    probability_up: float = Field(ge=0, le=1, description="probability of a positive return")
    horizon_seconds: int = Field(gt=0, description="how far ahead the return reaches")
    model_name: str = Field(description="name of the registered model")
    model_version: str = Field(description="the registry's own version of the approved model")
    prediction_id: UUID = Field(description="same model, symbol and feature instant, same id")
    source: str = Field(description="the world the model learned from: simulated, replay or live")
    feature_timestamp: AwareDatetime = Field(
        description="close of the newest bar the price features were computed from"
    )
    feature_age_seconds: float = Field(description="age of the price features at answer time")
    timestamp: AwareDatetime = Field(description="when the prediction was computed")


def prediction_id(bundle_digest: str, symbol: str, feature_timestamp: datetime) -> UUID:
    """The name of the prediction one bundle makes for one symbol at one feature instant."""
    return uuid5(_NAMESPACE, f"{bundle_digest}|{symbol}|{feature_timestamp.isoformat()}")
