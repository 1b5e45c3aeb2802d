from __future__ import annotations

from itertools import count

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.deployment.criteria import deflated
from cryptoml_assets.deployment.evidence import draws_for, largest_difference, net_result
from cryptoml_assets.deployment.latency import median_latency
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.models.evaluation import Answered, baseline
from cryptoml_assets.models.rows import answers_frame, rows_from_frame
from cryptoml_assets.models.strategy import Costs, trade
from cryptoml_serving.contract.manifest import OUTPUTS
from tests import model_worlds

ROWS = rows_from_frame(model_worlds.training_set(signal=0.0, days=1), model_features())
ANSWERS = {name: np.full(len(ROWS), 0.25, np.float32) for name in OUTPUTS}
LOGGED = answers_frame(ROWS, ANSWERS)


def test_the_same_answers_in_another_order_do_not_differ() -> None:
    assert largest_difference(ROWS, ANSWERS, LOGGED.reverse()) == 0.0


@pytest.mark.parametrize("name", OUTPUTS)
def test_one_different_answer_counts_whatever_its_output(name: str) -> None:
    moved = {**ANSWERS, name: ANSWERS[name].copy()}
    moved[name][7] += np.float32(0.5)
    assert largest_difference(ROWS, moved, LOGGED) == 0.5


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_answer_that_is_no_number_is_no_small_difference(name: str) -> None:
    broken = {**ANSWERS, name: ANSWERS[name].copy()}
    broken[name][7] = np.nan
    assert np.isnan(largest_difference(ROWS, broken, LOGGED))
    assert np.isnan(largest_difference(ROWS, broken, answers_frame(ROWS, broken)))


@pytest.mark.parametrize(
    "logged", [LOGGED.head(-1), LOGGED.with_columns(pl.col("symbol").replace("S0/USDT", "X/USDT"))]
)
def test_other_rows_are_no_evidence(logged: pl.DataFrame) -> None:
    with pytest.raises(ApprovalError, match="rows out of sample"):
        largest_difference(ROWS, ANSWERS, logged)


HORIZON = np.timedelta64(1, "h")
SOME_DAYS = rows_from_frame(model_worlds.training_set(signal=0.0, days=4), model_features())


def part(expected: np.ndarray) -> Answered:
    answers = {name: expected.astype(np.float32) for name in OUTPUTS}
    return Answered(SOME_DAYS, answers, baseline(SOME_DAYS.labels))


def test_the_net_result_is_what_all_trades_brought_per_amount_traded() -> None:
    costs = Costs(fee_bps=1.0, slippage_bps=0.5)
    seen = part(SOME_DAYS.labels)
    found = net_result([seen], horizon=HORIZON, costs=costs)
    track = trade([seen], horizon=HORIZON, costs=costs)
    assert found["net_bps"] > 0
    assert found["net_bps"] == pytest.approx(1e4 * track.net.sum() / track.turnover.sum())
    # By hand: independent days, of which each day's result varies as much as the others'.
    error = track.net.std(ddof=1) * np.sqrt(len(track.net)) * 1e4 / track.turnover.sum()
    assert found["net_error_bps"] == pytest.approx(error)
    wrong = net_result([part(-SOME_DAYS.labels)], horizon=HORIZON, costs=costs)
    assert wrong["net_bps"] < -found["net_bps"] < 0
    dearer = net_result([seen], horizon=HORIZON, costs=Costs(fee_bps=2.0, slippage_bps=0.5))
    assert dearer["net_bps"] < found["net_bps"]


def test_who_never_trades_earns_and_loses_nothing() -> None:
    still = part(np.zeros(len(SOME_DAYS)))
    assert net_result([still], horizon=HORIZON, costs=Costs(10.0, 2.0)) == {
        "net_bps": 0.0,
        "net_error_bps": 0.0,
    }


@pytest.mark.parametrize("trials", [1, 4, 8, 40, 240])
def test_the_smallest_p_value_passes_after_so_many_trials(trials: int) -> None:
    draws = draws_for(trials, 0.05)
    assert draws >= 2000
    assert deflated(1 / (draws + 1), trials) < 0.05 / 5


class Slow:
    """Answers after as many seconds as it is told to, and counts."""

    def __init__(self, seconds: list[float]) -> None:
        self.now = 0.0
        self.seconds = iter(seconds)
        self.warmed: list[int] = []
        self.shapes: set[tuple[int, ...]] = set()

    def warm(self, sizes: tuple[int, ...]) -> None:
        self.warmed += sizes

    def predict(self, features: np.ndarray) -> None:
        self.now += next(self.seconds)
        self.shapes.add(features.shape)


def test_latency_is_the_median_of_batches_of_all_symbols_once_warm() -> None:
    slow = Slow([100.0] * 3 + [0.5, 9.0, 0.1, 0.2, 0.3])
    median = median_latency(slow, np.ones((2, 4), np.float32), 5, repeats=5, clock=lambda: slow.now)
    assert median == pytest.approx(0.3)
    assert slow.warmed == [5]
    assert slow.shapes == {(5, 4)}
    ticks = count()
    with pytest.raises(ValueError, match="at least 1"):
        median_latency(slow, np.ones((0, 4), np.float32), 5, clock=lambda: float(next(ticks)))
