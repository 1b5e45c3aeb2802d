"""What a search tries, and that it keeps the best of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoml_assets.models.families.family import Inputs, network
from cryptoml_assets.models.layout import Runner
from cryptoml_assets.models.population import Program, fold_data
from cryptoml_assets.models.search import RANGES, draw, search
from tests.model_worlds import CONFIG

GRAPH, PARAMS = network("mlp", Inputs(3), (4,), 0)


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(count, 3)).astype(np.float32)
    return inputs, (0.8 * inputs[:, 0] + random.standard_t(4, count)).astype(np.float32)


RUNNER = Runner(
    Program(GRAPH, 8, 64),
    fold_data([rows(640, 0)], [rows(200, 1)]),
    vectorised=False,
    log=lambda _: None,
)


def test_trials_lie_in_their_ranges_and_begin_with_the_configured_one() -> None:
    config = replace(CONFIG, search_trials=200)
    trials = draw(config)
    assert trials == draw(config)
    assert trials[0] == (CONFIG.learning_rate, CONFIG.weight_decay)
    for values, (low, high) in zip(zip(*trials[1:], strict=True), RANGES.values(), strict=True):
        assert low <= min(values) < max(values) <= high
        # Even in the logarithm: half of them below the geometric mean.
        assert np.mean(np.array(values) < np.sqrt(low * high)) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("method", ["halving", "random"])
def test_a_search_leaves_a_hopeless_configuration(method: str) -> None:
    config = replace(
        CONFIG, learning_rate=1e-9, search_trials=5, search_method=method, epochs=8, batch_size=64
    )
    lines: list[str] = []
    chosen = search(RUNNER, PARAMS, config, lines.append)
    assert (chosen.learning_rate, chosen.weight_decay) in draw(config)[1:]
    assert chosen.learning_rate > 3e-4
    assert chosen.trials == 5
    counted = [int(line.split()[1]) for line in lines]
    assert counted == ([5, 3, 2] if method == "halving" else [5])


def test_a_trial_that_diverges_is_never_chosen() -> None:
    config = replace(CONFIG, learning_rate=1e38, search_trials=3, epochs=8, batch_size=64)
    assert search(RUNNER, PARAMS, config, lambda _: None).learning_rate < 1.0


def test_one_trial_is_the_configured_one_and_trains_nothing() -> None:
    chosen = search(RUNNER, None, replace(CONFIG, search_trials=1), lambda _: None)
    assert (chosen.learning_rate, chosen.trials) == (CONFIG.learning_rate, 1)
