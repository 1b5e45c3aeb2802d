"""The gate's p-values of forecasters who know nothing are what they say: uniform."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from cryptoml_assets.models.significance import bootstrap_p_value, overlap_block, regime_block
from tests.honesty.power import LEVELS, exact_interval

HORIZON = np.timedelta64(1, "h")
BAR = np.timedelta64(5, "m")
BARS_A_DAY, STEPS = 288, 12
TRIALS, DRAWS = 600, 300
#: How long what a forecaster leans to lasts.
Lean = Literal["an hour", "days", "by the clock"]
MEMORY = {"an hour": 0.9, "days": 0.999}
START = np.datetime64("2024-01-01T00:00", "us")


def lean(kind: Lean, rng: np.random.Generator, count: int) -> np.ndarray:
    """What a forecaster who knows nothing leans to, bar by bar."""
    if kind == "by the clock":
        return np.sin(2 * np.pi * (np.arange(count) / BARS_A_DAY + rng.random()))
    memory = MEMORY[kind]
    noise = rng.normal(size=count) * np.sqrt(1 - memory**2)
    noise[0] /= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], noise)


def gains(kind: Lean, seed: int, days: int) -> np.ndarray:
    """What a lean gains on the direction of overlapping labels, as `evaluation` reckons it."""
    rng = np.random.default_rng([seed, days])
    count = days * BARS_A_DAY
    up = np.convolve(rng.standard_t(5, count + STEPS - 1), np.ones(STEPS), "valid") > 0
    leaning = lean(kind, rng, count)
    return (leaning - leaning.mean()) * (up - up.mean())


@pytest.mark.parametrize(
    ("kind", "block", "days"),
    [
        *[(kind, overlap_block(HORIZON), days) for kind in get_args(Lean) for days in (3, 12)],
        *[("an hour", regime_block(HORIZON), days) for days in (3, 12)],
        ("days", regime_block(HORIZON), 12),
    ],
    ids=str,
)
def test_a_guess_passes_no_more_often_than_its_p_value_says(
    kind: Lean, block: np.timedelta64, days: int
) -> None:
    """Power: of 600 guesses more than 48 pass once in a thousand times where 5 % truly would.

    A true rate of 10 % would be noticed 94 times in 100; 28 are the most where 2.5 % would, and a
    true rate of 5 % would be noticed 60 times in 100. A half of all have a p-value of a half. A
    lean that lasts for days truly passes 6 times in 100 at 0.05, see `overlap_block`.
    """
    events = START + np.arange(days * BARS_A_DAY) * BAR
    values = np.array(
        [
            bootstrap_p_value(events, gains(kind, seed, days), block, seed, draws=DRAWS)
            for seed in range(TRIALS)
        ]
    )
    for level in LEVELS.values():
        small = int((values <= level).sum())
        low, high = exact_interval(small, TRIALS)
        told = f"{small} of {TRIALS} at most {level}: a rate of {low:.3f} to {high:.3f}"
        assert small <= binom.ppf(0.999, TRIALS, level), told
    half = int((values <= 0.5).sum())
    assert binom.ppf(0.0005, TRIALS, 0.5) <= half <= binom.ppf(0.9995, TRIALS, 0.5), half
