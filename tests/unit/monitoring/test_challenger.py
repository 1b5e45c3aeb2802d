"""Promotion and abort of challengers: sure whatever the number of looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from cryptoml_assets.models.significance import bootstrap_p_value, overlap_block
from cryptoml_assets.monitoring.challenger import (
    Limits,
    Service,
    chance_of_at_least,
    judge,
    look,
    paired,
)
from cryptoml_assets.monitoring.challenger_assets import counted
from cryptoml_assets.monitoring.scrape import figures, parse
from cryptoml_serving.contract.deployment import Deployment, Placement
from cryptoml_serving.runtime.challengers import Challengers
from cryptoml_serving.runtime.errors import (
    FeatureStoreError,
    ModelRefusedError,
    RegistryUnavailableError,
)
from cryptoml_serving.runtime.features import FeatureRows
from cryptoml_serving.runtime.registry import ApprovedModel
from cryptoml_serving.runtime.roster import Roster
from cryptoml_serving.runtime.state import State
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics

START = datetime(2024, 3, 1, tzinfo=UTC)
BAR, HORIZON_BARS, SYMBOLS = timedelta(minutes=5), 3, 2
LIMITS = Limits(150, 0.1, error_rate=0.01, latency=timedelta(milliseconds=100))
FINE = Service(1000, 0, 0.01, 500)


def pairs(seed: int, instants: int = 600, gain: float = 0.0) -> pl.DataFrame:
    """Gains over the champion that overlap, of symbols that move together."""
    rng = np.random.default_rng(seed)
    shocks = rng.normal(size=(instants + HORIZON_BARS - 1, SYMBOLS + 1))
    both = shocks[:, :1] + shocks[:, 1:]
    kernel = np.ones(HORIZON_BARS) / HORIZON_BARS
    gains = np.stack([np.convolve(column, kernel, "valid") for column in both.T], axis=1)
    times = [START + BAR * place for place in range(instants)]
    return pl.DataFrame(
        {
            "symbol": [f"S{place}" for place in range(SYMBOLS)] * instants,
            "feature_timestamp": np.repeat(times, SYMBOLS).tolist(),
            "horizon_seconds": int((BAR * HORIZON_BARS).total_seconds()),
            "gain": gains.ravel() + gain,
        },
        schema_overrides={"feature_timestamp": pl.Datetime("us", "UTC")},
    )


def verdict(rows: pl.DataFrame, challenger: Service | None = FINE, limits: Limits = LIMITS):
    return judge(rows, "direction", champion=FINE, challenger=challenger, limits=limits, seed=1)


def test_looking_again_and_again_promotes_no_luck() -> None:
    """An equal challenger, reviewed at every new look of 100: at most 1 in 10 is let through.

    A p-value of 0.1 at every tenth instant, which is what the looks stand for, lets many through.
    """
    runs = 100
    promoted, withdrawn, naive = 0, 0, 0
    block = overlap_block(np.timedelta64(BAR * HORIZON_BARS))
    for seed in range(runs):
        rows = pairs(seed, instants=400)
        found = look(rows, "direction", LIMITS, seed=1).verdict
        promoted += found == "promote"
        withdrawn += found == "abort"
        events = rows["feature_timestamp"].dt.replace_time_zone(None).to_numpy()
        gains = rows["gain"].to_numpy()
        naive += any(
            bootstrap_p_value(events[:size], gains[:size], block, 1, draws=300) <= 0.1
            for size in range(LIMITS.minimum, len(gains), 80)
        )
    assert promoted <= 0.1 * runs
    assert withdrawn <= 0.1 * runs
    assert naive > 0.2 * runs


def test_a_review_between_two_looks_sees_what_the_last_look_saw() -> None:
    """However often it is reviewed, a challenger meets the same looks and the same end."""
    rows = pairs(5, gain=0.35)
    seen = [look(rows[:size], "direction", LIMITS, seed=1) for size in range(100, rows.height, 77)]
    final = look(rows, "direction", LIMITS, seed=1)
    assert final.verdict == "promote"
    assert {each for each in seen if each.verdict == "promote"} == {final}
    assert len({each.number for each in seen if each.pairs}) == len(set(seen)) - 1
    spent = [LIMITS.significance / (number * (number + 1)) for number in range(1, 1000)]
    assert sum(spent) <= LIMITS.significance
    assert final.spent == spent[final.number - 1]


def test_a_better_challenger_is_promoted_and_a_worse_one_withdrawn() -> None:
    better = [verdict(pairs(seed, gain=0.5)) for seed in range(20)]
    assert sum(each.verdict == "promote" for each in better) >= 18
    first = next(each for each in better if each.verdict == "promote")
    assert all(criterion.passed for criterion in first.criteria)
    assert [criterion.name for criterion in first.criteria] == [
        "challenger_outcomes",
        "challenger_better",
        "challenger_errors",
        "challenger_latency",
    ]
    worse = [verdict(pairs(seed, gain=-0.5)) for seed in range(20)]
    assert sum(each.verdict == "abort" for each in worse) >= 18
    assert "predicts worse" in worse[0].reason


def test_what_was_better_once_is_not_promoted_when_it_no_longer_is() -> None:
    good = pairs(5, gain=0.5)
    assert verdict(good).verdict == "promote"
    late = pl.int_range(pl.len()) >= 800
    turned = good.with_columns(pl.when(late).then(-5.0).otherwise("gain").alias("gain"))
    assert verdict(turned).verdict == "keep"


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_losses_that_are_no_numbers_neither_promote_nor_withdraw(wrong: float) -> None:
    first = pl.when(pl.int_range(pl.len()) == 0)
    rows = pairs(5, gain=0.5)
    found = verdict(rows.with_columns(first.then(wrong).otherwise("gain").alias("gain")))
    assert found.verdict == "keep"
    assert {each.name: each.figure for each in found.criteria}["challenger_better"] == 1.0


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (None, "keep"),
        (Service(1000, 40, 0.01, 500), "abort"),
        (Service(1000, 12, 0.01, 500), "promote"),
        (Service(1000, 0, 0.2, 500), "abort"),
        (Service(1, 1, None, 0), "keep"),
        (Service(0, 0, None, 0), "keep"),
        # The first of a few times is slow, and their percentile with it.
        (Service(3, 0, 0.15, 1), "keep"),
        (Service(297, 0, 0.15, 99), "keep"),
        (Service(300, 0, 0.15, 100), "abort"),
        (Service(297, 0, 0.01, 99), "keep"),
        (Service(300, 0, 0.01, 100), "promote"),
    ],
)
def test_errors_and_latency_decide_beside_quality(service: Service | None, expected: str) -> None:
    """Unknown figures promote nobody; one error of one prediction proves nothing, 40 do."""
    better = pairs(5, gain=0.5)
    assert verdict(better, service).verdict == expected
    # Before the first look a faulty challenger goes as well, and nothing else happens.
    early = verdict(better[:50], service)
    assert early.verdict == ("abort" if expected == "abort" else "keep")


@pytest.mark.parametrize(
    ("predictions", "errors", "expected"),
    [
        # One broken reading of five symbols soon after the start, and of four workers at once.
        (25, 5, "keep"),
        (2000, 20, "keep"),
        # Ten broken readings of a thousand are what is allowed; as many errors more are luck.
        (5000, 50, "promote"),
        (5000, 75, "promote"),
        (5000, 150, "abort"),
        (4995, 4995, "keep"),
    ],
)
def test_predictions_of_one_reading_fail_as_one(
    predictions: int, errors: int, expected: str
) -> None:
    service = Service(predictions, errors, 0.01, 500 if expected == "promote" else 0, at_once=5)
    assert verdict(pairs(5, gain=0.5), service).verdict == expected


def test_a_late_look_can_still_decide() -> None:
    """What the tenth look may spend is less than a bootstrap of 2,000 draws can tell."""
    late = replace(LIMITS, minimum=10, significance=0.05)
    rows = pairs(5, instants=400)
    turn = pl.when(pl.int_range(pl.len()) < 250).then("gain").otherwise(pl.col("gain") + 2.0)
    found = look(rows.with_columns(turn.alias("gain")), "direction", late, seed=1)
    assert (found.verdict, found.number >= 10) == ("promote", True)
    assert found.p_value <= found.spent < 1 / 2001


def test_slowness_that_the_champion_shares_withdraws_nobody() -> None:
    burdened = Service(1000, 0, 0.2, 500)
    few = Service(3, 0, 9.0, 1)
    for champion, expected in ((burdened, "keep"), (few, "abort"), (None, "abort")):
        result = judge(
            pairs(5), "direction", champion=champion, challenger=burdened, limits=LIMITS, seed=1
        )
        assert result.verdict == expected


class World:
    """A registry with one challenger and a feature store, and what either raises."""

    def __init__(self) -> None:
        self.load_fails: Exception | None = None
        self.read_fails: Exception | None = None
        self.predict_fails: Exception | None = None
        self.manifest: Any = SimpleNamespace(
            model_name="m", horizon_seconds=3600, source="simulated"
        )
        self.digest = "a" * 64
        settings = ServingSettings(symbols=("BTC/USDT", "ETH/USDT"))  # type: ignore[call-arg]
        self.metrics = Metrics("m")
        state = State()
        self.roster = Roster(state)
        self.challengers = Challengers(
            settings=settings, loader=self, features=self, metrics=self.metrics,
            state=state, roster=self.roster, announce=lambda _: None, log=None,
        )  # type: ignore[arg-type]  # fmt: skip
        shadow = Placement(model_version="2", bundle_digest=self.digest, run_id="r", role="shadow")
        self.deployment = Deployment(
            model_name="m", sequence=0, head="a" * 64, champion=None, challengers=(shadow,)
        )

    def turn(self, times: int) -> None:
        for _ in range(times):
            self.roster.follow(self.deployment)
            self.challengers.follow(self.deployment, kept=False)
            self.challengers.turn()

    def load(self, placement: Placement, *, kept: bool) -> ApprovedModel:
        assert not kept
        if self.load_fails:
            raise self.load_fails
        record: Any = SimpleNamespace(
            model_name="m", model_version="2", bundle_digest=self.digest, decided_by="policy"
        )
        return ApprovedModel(placement, record, self)  # type: ignore[arg-type]

    def read(self, symbols: tuple[str, ...], _manifest: Any, now: datetime) -> FeatureRows:
        if self.read_fails:
            raise self.read_fails
        return FeatureRows(symbols, np.zeros((len(symbols), 1)), (now,) * len(symbols))

    def predict(self, features: np.ndarray) -> dict[str, np.ndarray]:
        if self.predict_fails:
            raise self.predict_fails
        names = ("expected_return", "lower", "upper", "probability_up")
        return dict.fromkeys(names, np.full(len(features), 0.5, np.float32))

    def judged(self) -> tuple[str, Service | None]:
        """The verdict on it by what the service tells, before the first look."""
        told = counted(figures({"": parse(self.metrics.exposition().decode())}), "2", "shadow", 2)
        return verdict(pairs(5)[:50], told).verdict, told


def test_an_outage_that_all_share_withdraws_no_challenger() -> None:
    """By the service's own metrics: an error each turn, and a prediction a symbol and turn."""
    world = World()
    world.load_fails = RegistryUnavailableError()
    world.turn(30)
    assert world.judged() == ("keep", None)
    world.load_fails = None
    world.turn(10)
    world.read_fails = FeatureStoreError()
    world.turn(30)
    known = world.judged()[1]
    assert known is not None
    assert (known.predictions, known.errors, known.timed) == (20, 0, 10)
    assert world.judged()[0] == "keep"
    # What it does not manage itself counts as much as what it does.
    world.read_fails, world.predict_fails = None, RuntimeError("broken")
    world.turn(10)
    assert world.judged()[0] == "keep"
    world.turn(990)
    outcome, known = world.judged()
    assert known is not None
    assert (known.predictions, known.errors) == (2020, 2000)
    assert outcome == "abort"


