"""Revised rows reach exactly the models and predictions that were made of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE

from cryptoml_assets.errors import LakeError, TrainingRecordError
from cryptoml_assets.features.catalog import TTL, features_of
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.monitoring import looks
from cryptoml_assets.monitoring.gone import version_gone
from cryptoml_assets.monitoring.learnt import learnt_by
from cryptoml_assets.monitoring.looks import Looked, Since, keep_looked, look, read_looked
from cryptoml_assets.monitoring.revisions import SCHEMA, Learnt, merged, revised_values
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.served import SERVED_PREDICTIONS
from tests.feature_data import BAR, DAY, FIRST, make_bars, midnight, some_days

BARS = make_bars(2)
DAYS = some_days(2)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
#: What each version reads: one bar back, and twelve.
INPUTS = {"1": frozenset({"log_return_1"}), "2": frozenset({"momentum"})}
FEATURES = [f for f in features_of("price_features") if f.name in {"log_return_1", "momentum"}]
START = midnight(FIRST)
NOTICED = START + 3 * DAY
_INSTANT = pl.Datetime("us", "UTC")


def features(bars: pl.DataFrame) -> pl.DataFrame:
    return price_features(bars, DAYS, BAR, FEATURES)


@dataclass
class World:
    """A lake with features and logged predictions, and what each prediction was made of."""

    lake: Lake
    rows: pl.DataFrame = field(default_factory=lambda: features(BARS))
    bars: pl.DataFrame = field(default_factory=lambda: BARS)
    made: dict[str, tuple[str, str, datetime]] = field(default_factory=dict)
    impact: pl.DataFrame = field(default_factory=SCHEMA.to_frame)
    trained: int = 0
    tracker_is_down: bool = False

    def __post_init__(self) -> None:
        self.trained = self.lake.replace_days("price_features", self.rows, DAYS)

    def change(self, bars: pl.DataFrame) -> None:
        self.bars, self.rows = bars, features(bars)
        self.lake.replace_days("price_features", self.rows, DAYS)

    def log(self, version: str, symbol: str, at: datetime) -> None:
        name = f"{version} {symbol} {at}"
        self.made[name] = (version, symbol, at)
        rows = pl.DataFrame(
            [(name, v, s, t, t.date()) for name, (v, s, t) in self.made.items()],
            schema={
                "prediction_id": pl.String,
                "model_version": pl.String,
                "symbol": pl.String,
                "feature_timestamp": _INSTANT,
                "date": pl.Date,
            },
            orient="row",
        )
        self.lake.replace_days(SERVED_PREDICTIONS, rows, some_days(3))

    def look(self, placed: Sequence[str] = ()) -> tuple[str, ...]:
        found = look(self.lake, self.learnt, placed, read_looked(self.lake), NOTICED)
        self.impact = merged(self.impact, found.impact)
        keep_looked(self.lake, found.looked)
        return found.problems

    def learnt(self, version: str) -> Learnt | None:
        if self.tracker_is_down:
            message = "no route to the tracker"
            raise TrainingRecordError(message)
        if version not in INPUTS:
            return None
        inputs = {"price_features": INPUTS[version]}
        versions = {"price_features": self.trained}
        return Learnt(version, inputs, START + 6 * timedelta(hours=1), START + DAY, versions)

    def revise(self, step: int, close: float) -> None:
        here = pl.col("open_time") == START + step * BAR
        self.change(self.bars.with_columns(close=pl.when(here).then(close).otherwise("close")))

    def affected(self) -> set[str]:
        return set(self.impact.filter(kind="prediction")["prediction_id"])

    def trained_rows(self) -> dict[str, int]:
        """How many training rows changed of each version, as far as was told."""
        told = (
            self.impact.filter(kind="training").group_by("model_version").agg(pl.col("rows").sum())
        )
        return dict(told.iter_rows())


def value(rows: pl.DataFrame, version: str, symbol: str, at: datetime) -> list[float | None]:
    (name,) = INPUTS[version]
    return rows.filter(symbol=symbol, event_timestamp=at)[name].to_list()


def differs(old: pl.DataFrame, new: pl.DataFrame, made: tuple[str, str, datetime]) -> bool:
    before = value(old, *made)
    return bool(before) and before != value(new, *made)


places = st.tuples(st.sampled_from(sorted(INPUTS)), st.sampled_from(SYMBOLS), st.integers(99, 102))
#: A prediction is logged, a bar revised, lost, or all stored as they were at first or as they are,
#: or somebody looks.
KINDS = ["log", "log", "revise", "lose", "restore", "again", "look"]
events = st.tuples(st.sampled_from(KINDS), places)
HERE = ("1", SYMBOLS[1], 100)


@settings(max_examples=6, deadline=None)
@given(st.lists(events, min_size=3, max_size=8))
# Made of the row as it was revised, and only of that.
@example([("revise", HERE), ("log", HERE), ("look", HERE), ("again", HERE)])
# Back to what it was before anybody looked; and a row that came, was used and went in between.
@example([("look", HERE), ("log", HERE), ("revise", HERE), ("restore", HERE)])
@example([("lose", HERE), ("look", HERE), ("restore", HERE), ("log", HERE), ("lose", HERE)])
def test_exactly_the_predictions_whose_features_changed_are_listed(
    happened: list[tuple[str, tuple[str, str, int]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Lake(folder))
        world.log("1", SYMBOLS[0], START + 5 * BAR)
        expected: set[str] = set()
        for kind, (version, symbol, step) in happened:
            here = (pl.col("symbol") == symbol) & (pl.col("open_time") == START + step * BAR)
            before = world.rows
            if kind == "log":
                # Right after the bar, or some bars later: only what a row is made of counts.
                world.log(version, symbol, START + (step + 1) * BAR)
            elif kind == "revise":
                higher = pl.when(here).then(pl.col("close") * 1.01).otherwise("close")
                world.change(world.bars.with_columns(close=higher))
            elif kind == "lose":
                world.change(world.bars.filter(~here))
            elif kind == "restore":
                world.change(BARS)
            elif kind == "again":
                world.change(world.bars)
            else:
                world.look()
            expected |= {n for n, made in world.made.items() if differs(before, world.rows, made)}
        assert world.look() == ()
        assert world.affected() == expected
        told = world.impact
        assert world.look() == ()
        assert world.impact.equals(told)


def test_training_rows_that_changed_are_counted_and_new_ones_are_not() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Lake(folder))
        # Revised before it was looked at the first time, in and outside of the training window.
        steps = [100, 101, 20, 400]
        revised = pl.col("open_time").is_in([START + step * BAR for step in steps])
        here = revised & (pl.col("symbol") == "ETH/USDT")
        world.change(
            world.bars.with_columns(
                close=pl.when(here).then(pl.col("close") + 1).otherwise("close")
            )
        )
        assert world.look(["1"]) == ()
        (row,) = world.impact.to_dicts()
        # A return is of two bars: those that close and open at a revised one.
        assert row == {
            "kind": "training",
            "model_version": "1",
            "prediction_id": None,
            "table": "price_features",
            "symbol": "ETH/USDT",
            "first_instant": START + 101 * BAR,
            "last_instant": START + 103 * BAR,
            "rows": 3,
            "noticed_at": NOTICED,
        }
        more = price_features(make_bars(3), some_days(3), BAR, FEATURES)
        only_new = pl.concat([world.rows, more.filter(pl.col("date") == some_days(3)[2])])
        world.lake.replace_days("price_features", only_new, some_days(3))
        assert world.look(["1"]) == ()
        assert world.impact.height == 1


def test_a_version_whose_run_is_gone_is_named_and_its_predictions_still_watched() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Lake(folder))
        world.log("3", "BTC/USDT", START + 101 * BAR)
        close = pl.when(pl.col("open_time") == START + 100 * BAR).then(1.0).otherwise("close")
        world.change(world.bars.with_columns(close=close))
        (problem,) = world.look()
        assert problem.startswith("version 3: what it learnt from cannot be read")
        assert world.affected() == set(world.made)


def test_a_daily_row_counts_until_the_next_one_or_its_time_to_live() -> None:
    instants = [START, START + DAY, START + 12 * DAY]
    table = pl.DataFrame(
        {
            "symbol": ["BTC/USDT"] * 3,
            "event_timestamp": pl.Series(instants, dtype=_INSTANT),
            "mvrv_ratio": [1.0, 2.0, 3.0],
            "nvt_ratio": [1.0, None, float("nan")],
            "date": [at.date() - DAY for at in instants],
        }
    )
    read = {"1": frozenset({"mvrv_ratio"}), "2": frozenset({"nvt_ratio"})}
    last = START + DAY + TTL
    with tempfile.TemporaryDirectory() as folder:
        world = World(Lake(folder))
        world.lake.replace_days("onchain_features", table, table["date"].to_list())
        asked = [START + DAY - BAR, START + DAY, START + 2 * DAY, last, last + BAR]
        rows = pl.DataFrame(
            [(f"{v} {at}", v, "BTC/USDT", at, at.date()) for v in read for at in asked],
            schema=["prediction_id", "model_version", "symbol", "feature_timestamp", "date"],
            orient="row",
        ).cast({"feature_timestamp": _INSTANT})
        world.lake.replace_days(SERVED_PREDICTIONS, rows, some_days(20))

        def revise(**columns: list[float | None]) -> set[str]:
            """Ids listed after a reorganisation, and versions whose training it reached."""
            revised = table.with_columns(
                **{name: pl.Series(new, dtype=pl.Float64) for name, new in columns.items()}
            )
            world.lake.replace_days("onchain_features", table, table["date"].to_list())
            before = look(world.lake, learnt, read, Looked(), NOTICED).looked
            world.lake.replace_days("onchain_features", revised, table["date"].to_list())
            found = look(world.lake, learnt, read, before, NOTICED)
            assert found.problems == ()
            trained = found.impact.filter(kind="training")["model_version"].to_list()
            return {*found.impact["prediction_id"].drop_nulls(), *trained}

        def learnt(version: str) -> Learnt:
            inputs = {"onchain_features": read[version]}
            # Trained and tested between the second row and the third.
            window = (START + 2 * DAY, START + 3 * DAY)
            return Learnt(version, inputs, *window, {"onchain_features": 0})

        assert revise(mvrv_ratio=[1.5, 2.0, 3.0]) == {f"1 {asked[0]}"}
        assert revise(mvrv_ratio=[1.0, 2.5, 3.0]) == {"1", *(f"1 {at}" for at in asked[1:4])}
        assert revise(mvrv_ratio=[1.0, 2.0, 3.5]) == set()
        assert revise(nvt_ratio=[1.0, None, 3.0]) == set()
        assert revise(nvt_ratio=[1.0, 2.0, float("nan")]) == {
            "2",
            *(f"2 {at}" for at in asked[1:4]),
        }


def test_a_row_that_is_gone_is_revised_whatever_it_held() -> None:
    old = pl.DataFrame({"symbol": ["A", "B"], "event_timestamp": [START] * 2, "x": [None, 1.0]})
    rows = revised_values(old, old.with_columns(y=0.0).filter(symbol="B"))
    assert rows.rows() == [("A", START, ["x"])]


def test_more_commits_than_are_compared_one_by_one_are_compared_at_once(monkeypatch) -> None:
    monkeypatch.setattr(looks, "MOST_STEPS", 1)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Lake(folder))
        world.log("1", "BTC/USDT", START + 101 * BAR)
        assert world.look() == ()
        for step, price in ((100, 1.0), (300, 1.0), (300, 2.0)):
            close = (
                pl.when(pl.col("open_time") == START + step * BAR).then(price).otherwise("close")
            )
            world.change(world.bars.with_columns(close=close))
        world.look()
        assert world.affected() == set(world.made)


@pytest.mark.parametrize("known", [False, True])
def test_what_changed_while_the_tracker_was_down_is_told_once_it_answers(known: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Lake(folder))
        world.log("1", "BTC/USDT", START + 101 * BAR)
        if known:
            assert world.look(["1"]) == ()
        world.revise(100, 1.0)
        world.tracker_is_down = True
        for _ in range(2):
            (problem,) = world.look(["1"])
            assert "the next look tries again: no route to the tracker" in problem
        assert world.impact.is_empty()
        # Logged and not revised since, so it is of no concern, and out of any role by now.
        world.log("1", "ETH/USDT", START + 101 * BAR)
        world.tracker_is_down = False
        assert world.look() == ()
        assert world.affected() == {next(iter(world.made))}
        assert world.trained_rows() == {"1": 4}
        assert read_looked(world.lake).behind == {}
        told = world.impact
        assert world.look() == ()
        assert world.impact.equals(told)


@pytest.mark.parametrize("error", [OSError("timed out"), LakeError("cannot be read")])
def test_what_the_lake_did_not_answer_is_compared_by_the_next_look(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def silent(*_: object) -> pl.DataFrame:
        raise error

    with tempfile.TemporaryDirectory() as folder:
        world = World(Lake(folder))
        world.log("1", "BTC/USDT", START + 101 * BAR)
        assert world.look(["1"]) == ()
        world.revise(100, 1.0)
        with monkeypatch.context() as down:
            down.setattr(looks, "revised_rows", silent)
            assert all("tries again" in problem for problem in world.look(["1"]))
        assert world.impact.is_empty()
        assert world.look(["1"]) == ()
        assert world.affected() == set(world.made)
        assert world.trained_rows() == {"1": 4}


def test_a_version_of_a_table_that_was_cleaned_away_is_given_up(tmp_path: Path) -> None:
    world = World(Lake(str(tmp_path)))
    assert world.look(["1"]) == ()
    world.revise(100, 1.0)
    table = DeltaTable(world.lake.address("price_features"))
    assert table.vacuum(0, enforce_retention_duration=False, dry_run=False)
    (problem,) = world.look(["1"])
    assert "were not compared" in problem
    assert "again" not in problem
    assert world.look(["1"]) == ()
    table.create_checkpoint()
    (tmp_path / "price_features" / "_delta_log" / f"{0:020}.json").unlink()
    assert version_gone(world.lake, "price_features", 0)
    assert not version_gone(world.lake, "price_features", world.lake.version("price_features"))
    assert not version_gone(Lake(str(tmp_path / "down")), "price_features", 0)


def test_looks_stored_before_models_could_stay_behind_go_on(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    old = {"table": ["price_features"], "version": [3], "models": ["1,2"]}
    lake.overwrite(looks.TABLE, pl.DataFrame(old))
    looked = read_looked(lake)
    assert looked == Looked({"price_features": 3}, frozenset({"1", "2"}))
    behind = {"2": Since({"price_features": 1}, known=False)}
    keep_looked(lake, Looked(looked.versions, looked.models, behind))
    assert read_looked(lake).behind == behind
    assert read_looked(lake).since("1") == Since({"price_features": 3}, known=True)


class Tracker:
    """A tracker whose run, or whose answer, is missing."""

    def __init__(self, error: Exception | None = None, files: Sequence[str] = ()) -> None:
        self.error, self.files = error, files

    def get_model_version(self, _name: str, _version: str) -> SimpleNamespace:
        if self.error:
            raise self.error
        return SimpleNamespace(run_id="run")

    def get_run(self, _run: str) -> SimpleNamespace:
        return SimpleNamespace()

    def download_artifacts(self, *_: str) -> str:
        message = "The following failures occurred while downloading"
        raise MlflowException(message)

    def list_artifacts(self, *_: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(path=each) for each in self.files]


@pytest.mark.parametrize(
    ("tracker", "gone"),
    [
        (Tracker(MlflowException("no version 7", RESOURCE_DOES_NOT_EXIST)), True),
        (Tracker(MlflowException("503", TEMPORARILY_UNAVAILABLE)), False),
        (Tracker(files=[]), True),
        (Tracker(files=["bundle/manifest.json"]), False),
    ],
)
def test_only_what_the_tracker_lacks_is_gone(tmp_path: Path, tracker: Tracker, gone: bool) -> None:
    learnt = learnt_by(tracker, Lake(str(tmp_path)), "m", [])
    if gone:
        assert learnt("7") is None
    else:
        with pytest.raises(TrainingRecordError):
            learnt("7")
