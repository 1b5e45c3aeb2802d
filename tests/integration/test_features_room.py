"""The feature assets in Dagster, over a temporary lake, with upstream assets of synthetic rows."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.features import (
    assets,
    checks,
    online_assets,
    online_checks,
    proofs,
    training_assets,
    training_checks,
)
from cryptoml_assets.features.catalog import model_features, row_inputs
from cryptoml_assets.monitoring.assets import feature_drift
from cryptoml_assets.partitions import daily
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import settings
from tests.feature_data import DAY, FIRST, make_bars, make_blocks, make_metrics, midnight, some_days

REPOSITORY = Path(__file__).parents[2] / "feature_repo"
COUNT = 12
DAYS = some_days(COUNT)
NOW = midnight(FIRST) + COUNT * DAY - timedelta(hours=5)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
BARS = make_bars(COUNT, SYMBOLS).filter(pl.col("close_time") <= NOW)
PROVED = dict.fromkeys(proofs.MEANINGS, True)
RAW = ("raw_prices", "network_metrics", "onchain_blocks")


def raw_asset(name: str, rows: pl.DataFrame) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="lake",
    )
    def raw(context: dg.AssetExecutionContext) -> pl.DataFrame:
        days = [date.fromisoformat(key) for key in context.partition_keys]
        return rows.filter(pl.col("date").is_in(days))

    return raw


ASSETS = [
    raw_asset("raw_prices", BARS),
    raw_asset("network_metrics", make_metrics(COUNT)),
    raw_asset("onchain_blocks", make_blocks(COUNT)),
    *dg.load_assets_from_modules([assets, online_assets, training_assets]),
    feature_drift,
]


def definitions_over(home: Path, *jobs: object) -> dg.Definitions:
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=dg.load_asset_checks_from_modules([checks, online_checks, training_checks]),
        jobs=jobs,
        resources={
            "lake": LakeIOManager(uri=str(home / "lake")),
            "feature_store": FeatureStoreResource(repository=str(REPOSITORY), home=str(home)),
            "tracker": Tracker(tracking_uri=f"sqlite:///{home / 'mlflow.db'}"),
        },
    )


class Room:
    """The graph over one home folder."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.lake = Lake(str(home / "lake"))
        self._home = home
        self._instance = instance

    def run(
        self, *names: str, days: Sequence[date] = (), expect: bool = True
    ) -> dg.ExecuteInProcessResult:
        return self.run_selected(dg.AssetSelection.assets(*names), days, expect=expect)

    def run_selected(
        self, selection: dg.AssetSelection, days: Sequence[date], *, expect: bool = True
    ) -> dg.ExecuteInProcessResult:
        definitions = definitions_over(self._home, dg.define_asset_job("job", selection))
        tags = {}
        if days:
            tags = {
                "dagster/asset_partition_range_start": days[0].isoformat(),
                "dagster/asset_partition_range_end": days[-1].isoformat(),
            }
        result = definitions.resolve_job_def("job").execute_in_process(
            instance=self._instance, tags=tags, raise_on_error=expect
        )
        assert result.success is expect
        return result

    def rows(self, table: str) -> pl.DataFrame:
        return self.lake.scan(table).collect()


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
    monkeypatch.setenv("CRYPTOML_SYMBOLS", ",".join(SYMBOLS))
    monkeypatch.setenv("CRYPTOML_DAYS", "10")
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        yield Room(tmp_path, instance)


def metadata_of(result: dg.ExecuteInProcessResult, name: str) -> dict[str, object]:
    (event,) = result.asset_materializations_for_node(name)
    return {key: value.value for key, value in event.metadata.items()}


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """By name whether a check has passed, of every asset that has one of that name."""
    passed: dict[str, bool] = {}
    for check in result.get_asset_check_evaluations():
        passed[check.check_name] = passed.get(check.check_name, True) and check.passed
    return passed


def test_the_room_from_raw_rows_to_drift(room: Room) -> None:
    day_run = room.run(*RAW, "price_features", "onchain_features", days=DAYS)
    passed = {"one_row_per_bar": True, "known_by_now": True, **PROVED}
    assert checks_of(day_run) == passed
    assert room.rows("price_features").height == BARS.height
    assert room.rows("onchain_features")["event_timestamp"].max() <= NOW

    whole = room.run("online_features", "training_set", "feature_drift")
    assert checks_of(whole).keys() >= {"online_equals_lake", "labels_known"}
    assert all(checks_of(whole).values())

    online = metadata_of(whole, "online_features")
    assert online["rows_price_features"] == online["rows_onchain_features"] == 2
    assert str(NOW) in str(online["newest"])

    rows = room.rows("training_set")
    assert rows.columns[4:-1] == list(model_features())
    trained = metadata_of(whole, "training_set")
    assert trained["dagster/row_count"] == rows.height
    assert trained["lake_versions"] == {
        table: room.lake.version(table)
        for table in ("price_features", "onchain_features", "raw_prices")
    }
    assert trained["label_std"] == pytest.approx(rows["label"].std())
    assert str(trained["labels"]).startswith("![plot](data:image/png;base64,")

    drift = metadata_of(whole, "feature_drift")
    assert isinstance(drift["drifted_share"], float)
    # All inputs but the two of the calendar.
    judged = [each for each in row_inputs() if not each.name.startswith("hour_")]
    assert len(judged) == len(row_inputs()) - 2
    assert drift["pairs"] == room.rows("feature_drift").height == 2 * len(judged)
    assert drift["drifted"] == room.rows("feature_drift")["drifted"].sum()


