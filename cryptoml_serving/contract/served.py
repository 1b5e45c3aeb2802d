"""The lake table of served predictions: what is kept of each, and how the table is stored.

The inference service appends to it; whoever compares predictions with what happened reads it. One
row is one prediction a model made of one symbol at one feature instant, kept when it was first in a
snapshot, whether or not anybody asked for it. Features of an instant that change give another row;
the one computed last is what was answered from then on. Stored by days of the feature instant.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat

from cryptoml_serving.contract.approval import Role

if TYPE_CHECKING:
    from cryptoml_serving.contract.approval import ApprovalRecord
    from cryptoml_serving.contract.prediction import Prediction

#: Name of the table in the lake.
SERVED_PREDICTIONS = "served_predictions"
#: The column that partitions it: the UTC day of ``feature_timestamp``.
SERVED_DAY = "date"
#: Column → its type in Delta's own words, in the table's order. Instants are UTC microseconds.
SERVED_COLUMNS = {
    "prediction_id": "string",
    "model_name": "string",
    "model_version": "string",
    "bundle_digest": "string",
    "role": "string",
    "symbol": "string",
    "feature_timestamp": "timestamp",
    "horizon_seconds": "long",
    "expected_return": "double",
    "lower": "double",
    "upper": "double",
    "probability_up": "double",
    "source": "string",
    "computed_at": "timestamp",
    "sequence": "long",
    SERVED_DAY: "date",
}
#: Properties of the table: those that the lake gives every table stored by days.
SERVED_PROPERTIES = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "10",
    "delta.dataSkippingStatsColumns": ",".join(SERVED_COLUMNS),
}


class ServedPrediction(BaseModel):
    """One row of the table, its day apart.

    ``role`` is what the model was when this prediction was first in a snapshot, ``sequence`` the
    number of the decision that gave it that role, ``computed_at`` when the features were read.
    Returns are log returns over ``horizon_seconds`` from ``feature_timestamp`` on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    prediction_id: str
    model_name: str
    model_version: str
    bundle_digest: str
    role: Role
    symbol: str
    feature_timestamp: AwareDatetime
    horizon_seconds: int
    expected_return: FiniteFloat
    lower: FiniteFloat
    upper: FiniteFloat
    probability_up: FiniteFloat
    source: str
    computed_at: AwareDatetime
    sequence: int

    @classmethod
    def of(cls, prediction: Prediction, record: ApprovalRecord) -> Self:
        """What is kept of a prediction and of the approval it was made under."""
        return cls(
            prediction_id=str(prediction.prediction_id),
            model_name=prediction.model_name,
            model_version=prediction.model_version,
            bundle_digest=record.bundle_digest,
            role=record.role,
            symbol=prediction.symbol,
            feature_timestamp=prediction.feature_timestamp,
            horizon_seconds=prediction.horizon_seconds,
            expected_return=prediction.expected_return,
            lower=prediction.lower,
            upper=prediction.upper,
            probability_up=prediction.probability_up,
            source=prediction.source,
            computed_at=prediction.timestamp,
            sequence=record.sequence,
        )

    def row(self) -> dict[str, object]:
        """The table's row: the fields and the day."""
        instant = self.feature_timestamp.astimezone(UTC)
        return {**self.model_dump(), SERVED_DAY: instant.date()}
