"""What the service answers from: one immutable set of predictions of one model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cryptoml_serving.contract.prediction import Prediction, prediction_id
from cryptoml_serving.runtime.answers import Answer, answers_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from cryptoml_serving.runtime.features import FeatureRows
    from cryptoml_serving.runtime.registry import ApprovedModel


@dataclass(frozen=True)
class Snapshot:
    """Predictions for every served symbol that has features, all of one model and one reading.

    Attributes:
        model: what predicted.
        predictions: by symbol; ages as of ``computed_at``.
        answers: the same, ready to be sent.
        missing: symbols without a prediction, and why, in words for callers.
        computed_at: when the features were read.
        invalid: symbols among the missing that have features, and a model that answers what is no
            prediction.
        predict_seconds: time the model took for all symbols.
    """

    model: ApprovedModel
    predictions: Mapping[str, Prediction]
    answers: Mapping[str, Answer]
    missing: Mapping[str, str]
    computed_at: datetime
    invalid: int
    predict_seconds: float


def build_snapshot(model: ApprovedModel, rows: FeatureRows, now: datetime) -> Snapshot:
    """Predict every symbol of one reading in one batch.

    A symbol without price features, or for which the model answers what is no prediction, is listed
    as missing: the others are served all the same.
    """
    began = time.perf_counter()
    answers = model.bundle.predict(rows.values)
    seconds = time.perf_counter() - began
    predictions: dict[str, Prediction] = {}
    missing: dict[str, str] = {}
    invalid = 0
    for row, (symbol, instant) in enumerate(zip(rows.symbols, rows.timestamps, strict=True)):
        if instant is None:
            missing[symbol] = "the feature store holds no current price features of it"
            continue
        figures = {name: float(column[row]) for name, column in answers.items()}
        name = prediction_id(model.bundle.digest, symbol, instant, rows.values[row])
        try:
            predictions[symbol] = _prediction(model, symbol, instant, figures, name=name, now=now)
        except ValidationError:
            invalid += 1
            missing[symbol] = "the model's answer for it is no prediction"
    return Snapshot(
        model=model,
        predictions=MappingProxyType(predictions),
        answers=MappingProxyType(answers_of(predictions)),
        missing=MappingProxyType(missing),
        computed_at=now,
        invalid=invalid,
        predict_seconds=seconds,
    )


def _prediction(
    model: ApprovedModel,
    symbol: str,
    instant: datetime,
    figures: dict[str, float],
    *,
    name: UUID,
    now: datetime,
) -> Prediction:
    manifest = model.bundle.manifest
    return Prediction(
        symbol=symbol,
        expected_return=figures["expected_return"],
        lower=figures["lower"],
        upper=figures["upper"],
        probability_up=figures["probability_up"],
        horizon_seconds=manifest.horizon_seconds,
        model_name=manifest.model_name,
        model_version=model.record.model_version,
        role=model.placement.role,
        prediction_id=name,
        source=manifest.source,
        feature_timestamp=instant,
        feature_age_seconds=(now - instant).total_seconds(),
        timestamp=now,
    )
