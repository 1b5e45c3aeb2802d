from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.models import trees
from cryptoml_assets.models.rows import Rows, rows_from_frame
from cryptoml_assets.models.splits import Split
from cryptoml_assets.models.trees import benchmarks, tree_answers
from cryptoml_assets.models.walkforward import walk_forward
from cryptoml_serving.contract.manifest import OUTPUTS
from tests import model_worlds

ROWS = rows_from_frame(model_worlds.training_set(signal=2.0, days=5, seed=3), model_features())
FOLD: Split = walk_forward(
    ROWS.events, ROWS.label_times, folds=2, test_share=0.25, embargo=timedelta(hours=1)
)[0]
NAMES = pytest.mark.parametrize("name", benchmarks())


@cache
def answered(name: str) -> dict[str, np.ndarray]:
    return tree_answers(name, ROWS, FOLD, seed=1)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all((one[name] == other[name]).all() for name in OUTPUTS)


def test_both_libraries_are_benchmarks_where_they_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert benchmarks() == ("lightgbm", "xgboost")
    monkeypatch.setattr(trees, "find_spec", lambda name: None if name == "xgboost" else object())
    assert benchmarks() == ("lightgbm",)
    with pytest.raises(ValueError, match="benchmark 'xgboost': installed is lightgbm"):
        tree_answers("xgboost", ROWS, FOLD, seed=1)


@NAMES
def test_a_planted_signal_is_found_and_said_with_the_outputs_of_a_bundle(name: str) -> None:
    answers = answered(name)
    test = ROWS.take(FOLD.test)
    assert tuple(answers) == OUTPUTS
    assert all(values.dtype == np.float32 for values in answers.values())
    assert np.isfinite(list(answers.values())).all()
    assert (answers["lower"] < answers["expected_return"]).all()
    assert (answers["expected_return"] < answers["upper"]).all()
    assert np.corrcoef(answers["expected_return"], test.labels)[0, 1] > 0.2
    up = answers["probability_up"]
    assert up[test.labels > 0].mean() > up[test.labels < 0].mean() + 0.02
    inside = (test.labels >= answers["lower"]) & (test.labels <= answers["upper"])
    assert inside.mean() == pytest.approx(0.9, abs=0.12)


@NAMES
def test_the_same_seed_answers_the_same_and_another_does_not(name: str) -> None:
    assert same(answered(name), tree_answers(name, ROWS, FOLD, seed=1))
    assert not same(answered(name), tree_answers(name, ROWS, FOLD, seed=2))


@NAMES
def test_nothing_outside_the_fold_changes_an_answer(name: str) -> None:
    """Neither labels from the test part on, nor features after it."""
    later = ~(FOLD.training | FOLD.test)
    labels = np.where(FOLD.training, ROWS.labels, -9.0)
    features = np.where(later[:, None], np.float32(1e6), ROWS.features)
    wrecked = replace(ROWS, labels=labels, features=features)
    assert same(answered(name), tree_answers(name, wrecked, FOLD, seed=1))
    moved = replace(ROWS, labels=np.where(FOLD.fit, -ROWS.labels, ROWS.labels))
    assert not same(answered(name), tree_answers(name, moved, FOLD, seed=1))


@NAMES
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_count_as_missing(name: str, value: float) -> None:
    missing = ROWS.features.copy()
    missing[:, 0], missing[::7, 3] = np.nan, np.nan
    wrecked = missing.copy()
    wrecked[:, 0], wrecked[::7, 3] = value, -value
    one, other = (
        tree_answers(name, replace(ROWS, features=features), FOLD, seed=1)
        for features in (missing, wrecked)
    )
    assert same(one, other)
    assert np.isfinite(list(one.values())).all()


@NAMES
def test_rows_without_any_feature_answer_the_base_rate(name: str) -> None:
    blank = replace(ROWS, features=np.full_like(ROWS.features, np.nan))
    answers = tree_answers(name, blank, FOLD, seed=1)
    labels = ROWS.labels[FOLD.training]
    assert answers["probability_up"] == pytest.approx((labels > 0).mean(), abs=1e-6)
    assert answers["expected_return"] == pytest.approx(labels.mean(), abs=1e-6)


@NAMES
def test_labels_of_one_sign_are_refused(name: str) -> None:
    rising: Rows = replace(ROWS, labels=np.abs(ROWS.labels) + 1e-6)
    with pytest.raises(TrainingDataError, match="no direction to learn"):
        tree_answers(name, rising, FOLD, seed=1)
