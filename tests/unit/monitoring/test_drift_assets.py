"""Both drift assets in Dagster: what is compared with what, with and without a champion."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.features.catalog import features_of, model_features
from cryptoml_assets.monitoring import assets
from cryptoml_assets.monitoring.assets import feature_drift, prediction_drift
from cryptoml_assets.monitoring.drift import SCHEMA
from cryptoml_assets.monitoring.prediction_drift import OUTPUTS
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.approval import write_public_key
from cryptoml_serving.contract.manifest import FeatureSpec, Manifest
from cryptoml_serving.contract.served import SERVED_PREDICTIONS
from tests.automation import minutes_asked
from tests.deployment_world import KEY, MODEL, decided, decision
from tests.drift_worlds import DAILY, LEARNT_UNTIL, SPANS, chain, moved
from tests.drift_worlds import synthetic as autoregressive

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = LEARNT_UNTIL + timedelta(days=8)
#: Of these the champion reads the first two.
INPUTS = {"log_return_1": "quick", "rsi": "slow", "high_low_range": "moody"}
CHAMPION = ("log_return_1", "rsi")


class Client:
    """What the assets ask the tracker: one run with its bundle and its answers."""

    def __init__(self, manifest: Manifest, answers: pl.DataFrame) -> None:
        self.manifest, self.answers = manifest, answers

    def get_run(self, run_id: str) -> Any:
        assert run_id == "run1"
        info = SimpleNamespace(start_time=0, status="FINISHED")
        return SimpleNamespace(info=info, data=SimpleNamespace(tags={}))

    def download_artifacts(self, run_id: str, name: str, folder: str) -> str:
        assert run_id == "run1"
        path = f"{folder}/{name.replace('/', '_')}"
        if name.endswith(".json"):
            Path(path).write_text(self.manifest.model_dump_json())
        else:
            self.answers.write_parquet(path)
        return path


class Room:
    """A lake with rows of the synthetic world, and the assets over it."""

    def __init__(self) -> None:
        self.lake = Lake(settings().lake_uri)
        self.rows = autoregressive(3).select(
            "symbol", "event_timestamp", "source", *(pl.col(v).alias(k) for k, v in INPUTS.items())
        )
        self.client = Client(manifest(training_set=0), answers(self.rows))
        self.store("training_set", self.rows.filter(pl.col("event_timestamp") <= LEARNT_UNTIL))
        absent = [
            each.name
            for each in features_of("price_features")
            if each.model_input and each.name not in INPUTS
        ]
        by_day = pl.col("event_timestamp").dt.offset_by("-30m").dt.date().alias("date")
        priced = self.rows.with_columns(by_day, *(null(name) for name in absent))
        self.lake.replace_days("price_features", priced, priced["date"].unique().to_list())
        chain = [each.name for each in features_of("onchain_features") if each.model_input]
        none = self.rows.head(1).select(
            "symbol", "event_timestamp", "source", *(null(n) for n in chain)
        )
        self.lake.overwrite("onchain_features", none)

    def store(self, table: str, rows: pl.DataFrame) -> int:
        absent = [name for name in model_features() if name not in INPUTS]
        return self.lake.overwrite(table, rows.with_columns(null(name) for name in absent))

    def approve(self) -> None:
        path = settings().public_key_path
        path.parent.mkdir(parents=True)
        write_public_key(KEY, path)
        decided(self.lake, decision(1))

    def run(self, asset: dg.AssetsDefinition) -> tuple[dict[str, Any], pl.DataFrame]:
        tables = ("training_set", "price_features", "onchain_features")
        given = [dg.AssetSpec(table).with_io_manager_key("lake") for table in tables]
        tracker = SimpleNamespace(client=lambda: self.client)
        result = dg.materialize(
            [asset, *given],
            selection=[asset],
            resources={
                "lake": LakeIOManager(uri=self.lake.uri),
                "tracker": dg.ResourceDefinition.hardcoded_resource(tracker),
            },
        )
        (event,) = result.asset_materializations_for_node(asset.key.path[-1])
        told = {name: value.value for name, value in event.metadata.items()}
        return told, self.lake.scan(asset.key.path[-1]).collect()


def null(name: str) -> pl.Expr:
    return pl.lit(None, pl.Float64).alias(name)


def manifest(**lake_versions: int) -> Manifest:
    first = LEARNT_UNTIL - timedelta(days=40)
    return Manifest(
        model_name=MODEL,
        family="linear",
        created_at=NOW,
        horizon_seconds=3600,
        bar_seconds=1800,
        features=tuple(FeatureSpec(name=name, view="price_features") for name in CHAMPION),
        feature_service="x",
        training_start=first,
        training_end=LEARNT_UNTIL,
        test_start=LEARNT_UNTIL,
        test_end=LEARNT_UNTIL,
        lake_versions=lake_versions,
        git_commit="abc",
        source="simulated",
        metrics={},
        libraries={},
        platforms=("cpu",),
    )


def answers(rows: pl.DataFrame) -> pl.DataFrame:
    """What a model answers to each row: a hundredth of its first input, and so on."""
    expected = pl.col("log_return_1") / 100
    return rows.select(
        "symbol",
        "event_timestamp",
        "source",
        expected.alias("expected_return"),
        (expected - 0.01 * pl.col("high_low_range").abs()).alias("lower"),
        (expected + 0.01 * pl.col("high_low_range").abs()).alias("upper"),
        (1 / (1 + (-pl.col("rsi")).exp())).alias("probability_up"),
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are made and not rendered, which takes longer than everything else."""
    monkeypatch.setattr(assets, "figure_metadata", lambda figure: dg.MetadataValue.md(repr(figure)))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
    monkeypatch.setenv("CRYPTOML_MODEL_NAME", MODEL)
    monkeypatch.setenv("CRYPTOML_TIMEFRAME", "30m")
    monkeypatch.setenv("CRYPTOML_DRIFT_MINIMUM", "2")
    settings.cache_clear()
    return Room()


