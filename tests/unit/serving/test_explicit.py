"""What the routes for callers' own rows have in common, and how little they repeat of it."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cryptoml_serving.api import explicit
from cryptoml_serving.api.predict import _parse
from cryptoml_serving.api.problems import ProblemError, invalid_request
from cryptoml_serving.api.service import Service
from cryptoml_serving.runtime.batcher import Batch, Batcher
from cryptoml_serving.runtime.errors import (
    DeadlineError,
    ExplicitError,
    NotServedError,
    OverloadedError,
)
from cryptoml_serving.runtime.state import State
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics

GOOD = {"expected_return": -0.1, "lower": -1.0, "upper": 1e-30, "probability_up": 0.3}


def service(*versions: str, champion: str | None = None) -> Service:
    """A service with these versions loaded, that looks for others every nine seconds."""
    settings = ServingSettings(serving_refresh=timedelta(seconds=9))
    state, metrics = State(), Metrics("m")
    models: dict[str, Any] = {version: SimpleNamespace(version=version) for version in versions}
    state.models = MappingProxyType(models)
    state.champion = models.get(champion or "")
    unused: Any = None
    return Service(
        settings=settings,
        metrics=metrics,
        state=state,
        look=lambda: None,
        guard=unused,
        batcher=Batcher(state, settings, metrics),
        access_log=unused,
    )


def test_the_model_asked_for() -> None:
    both = service("3", "5", champion="3")
    assert explicit.chosen_model(both, None) is both.state.champion
    assert explicit.chosen_model(both, "5") is both.state.models["5"]


@pytest.mark.parametrize(
    ("loaded", "version", "status", "told"),
    [
        ((), None, 503, "being loaded"),
        # Which versions there will be is not known yet.
        ((), "3", 503, "being loaded"),
        (("3",), "4", 404, "'4' is not served; served: 3"),
        # A challenger alone.
        (("3",), None, 503, "being loaded"),
    ],
)
def test_why_there_is_no_model(
    loaded: tuple[str, ...], version: str | None, status: int, told: str
) -> None:
    for counted in (True, False):
        with pytest.raises(ProblemError) as refused:
            explicit.chosen_model(service(*loaded), version, counted=counted)
        error = refused.value
        assert error.problem.status == status
        assert told in error.detail
        assert error.headers == ({"Retry-After": "9"} if status == 503 else {})
        assert error.counted == counted


@pytest.mark.parametrize(
    ("raised", "slug", "retry"),
    [
        (OverloadedError("full"), "overloaded", str(OverloadedError.retry_after)),
        (DeadlineError("late"), "deadline", "9"),
        (NotServedError("gone"), "not-ready", "9"),
    ],
)
def test_why_rows_get_no_answer(raised: ExplicitError, slug: str, retry: str) -> None:
    error = explicit.refused(service(), raised)
    assert (error.problem.slug, error.problem.status, error.detail) == (slug, 503, str(raised))
    assert error.headers == {"Retry-After": retry}


def found(**changes: float) -> explicit.Figures:
    """Figures of three rows, the second of them changed."""
    changed = {**GOOD, **changes}
    columns = {name: [value, changed[name], value] for name, value in GOOD.items()}
    arrays = {name: np.array(each, np.float32) for name, each in columns.items()}
    model: Any = None
    return explicit.figures(Batch(model, arrays))


@pytest.mark.parametrize("changed", [{}, {"probability_up": 0.0}, {"probability_up": 1.0}])
def test_what_is_a_prediction(changed: dict[str, float]) -> None:
    assert explicit.no_prediction(found(**changed)) is None


@pytest.mark.parametrize(
    "changed",
    [
        *({name: value} for name in GOOD for value in (np.nan, np.inf, -np.inf)),
        {"probability_up": 1.01},
        {"probability_up": -0.01},
    ],
)
def test_what_is_no_prediction(changed: dict[str, float]) -> None:
    assert explicit.no_prediction(found(**changed)) == 1


def test_little_is_repeated_of_what_was_sent() -> None:
    error = invalid_request([("k" * 5000, "w" * 5000), ("body", "short")] * 40)
    (first, second, *_) = told = error.members["errors"]
    assert len(told) == 8
    assert {len(text) for text in first.values()} == {200}
    assert second == {"location": "body", "reason": "short"}
    assert len(error.detail) < 8 * 410
    with pytest.raises(ProblemError) as refused:
        _parse(b'{"%s": 1}' % (b"k" * 60_000))
    assert len(refused.value.detail) < 600