def test_days_run_one_by_one_give_the_rows_of_the_range(room: Room) -> None:
    room.run("raw_prices", days=DAYS)
    room.run("price_features", days=DAYS)
    version = room.lake.version("price_features")
    for day in (DAYS[3], DAYS[0], DAYS[-1]):
        room.run("price_features", days=[day])
    assert room.lake.version("price_features") == version


def test_a_lost_feature_row_fails_its_check(room: Room) -> None:
    room.run(*RAW, "price_features", "onchain_features", days=DAYS)
    day = room.lake.scan("price_features", DAYS[2:3]).collect()
    room.lake.replace_days("price_features", day[1:], DAYS[2:3])
    result = checks.one_row_per_bar(
        dg.build_asset_check_context(), lake=LakeIOManager(uri=room.lake.uri)
    )
    assert not result.passed
    assert result.description == "1 without row"


def test_checks_repeated_alone_look_at_the_days_of_their_run(room: Room) -> None:
    room.run(*RAW, "price_features", "onchain_features", days=DAYS)
    day = room.lake.scan("price_features", DAYS[2:3]).collect()
    room.lake.replace_days("price_features", day[1:], DAYS[2:3])
    repeated = dg.AssetSelection.checks(checks.one_row_per_bar, checks.known_by_now)
    elsewhere = room.run_selected(repeated, DAYS[3:6])
    assert checks_of(elsewhere) == {"one_row_per_bar": True, "known_by_now": True}
    there = room.run_selected(repeated, DAYS[2:3], expect=False)
    assert checks_of(there)["one_row_per_bar"] is False


def test_a_value_that_is_not_what_its_bars_give_is_named(room: Room) -> None:
    room.run(*RAW, "price_features", "onchain_features", days=DAYS)
    rows = room.lake.scan("price_features", DAYS[4:5]).collect()
    at = (pl.col("symbol") == "ETH/USDT") & (pl.int_range(pl.len()) == rows.height - 1)
    other = pl.when(at).then(pl.col("rsi") + 1e-13).otherwise("rsi")
    room.lake.replace_days("price_features", rows.with_columns(other.alias("rsi")), DAYS[4:5])
    repeated = dg.AssetSelection.checks(checks.exact_prices)
    assert checks_of(room.run_selected(repeated, DAYS[5:8])) == PROVED
    there = room.run_selected(repeated, DAYS[4:5], expect=False)
    for check in there.get_asset_check_evaluations():
        # Nothing is known of the newest instant by an earlier cut.
        assert check.passed is (check.check_name in {"no_look_ahead", "nulls_have_reasons"})
        if not check.passed:
            assert check.description.startswith("rsi of ETH/USDT at 2024-01-06 00:00: ")
            assert check.metadata["different"].value == 1


def test_an_empty_training_window_is_an_error_that_says_so(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.run(*RAW, "price_features", "onchain_features", days=DAYS)
    monkeypatch.setenv("CRYPTOML_NOW", (NOW + 300 * DAY).isoformat())
    settings.cache_clear()
    result = room.run("training_set", expect=False)
    (failure,) = result.get_step_failure_events()
    assert "no labelled rows between" in str(failure.step_failure_data.error)


def test_every_asset_is_documented_and_owned(tmp_path: Path) -> None:
    graph = definitions_over(tmp_path).resolve_asset_graph()
    for name in (
        "price_features",
        "onchain_features",
        "online_features",
        "training_set",
        "feature_drift",
    ):
        node = graph.get(dg.AssetKey(name))
        assert node.description
        assert node.owners
        assert node.group_name in {"features", "models", "monitoring"}
        assert node.code_version


def test_the_ui_shows_every_columns_meaning(tmp_path: Path) -> None:
    node = definitions_over(tmp_path).resolve_asset_graph().get(dg.AssetKey("price_features"))
    schema = node.metadata["dagster/column_schema"]
    described = {column.name for column in schema.columns if column.description}
    assert {"rsi", "volatility_288", "hour_sin"} <= described