def drifted(table: pl.DataFrame) -> set[str]:
    return set(table.filter("drifted")["feature"])


@pytest.mark.usefixtures("undrawn")
def test_inputs_are_compared_with_what_the_champion_learnt_from(room: Room) -> None:
    told, table = room.run(feature_drift)
    assert (told["drifted"], told["alarm"], told["model_version"]) == (0, False, "none")
    assert told["judged"] == 2 * len(INPUTS) == told["pairs"] - told["unjudged"]
    assert told["pairs"] == table.height == 2 * len(SPANS | DAILY)
    assert "too short" in told["daily_window"]
    # The lake holds more days of the chain than any training window.
    since = LEARNT_UNTIL + timedelta(days=5, hours=1)
    room.lake.overwrite("onchain_features", moved(chain(1), "eth_base_fee_gwei", 10.0, since))
    told, table = room.run(feature_drift)
    assert told["judged"] == 2 * len(INPUTS) + 2 * len(DAILY)
    assert (told["daily_delay_hours"], told["delay_hours"]) == (72, 14)
    drifted_one = table.filter("drifted", feature="eth_base_fee_gwei")
    assert drifted_one["window_start"].item() == NOW - timedelta(days=3)
    assert drifted_one["symbol"].item() == "BTC/USDT"
    assert table["model_version"].null_count() == table.height
    room.approve()
    # The newest training set has gone along with the market; the champion has not.
    later = room.rows.with_columns(log_return_1=pl.col("log_return_1") + 3)
    newest = room.store("training_set", later.with_columns(rsi=pl.lit(9.0)))
    told, table = room.run(feature_drift)
    assert told["drifted"] == 0
    assert "version 0" in told["reference"]
    assert (told["model_version"], told["pairs"], told["judged"]) == ("1", 4, 4)
    assert set(table["feature"]) == set(CHAMPION)
    assert table["model_version"].unique().to_list() == ["1"]
    assert table["reference_start"].unique().item() == LEARNT_UNTIL - timedelta(days=40)
    assert told["delay_hours"] == 24
    for name in ("heat_map", "distributions"):
        assert str(told[name]).startswith("<Figure")
    # The same rows of a version that is gone are those of the newest one.
    room.client.manifest = manifest(training_set=newest + 7)
    told, table = room.run(feature_drift)
    assert "is gone" in told["reference"]
    assert drifted(table) == set(CHAMPION)
    assert (told["drifted_share"], told["alarm"]) == (1.0, True)


@pytest.mark.usefixtures("undrawn")
def test_answers_are_compared_with_the_champions_own_out_of_sample(room: Room) -> None:
    told, table = room.run(prediction_drift)
    assert (table.schema, table.height, told["alarm"]) == (SCHEMA, 0, False)
    room.approve()
    told, table = room.run(prediction_drift)
    assert (table.height, told["judged"], told["drifted_share"]) == (0, 0, 0.0)
    subject = decision(1).subject
    served = answers(room.rows.filter(pl.col("event_timestamp") > LEARNT_UNTIL)).select(
        pl.exclude("event_timestamp"),
        pl.col("event_timestamp").alias("feature_timestamp"),
        pl.col("event_timestamp").dt.date().alias("date"),
        model_name=pl.lit(MODEL),
        bundle_digest=pl.lit(subject.bundle_digest),
    )
    shifted = pl.col("expected_return") + 0.03
    foreign = served.with_columns(shifted, bundle_digest=pl.lit("another"))
    days = served["date"].unique().to_list()
    room.client.answers = room.client.answers.filter(pl.col("event_timestamp") <= LEARNT_UNTIL)
    room.lake.replace_days(SERVED_PREDICTIONS, pl.concat([served, foreign]), days)
    told, table = room.run(prediction_drift)
    assert (set(table["feature"]), table.height) == (set(OUTPUTS), 6)
    assert (told["judged"], told["drifted"], told["model_version"]) == (6, 0, "1")
    wider = served.with_columns(lower=pl.col("lower") - 0.05)
    room.lake.replace_days(SERVED_PREDICTIONS, wider, days)
    told, table = room.run(prediction_drift)
    assert drifted(table) == {"interval_width"}
    assert (told["drifted"], told["alarm"]) == (2, True)


@pytest.mark.filterwarnings("ignore:Parameter .include_sources. of function .AssetSelection.all.")
@pytest.mark.parametrize(
    ("asset", "needed"),
    [(feature_drift, "training_set"), (prediction_drift, "validated_deployment")],
    ids=["feature_drift", "prediction_drift"],
)
def test_reports_are_made_every_hour_once_there_is_something_to_compare_with(
    asset: dg.AssetsDefinition, needed: str
) -> None:
    names = ("training_set", "price_features", "onchain_features", "validated_deployment")
    minutes = (0, 45, 50, 55, 105, 110, 165)
    asked = minutes_asked(asset, names, minutes, {50: needed})
    # 10:00 found nothing to compare with; at 10:20 there was, and then once an hour.
    assert asked == [50, 105, 165]
