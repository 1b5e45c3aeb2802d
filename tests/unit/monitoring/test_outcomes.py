"""What became of predictions: by hand, by the trainer's own code, and in whatever pieces."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.models.evaluation import Answered, Baseline, evaluate
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.strategy import Costs, trade
from cryptoml_assets.monitoring.outcomes import SCHEMA, Rules, outcomes
from cryptoml_assets.monitoring.outcomes_table import PREDICTION_OUTCOMES, bring_up_to_date
from cryptoml_assets.monitoring.performance import recent_outcomes
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.prediction import prediction_id
from cryptoml_serving.contract.served import SERVED_COLUMNS, SERVED_PREDICTIONS

MIDNIGHT = datetime(2024, 3, 2, tzinfo=UTC)
BAR, HORIZON = timedelta(minutes=30), timedelta(hours=1)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
RULES = Rules(Costs(10.0, 2.0), 1000.0, patience=timedelta(hours=1), horizon=HORIZON)
_TYPES = {
    "string": pl.String(),
    "long": pl.Int64(),
    "double": pl.Float64(),
    "timestamp": pl.Datetime("us", "UTC"),
    "date": pl.Date(),
}
SERVED = {name: _TYPES[kind] for name, kind in SERVED_COLUMNS.items()}
PRICES = {
    "symbol": pl.String(),
    "close_time": _TYPES["timestamp"],
    "close": pl.Float64(),
    "date": pl.Date(),
}


def bar(at: datetime, close: float, symbol: str = SYMBOLS[0]) -> dict:
    return {"symbol": symbol, "close_time": at, "close": close, "date": (at - BAR).date()}


def bars_of(rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=PRICES)


def prediction(
    at: datetime, expected: float = 0.01, symbol: str = SYMBOLS[0], **changes: object
) -> dict:
    row = {
        "prediction_id": str(prediction_id("d" * 64, symbol, at, [])),
        "model_name": "test",
        "model_version": "1",
        "bundle_digest": "d" * 64,
        "role": "champion",
        "symbol": symbol,
        "feature_timestamp": at,
        "horizon_seconds": int(HORIZON.total_seconds()),
        "expected_return": expected,
        "lower": expected - 0.02,
        "upper": expected + 0.02,
        "probability_up": 0.6,
        "source": "simulated",
        "computed_at": at + timedelta(seconds=3),
        "sequence": 0,
        "date": at.date(),
    }
    return row | changes


def served_of(rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SERVED)


def test_one_prediction_by_hand() -> None:
    bars = bars_of([bar(MIDNIGHT, 100.0), bar(MIDNIGHT + BAR, 7.0), bar(MIDNIGHT + HORIZON, 103.0)])
    made = outcomes(
        served_of([prediction(MIDNIGHT)]), bars, now=MIDNIGHT + HORIZON, rules=RULES
    ).row(0, named=True)
    label = math.log(1.03)
    assert made["outcome_at"] == MIDNIGHT + HORIZON
    assert made["realised_return"] == pytest.approx(label)
    assert (made["correct"], made["covered"], made["position"]) == (True, True, 1)
    assert made["log_loss"] == pytest.approx(-math.log(0.6), rel=1e-6)
    assert made["squared_error"] == pytest.approx((label - 0.01) ** 2, rel=1e-5)
    # 3 % of 1000 USD, less two times 12 basis points.
    assert made["pnl_usd"] == pytest.approx(30.0 - 2.4)


def test_a_position_that_is_taken_over_pays_once() -> None:
    """Long, long, short, nothing: in, nothing, twice over and out."""
    expected = (0.01, 0.01, -0.01, 0.0023)
    instants = [MIDNIGHT + HORIZON * place for place in range(5)]
    bars = bars_of([bar(at, 100.0) for at in instants])
    served = served_of([prediction(at, e) for at, e in zip(instants, expected, strict=False)])
    made = outcomes(served, bars, now=instants[-1], rules=RULES)
    assert made["position"].to_list() == [1, 1, -1, 0]
    assert made["pnl_usd"].to_list() == pytest.approx([-1.2, 0.0, -2.4, -1.2])
    # Another version's book is its own, whatever its role.
    other = served.with_columns(
        pl.when(pl.int_range(pl.len()) >= 2)
        .then(pl.lit("2"))
        .otherwise("model_version")
        .alias("model_version")
    )
    made = outcomes(other, bars, now=instants[-1], rules=RULES)
    assert made["pnl_usd"].to_list() == pytest.approx([-1.2, -1.2, -1.2, -1.2])


def test_the_figures_are_those_of_the_trainers_own_code() -> None:
    rng = np.random.default_rng(5)
    instants = [MIDNIGHT + BAR * place for place in range(100)]
    closes = np.exp(np.cumsum(rng.normal(size=(103, 2)) * 0.01, axis=0))
    bars = [
        bar(MIDNIGHT + BAR * place, closes[place, column], symbol)
        for place in range(103)
        for column, symbol in enumerate(SYMBOLS)
    ]
    served = []
    for at in instants:
        for symbol in SYMBOLS:
            mean, width = (float(np.float32(value)) for value in rng.normal(size=2) * 0.01)
            chance = float(np.float32(rng.uniform(0.2, 0.8)))
            interval = {"lower": mean - abs(width), "upper": mean + abs(width)}
            served.append(prediction(at, mean, symbol, probability_up=chance, **interval))
    made = outcomes(served_of(served), bars_of(bars), now=instants[-1] + 2 * HORIZON, rules=RULES)
    events = np.array([at.replace(tzinfo=None) for at in instants], "datetime64[us]").repeat(2)
    rows = Rows(
        np.tile(np.array(SYMBOLS), 100),
        events,
        events + np.timedelta64(HORIZON),
        np.zeros((200, 0), np.float32),
        made["realised_return"].to_numpy(),
    )
    frame = served_of(served)
    names = ("expected_return", "lower", "upper", "probability_up")
    answers = {name: frame[name].to_numpy().astype(np.float32) for name in names}
    part = Answered(rows, answers, Baseline(np.array([-1.0, 1.0]), 0.5, 0.0))
    cost, horizon = RULES.costs, np.timedelta64(HORIZON)
    figures = evaluate((part,), horizon=horizon, seed=0, costs=cost)
    for column, name in (
        ("correct", "accuracy"),
        ("covered", "coverage"),
        ("log_loss", "log_loss"),
        ("squared_error", "mse"),
        ("crps", "crps"),
    ):
        assert made[column].mean() == pytest.approx(figures[name]), name
    # A tranche is one over the two bars of a horizon, spread over two symbols.
    track = trade((part,), horizon=horizon, costs=cost)
    assert made["pnl_usd"].sum() / 1000.0 / 4 == pytest.approx(track.net.sum())


def test_a_missing_bar_is_waited_for_and_then_given_up() -> None:
    served = served_of([prediction(MIDNIGHT)])
    before = bars_of([bar(MIDNIGHT, 100.0)])
    due = MIDNIGHT + HORIZON
    assert outcomes(served, before, now=due + RULES.patience, rules=RULES).is_empty()
    late = due + RULES.patience + timedelta(seconds=1)
    given_up = outcomes(served, before, now=late, rules=RULES).row(0, named=True)
    assert given_up["realised_return"] is None
    assert given_up["pnl_usd"] is None
    assert given_up["correct"] is None
    # A price that is none tells nothing either, and a horizon that has not passed is not told.
    broken = bars_of([bar(MIDNIGHT, 0.0), bar(due, 100.0)])
    assert outcomes(served, broken, now=late, rules=RULES)["realised_return"].to_list() == [None]
    whole = bars_of([bar(MIDNIGHT, 100.0), bar(due, 100.0)])
    assert outcomes(served, whole, now=due - timedelta(seconds=1), rules=RULES).is_empty()


class World:
    """A lake in which predictions and bars arrive in pieces."""

    def __init__(self, folder: str) -> None:
        self.lake = Lake(folder)
        self.since = None

    def serve(self, rows: list[dict]) -> None:
        frame = served_of(rows)
        days = frame["date"].unique().to_list()
        schema = frame.schema
        self.lake.rewrite_days(
            SERVED_PREDICTIONS, days, lambda stored: pl.concat([stored, frame]), schema
        )

    def publish(self, rows: list[dict]) -> None:
        frame = bars_of(rows)
        days = frame["date"].unique().to_list()

        def newest(stored: pl.DataFrame) -> pl.DataFrame:
            both = pl.concat([stored, frame])
            return both.unique(["symbol", "close_time"], keep="last", maintain_order=True)

        self.lake.rewrite_days("raw_prices", days, newest, frame.schema)

    def run(self, now: datetime, rules: Rules = RULES, *, remember: bool = True):
        report = bring_up_to_date(
            self.lake,
            now=now,
            rules=rules,
            bars=lambda prices: prices,
            since=self.since if remember else None,
        )
        self.since = report.seen
        return report

    @property
    def table(self) -> pl.DataFrame:
        return self.lake.scan(PREDICTION_OUTCOMES).collect().sort("prediction_id")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


def test_before_anything_was_served_there_is_an_empty_table(world: World) -> None:
    report = world.run(MIDNIGHT)
    assert (report.stored.rows, report.seen) == (0, None)
    assert world.table.schema == SCHEMA
    # Nor does it take any bars.
    world.serve([prediction(MIDNIGHT)])
    assert world.run(MIDNIGHT + HORIZON).waiting == 1
    assert world.run(MIDNIGHT + 3 * HORIZON).missing == 1


def test_a_revised_bar_corrects_an_outcome_however_old(world: World) -> None:
    old = MIDNIGHT - timedelta(days=40)
    instants = [old, MIDNIGHT]
    world.serve([prediction(at) for at in instants])
    world.publish([bar(at + away, 100.0) for at in instants for away in (BAR * 0, HORIZON)])
    first = world.run(MIDNIGHT + 2 * HORIZON)
    assert (first.outcomes, first.days) == (2, 2)
    settled = MIDNIGHT + timedelta(days=30)
    world.run(settled)
    still = world.run(settled + BAR)
    assert (still.days, still.stored.days_changed) == (0, ())
    world.publish([bar(old, 50.0)])
    again = world.run(settled + BAR)
    assert again.stored.days_changed == (old.date(),)
    assert world.table.sort("feature_timestamp")["realised_return"][0] == pytest.approx(math.log(2))
    # Other rules, and a clock that went back, have everything computed again.
    assert world.run(settled, replace(RULES, notional_usd=5.0)).days == 2
    assert world.run(settled - BAR, replace(RULES, notional_usd=5.0)).days == 2


def test_a_horizon_of_days_reaches_the_bars_of_days_later(world: World) -> None:
    """A horizon longer than the settings say, as of a version that was trained before them."""
    long = {"horizon_seconds": 3 * 86400, "prediction_id": "long"}
    world.serve([prediction(MIDNIGHT, **long), prediction(MIDNIGHT + timedelta(days=3), 0.01)])
    world.publish([bar(MIDNIGHT, 100.0)])
    assert world.run(MIDNIGHT + timedelta(days=2.5)).waiting == 2
    end = MIDNIGHT + timedelta(days=3)
    world.publish([bar(end, 101.0)])
    world.run(end + BAR)
    assert world.table.filter(prediction_id="long")["realised_return"].to_list() == pytest.approx(
        [math.log(1.01)]
    )


def test_what_comes_late_changes_its_neighbours_of_another_day(world: World) -> None:
    """A position of the evening is closed, until it turns out to have been taken over."""
    evening, night = MIDNIGHT - BAR, MIDNIGHT - BAR + HORIZON
    world.serve([prediction(evening)])
    world.publish([bar(at, 100.0) for at in (evening, night, night + HORIZON)])
    settled = MIDNIGHT + timedelta(days=3)
    world.run(settled)
    assert world.table["pnl_usd"].to_list() == pytest.approx([-2.4])
    world.serve([prediction(night)])
    world.run(settled)
    assert world.table.sort("feature_timestamp")["pnl_usd"].to_list() == pytest.approx([-1.2, -1.2])


def test_of_two_rows_of_one_prediction_the_first_computed_counts(world: World) -> None:
    later = MIDNIGHT + timedelta(minutes=1)
    world.serve([prediction(MIDNIGHT, -0.01, role="shadow", computed_at=later)])
    world.serve([prediction(MIDNIGHT), prediction(MIDNIGHT)])
    world.publish([bar(MIDNIGHT, 100.0), bar(MIDNIGHT + HORIZON, 100.0)])
    report = world.run(MIDNIGHT + HORIZON)
    assert (report.outcomes, report.duplicates) == (1, 2)
    assert world.table.select("role", "position").rows() == [("champion", 1)]


def test_of_answers_to_changed_features_the_last_one_stands(world: World) -> None:
    """All are kept and told of, but one position is taken, and one of them is judged."""
    late = {"prediction_id": "late", "computed_at": MIDNIGHT + timedelta(minutes=2)}
    short = prediction(MIDNIGHT, -0.01, **late)
    world.serve([short, prediction(MIDNIGHT, 0.01), prediction(MIDNIGHT + HORIZON, -0.01)])
    # In the lake's order it is not the last; another version's answer is its own.
    world.serve([prediction(MIDNIGHT, 0.01, prediction_id="other", model_version="2")])
    instants = [MIDNIGHT + HORIZON * place for place in range(3)]
    world.publish([bar(at, close) for at, close in zip(instants, (100.0, 97.0, 97.0), strict=True)])
    report = world.run(instants[-1])
    assert (report.outcomes, report.duplicates, report.waiting) == (4, 0, 0)
    table = world.table.filter(model_version="1").sort("feature_timestamp", "computed_at")
    assert table["position"].to_list() == [0, -1, -1]
    assert table["correct"].to_list() == [False, False, False]
    assert table["squared_error"].is_unique().sum() == 3
    # Short from 100 to 97, in once and out once: 12 basis points each.
    assert table["pnl_usd"].to_list() == pytest.approx([0.0, 30.0 - 1.2, -1.2])
    judged = recent_outcomes(world.lake, instants[-1])
    assert set(judged["prediction_id"]) == {"late", "other", *table["prediction_id"][2:]}


_AT = st.integers(0, 7)
_EVENT = st.one_of(
    st.tuples(st.just("serve"), _AT, st.sampled_from((0.01, -0.01, 0.0)), st.integers(0, 1)),
    st.tuples(st.just("publish"), _AT, st.sampled_from((90.0, 100.0, 110.0)), st.integers(0, 1)),
    st.tuples(st.just("run"), _AT, st.booleans(), st.just(0)),
)


def _row(event: tuple) -> dict:
    kind, place, value, column = event
    at = MIDNIGHT + BAR * (place - 3)
    if kind == "serve":
        # Two rows of one id that differ: the first that was computed counts.
        return prediction(at, value, sequence=column, role=("champion", "shadow")[column])
    return bar(at, value)


@settings(max_examples=10, deadline=None)
@given(st.lists(_EVENT, min_size=3, max_size=10))
def test_neither_pieces_nor_the_number_of_runs_change_the_outcomes(events: list[tuple]) -> None:
    """Around midnight, with duplicates, late and revised bars and predictions that come late."""
    end = MIDNIGHT + timedelta(hours=6)
    with TemporaryDirectory() as one, TemporaryDirectory() as many:
        pieces, whole = World(many), World(one)
        now = MIDNIGHT - timedelta(hours=3)
        for event in events:
            if event[0] == "serve":
                pieces.serve([_row(event)])
            elif event[0] == "publish":
                pieces.publish([_row(event)])
            else:
                now += BAR * event[1]
                pieces.run(now, remember=event[2])
        for kind, write in (("publish", whole.publish), ("serve", whole.serve)):
            if rows := [_row(event) for event in events if event[0] == kind]:
                write(rows)
        pieces.run(max(now, end))
        report = whole.run(max(now, end))
        assert pieces.table.equals(whole.table)
        ids = {_row(event)["prediction_id"] for event in events if event[0] == "serve"}
        assert set(whole.table["prediction_id"]) == ids
        assert whole.table.height == len(ids) == report.stored.rows
        assert pieces.run(max(now, end)).stored.days_changed == ()
