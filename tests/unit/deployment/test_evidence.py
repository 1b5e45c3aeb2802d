from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.deployment.evidence import largest_difference
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.models.rows import answers_frame, rows_from_frame
from cryptoml_serving.contract.bundle import OUTPUTS
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
