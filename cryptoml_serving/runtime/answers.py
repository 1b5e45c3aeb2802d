"""Answers to callers, serialised once for every snapshot instead of once for every request.

All of an answer is known when the snapshot is made, but for the age of its features: that comes
last in the JSON object, and is put in when somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptoml_serving.contract.prediction import Prediction

_AGE = {"feature_age_seconds"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction, ready to be sent.

    Attributes:
        prediction: what is answered; its age is that of the snapshot's making.
        feature_second: its feature timestamp as a POSIX second.
        head: its JSON object up to the age.
    """

    prediction: Prediction
    feature_second: float
    head: bytes

    @classmethod
    def of(cls, prediction: Prediction) -> Answer:
        """Serialise all but the age."""
        text = prediction.model_dump_json(by_alias=True, exclude=_AGE)
        return cls(
            prediction,
            prediction.feature_timestamp.timestamp(),
            text.removesuffix("}").encode() + b',"feature_age_seconds":',
        )

    def age(self, now: float) -> float:
        """Seconds that the features are old at a POSIX second.

        Not below zero: after the clock was put back a snapshot is from the time to come, until the
        next one is made.
        """
        return max(0.0, now - self.feature_second)

    def body(self, age: float) -> bytes:
        """The whole JSON object, with an age in seconds, told to the microsecond."""
        return b"%b%.6f}" % (self.head, age)


def answers_of(predictions: Mapping[str, Prediction]) -> dict[str, Answer]:
    """By symbol."""
    return {symbol: Answer.of(prediction) for symbol, prediction in predictions.items()}
