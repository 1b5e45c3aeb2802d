"""The online store as an asset with its checks, over a lake already filled."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.features.online_assets import last_brought, online_features
from cryptoml_assets.features.online_checks import online_equals_lake, online_equals_recomputation
from cryptoml_assets.features.pins import FORMULAS
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from tests.online_world import DAYS, NOW, REPOSITORY, SYMBOLS, fill

CHECKS = ("online_equals_lake", "online_equals_recomputation")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("filled")
    fill(Lake(str(home / "lake")))
    return home / "lake"


class Room:
    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.lake = Lake(str(home / "lake"))
        self.instance = instance
        self.resources: dict[str, Any] = {
            "lake": LakeIOManager(uri=self.lake.uri),
            "feature_store": FeatureStoreResource(repository=str(REPOSITORY), home=str(home)),
        }

    def run(self, *, expect: bool = True) -> dg.ExecuteInProcessResult:
        result = dg.materialize(
            [online_features, online_equals_lake, online_equals_recomputation],
            resources=self.resources,
            instance=self.instance,
            raise_on_error=expect,
        )
        assert result.success is expect
        return result

    def metadata(self, result: dg.ExecuteInProcessResult) -> dict[str, Any]:
        (event,) = result.asset_materializations_for_node("online_features")
        return {name: entry.value for name, entry in event.metadata.items()}


@pytest.fixture
def room(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    shutil.copytree(filled, tmp_path / "lake")
    monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
    monkeypatch.setenv("CRYPTOML_SYMBOLS", ",".join(SYMBOLS))
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        yield Room(tmp_path, instance)


def outcomes(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str | None]]:
    return {
        each.check_name: (each.passed, each.description)
        for each in result.get_asset_check_evaluations()
    }


def test_a_second_run_reads_and_writes_what_changed(room: Room) -> None:
    rows = room.lake.scan("price_features", DAYS[-1:]).collect()
    room.lake.replace_days("price_features", rows[:-1], DAYS[-1:])
    first = room.run()
    told = room.metadata(first)
    assert (told["rows_written"], told["registry_changed"]) == (4, True)
    assert told["days_read"] == 18
    assert told["rows_price_features"] == told["rows_onchain_features"] == 2
    assert {name: passed for name, (passed, _) in outcomes(first).items()} == dict.fromkeys(
        CHECKS, True
    )
    assert last_brought(room.instance)["price_features"].version == room.lake.version(
        "price_features"
    )
    room.lake.replace_days("price_features", rows, DAYS[-1:])
    again = room.metadata(room.run())
    assert str(NOW) in again["newest"]
    assert (again["days_read"], again["rows_written"], again["registry_changed"]) == (1, 1, False)
    idle = room.metadata(room.run())
    assert (idle["days_read"], idle["rows_written"]) == (0, 0)


def test_rows_of_other_formulas_are_not_brought_online(room: Room) -> None:
    told = dg.AssetMaterialization(
        "price_features", partition=DAYS[-1].isoformat(), metadata={FORMULAS: "others"}
    )
    room.instance.report_runless_asset_event(told)
    failed = room.run(expect=False)
    (failure,) = failed.filter_events(lambda event: event.is_step_failure)
    assert "computed by other formulas" in str(failure.step_failure_data.error)
    assert last_brought(room.instance) == {}


def test_a_value_skewed_in_the_lake_fails_the_recomputation_alone(room: Room) -> None:
    rows = room.lake.scan("price_features", DAYS[-1:]).collect()
    skewed = rows.with_columns(rsi=pl.col("rsi") + 1e-13)
    room.lake.replace_days("price_features", skewed, DAYS[-1:])
    found = outcomes(room.run(expect=False))
    assert found["online_equals_lake"][0]
    passed, told = found["online_equals_recomputation"]
    assert not passed
    assert str(told).startswith("price_features.rsi of BTC/USDT: ")


def test_a_value_skewed_in_the_store_fails_its_check(room: Room) -> None:
    room.run()
    store = room.resources["feature_store"].open()
    rows = room.lake.scan("price_features", DAYS[-1:]).collect()[-1:].drop("source", "date")
    store.write_to_online_store("price_features", rows.with_columns(rsi=pl.lit(-1.0)).to_pandas())
    context = dg.build_asset_check_context(instance=room.instance)
    found = online_equals_lake(
        context, feature_store=room.resources["feature_store"], lake=room.resources["lake"]
    )
    assert not found.passed
    assert str(found.description).startswith("price_features.rsi of BTC/USDT: -1.0 online, ")


def test_a_lost_record_has_everything_read(room: Room) -> None:
    room.run()
    room.instance.report_runless_asset_event(dg.AssetMaterialization(online_features.key))
    assert last_brought(room.instance) == {}
    told = room.metadata(room.run())
    assert (told["days_read"], told["rows_written"]) == (18, 0)


def test_an_unreachable_store_fails_asset_and_check_by_name(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.run()
    monkeypatch.setenv("CRYPTOML_ONLINE_STORE", "redis://:s3cret@127.0.0.1:1/0")
    settings.cache_clear()
    result = room.run(expect=False)
    (failure,) = result.get_step_failure_events()
    text = str(failure.step_failure_data.error)
    assert "online store redis://127.0.0.1:1/0 (CRYPTOML_ONLINE_STORE)" in text
    assert "FeatureStoreError" in text
    assert "s3cret" not in text
    for event in result.all_events:
        assert "s3cret" not in str(event)
