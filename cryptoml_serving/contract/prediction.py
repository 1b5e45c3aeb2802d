"""The answer to one prediction request, and the name a prediction is remembered by."""

from __future__ import annotations

import hashlib
from datetime import UTC
from typing import TYPE_CHECKING, Literal
from uuid import UUID, uuid5

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, computed_field

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import ArrayLike

_NAMESPACE = UUID("0f7dbb8e-6f0e-5d0a-9f4e-3c1d7f0b8a51")


class Prediction(BaseModel):
    """What an approved model expects of one symbol, and everything needed to trace it back.

    Returns are log returns over ``horizon_seconds`` from ``feature_timestamp`` on. Callers know the
    expected return as ``prediction``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    symbol: str = Field(description="ccxt symbol", examples=["BTC/USDT"])
    expected_return: FiniteFloat = Field(
        description="expected log return over the horizon", serialization_alias="prediction"
    )
    lower: FiniteFloat = Field(description="lower end of the calibrated 90 % interval")
    upper: FiniteFloat = Field(description="upper end of the calibrated 90 % interval")
    probability_up: float = Field(ge=0, le=1, description="probability of a positive return")
    horizon_seconds: int = Field(gt=0, description="how far ahead the return reaches")
    model_name: str = Field(description="name of the registered model")
    model_version: str = Field(description="the registry's own version of the approved model")
    role: Literal["champion", "shadow", "canary"] = Field(
        description="what that version is: the champion, or a canary that answers a share of the "
        "requests; a shadow is scored and never answered"
    )
    prediction_id: UUID = Field(
        description="same model, symbol, feature instant and feature values, same id"
    )
    source: str = Field(description="the world the model learned from: simulated, replay or live")
    feature_timestamp: AwareDatetime = Field(
        description="close of the newest bar the price features were computed from"
    )
    feature_age_seconds: float = Field(description="age of the price features at answer time")
    timestamp: AwareDatetime = Field(description="when the prediction was computed")

    @computed_field(  # type: ignore[prop-decorator] # mypy knows no decorated property
        description="the model's own calibrated probability that the return has the sign of the "
        "prediction: probability_up, or what that lacks to 1 where the prediction is negative"
    )
    @property
    def confidence(self) -> float:
        """Probability, of what the model says itself, that the sign is right."""
        return 1.0 - self.probability_up if self.expected_return < 0 else self.probability_up


def prediction_id(
    bundle_digest: str, symbol: str, feature_timestamp: datetime, inputs: ArrayLike
) -> UUID:
    """The name of the prediction one bundle makes for one symbol, instant and row of features.

    Features of one instant may change, where a revised bar or a late block brings others; then
    the answer is another prediction.

    Args:
        bundle_digest: of the model.
        symbol: that was predicted.
        feature_timestamp: of its price features.
        inputs: shape (features,), in the model's order; NaN is missing. They count as the 32-bit
            numbers that the model gets.
    """
    with np.errstate(over="ignore"):
        row = np.array(inputs, "<f4")
    # A number that is none has many bit patterns.
    row[np.isnan(row)] = np.nan
    read = hashlib.sha256(row.tobytes()).hexdigest()
    instant = feature_timestamp.astimezone(UTC).isoformat()
    return uuid5(_NAMESPACE, f"{bundle_digest}|{symbol}|{instant}|{read}")
