"""A candidate and a champion, invented answer by answer, on the same rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.deployment.champion import Comparing, Paired, against_champion, paired
from cryptoml_assets.deployment.evidence import Evidence
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.features.catalog import row_inputs
from cryptoml_assets.features.service import return_service_name
from cryptoml_assets.models.evaluation import baseline
from cryptoml_assets.models.rows import rows_from_frame
from cryptoml_serving.contract.manifest import FeatureSpec, Manifest
from tests import model_worlds

FRAME = model_worlds.training_set(signal=0.0, days=6)
NAMES = [feature.name for feature in row_inputs()]
ROWS = rows_from_frame(FRAME, NAMES)
TEST_START = np.datetime64("2024-01-04T00:00", "us")
TEST = ROWS.take(ROWS.events >= TEST_START)
MANIFEST = Manifest(
    model_name="m",
    family="linear",
    created_at=datetime(2024, 1, 7, tzinfo=UTC),
    horizon_seconds=3600,
    bar_seconds=300,
    features=tuple(FeatureSpec(name=each.name, view=each.table) for each in row_inputs()),
    feature_service=return_service_name(row_inputs()),
    training_start=datetime(2024, 1, 1, tzinfo=UTC),
    training_end=datetime(2024, 1, 3, 22, tzinfo=UTC),
    test_start=datetime(2024, 1, 4, tzinfo=UTC),
    test_end=datetime(2024, 1, 7, tzinfo=UTC),
    lake_versions={"training_set": 0},
    git_commit="abc",
    source="simulated",
    metrics={},
    libraries={},
    platforms=("cpu",),
)
HOW = Comparing("direction", margin=0.002, least_rows=1000, seed=7)


def answers(chance_if_up: float, rows: object = TEST) -> dict[str, np.ndarray]:
    """Answers that give every move that came so high a chance."""
    up = rows.labels > 0
    ones = np.ones(len(up), np.float32)
    return {
        "expected_return": 0 * ones,
        "lower": -0.01 * ones,
        "upper": 0.01 * ones,
        "probability_up": np.where(up, chance_if_up, 1 - chance_if_up).astype(np.float32),
    }


def candidate(chance_if_up: float) -> Evidence:
    return Evidence(MANIFEST, TEST, answers(chance_if_up), baseline(ROWS.labels), {})


@dataclass
class Champion:
    """What a loaded bundle is to the comparison."""

    chance_if_up: float
    manifest: Manifest = MANIFEST
    change: dict[str, float] = field(default_factory=dict)

    def predict(self, features: np.ndarray) -> dict[str, np.ndarray]:
        assert features.shape == (len(TEST), len(self.manifest.features))
        made = answers(self.chance_if_up)
        for name, value in self.change.items():
            made[name][3] = value
        return made

    def but(self, **other: object) -> Champion:
        return Champion(self.chance_if_up, self.manifest.model_copy(update=other))


def judged(candidate_chance: float, champion: Champion, **how: object) -> object:
    comparing = Comparing(**{**vars(HOW), **how})
    return against_champion(candidate(candidate_chance), "3", champion, FRAME, comparing)


def test_the_excess_is_the_difference_of_losses_as_a_share_of_the_base_rates() -> None:
    # Every move has the same chance in a model's eyes, so that its loss is the log of it.
    up, rate = TEST.labels > 0, baseline(ROWS.labels).rate
    base = -np.log(np.where(up, rate, 1 - rate)).mean()
    expected = (np.log(0.60) - np.log(0.58)) / base
    found = judged(0.58, Champion(0.60), margin=expected + 1e-6)
    assert found.figure == pytest.approx(expected, rel=1e-5)
    assert found.passed
    assert not judged(0.58, Champion(0.60), margin=expected - 1e-6).passed
    better = judged(0.60, Champion(0.58), margin=0.0)
    assert better.passed
    assert better.figure < 0
    assert "champion 3" in better.rule
    assert f"the same {len(TEST)} rows;" in better.rule


def test_the_same_model_is_no_worse_and_no_better() -> None:
    found = judged(0.6, Champion(0.6), margin=0.0)
    assert (found.passed, found.figure) == (True, 0.0)
    assert "being better 1" in found.rule


def test_the_claim_says_which_loss_counts() -> None:
    """Both expect the same return in the same interval: only their chances differ."""
    assert not judged(0.55, Champion(0.60)).passed
    assert judged(0.55, Champion(0.60), claim="distribution").figure == 0.0


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        (Champion(0.9).but(feature_service="cryptoml_return_0000"), "other formulas"),
        (
            Champion(0.9).but(features=(FeatureSpec(name="moon_phase", view="price_features"),)),
            "moon_phase are computed no more",
        ),
    ],
)
def test_a_champion_that_cannot_answer_these_rows_any_more_gives_way_and_says_why(
    champion: Champion, words: str
) -> None:
    found = judged(0.5, champion)
    assert found.passed
    assert words in found.rule


def test_a_champion_of_another_horizon_is_no_reason_to_pass() -> None:
    with pytest.raises(ApprovalError, match="7200 s ahead, the candidate 3600 s"):
        judged(0.9, Champion(0.5).but(horizon_seconds=7200))


def test_a_champion_of_a_column_that_the_rows_lost_gives_way() -> None:
    found = against_champion(candidate(0.5), "3", Champion(0.9), FRAME.drop(NAMES[0]), HOW)
    assert found.passed
    assert f"{NAMES[0]} are computed no more" in found.rule


@pytest.mark.parametrize("name", ["probability_up", "upper", "lower", "expected_return"])
def test_a_champion_that_answers_no_number_is_no_reason_to_pass(name: str) -> None:
    with pytest.raises(ApprovalError, match=f"{name} are no numbers"):
        judged(0.9, Champion(0.5, change={name: np.nan}))


def test_other_rows_are_no_comparison() -> None:
    moved = FRAME.with_columns(label=pl.col("label") + 1e-9)
    with pytest.raises(ApprovalError, match="rows of other labels"):
        against_champion(candidate(0.6), "3", Champion(0.5), moved, HOW)


def measured(trained_until: datetime, least_rows: int) -> Paired:
    champion = Champion(0.6).but(training_end=trained_until)
    how = Comparing("direction", 0.002, least_rows, 7)
    return paired(candidate(0.6), champion, FRAME, how)


def test_only_rows_that_the_champion_has_not_learnt_from_count_where_they_are_enough() -> None:
    into_the_test = datetime(2024, 1, 5, tzinfo=UTC)
    first = np.datetime64(into_the_test.replace(tzinfo=None)) + np.timedelta64(1, "h")
    late = int((TEST.events >= first).sum())
    assert measured(MANIFEST.training_end, 1) == Paired(0.0, 1.0, len(TEST), seen=False)
    assert measured(into_the_test, late) == Paired(0.0, 1.0, late, seen=False)
    assert measured(into_the_test, late + 1) == Paired(0.0, 1.0, len(TEST), seen=True)
    assert measured(into_the_test + timedelta(days=9), 1000).seen


def test_what_the_champion_has_learnt_from_is_told() -> None:
    champion = Champion(0.6).but(training_end=datetime(2024, 1, 7, tzinfo=UTC))
    assert "the champion has learnt from some" in judged(0.6, champion).rule