def test_a_challenger_whose_bundle_is_refused_is_withdrawn() -> None:
    world = World()
    world.load_fails = ModelRefusedError()
    world.turn(1000)
    assert world.judged() == ("abort", Service(2000, 2000, None, 0, at_once=2))


def test_only_what_both_predicted_is_compared() -> None:
    def outcomes(
        times: list[int], losses: list[float | None], horizon: int = 900, late: int = 0
    ) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "prediction_id": [f"{time} {late}" for time in times],
                "model_name": "test",
                "model_version": "1",
                "computed_at": [START + BAR * time + timedelta(seconds=late) for time in times],
                "symbol": "S0",
                "feature_timestamp": [START + BAR * time for time in times],
                "horizon_seconds": horizon,
                "log_loss": losses,
                "crps": [2.0] * len(times),
            },
            schema_overrides={
                "log_loss": pl.Float64,
                "feature_timestamp": pl.Datetime("us", "UTC"),
            },
        )

    champion = outcomes([0, 1, 2, 3], [0.7, 0.7, None, 0.8])
    both = paired(champion, outcomes([3, 1, 2, 9], [0.5, 0.8, 0.1, 0.1]), "direction")
    assert both["gain"].to_list() == pytest.approx([-0.1, 0.3])
    assert both["feature_timestamp"].is_sorted()
    assert paired(champion, champion, "distribution")["gain"].to_list() == [0.0] * 4
    assert paired(champion, outcomes([0], [0.1], horizon=60), "direction").is_empty()
    # Of answers to features that changed, each side's last counts, known or not.
    again = pl.concat(
        [outcomes([0, 1], [0.9, 0.6], late=9), champion, outcomes([0], [5.0], late=5)]
    )
    both = paired(again, outcomes([0, 1, 3], [0.1, 0.1, 0.1]), "direction")
    assert both["gain"].to_list() == pytest.approx([0.8, 0.5, 0.7])
    unknown = pl.concat([champion, outcomes([1], [None], late=9)])
    assert paired(champion, unknown, "direction").height == 2
    none = verdict(both.clear())
    assert (none.verdict, none.pairs, none.gain) == ("keep", 0, 0.0)


@pytest.mark.parametrize(("errors", "count", "rate"), [(1, 1, 0.01), (3, 40, 0.05), (12, 99, 0.2)])
def test_the_chance_of_errors_is_the_binomial_tail(errors: int, count: int, rate: float) -> None:
    expected = stats.binom.sf(errors - 1, count, rate)
    assert chance_of_at_least(errors, count, rate) == pytest.approx(expected)
    assert chance_of_at_least(0, count, rate) == 1.0
