"""Late, revised and imported rows flow on to exactly the days that are made of them."""

import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets import reads, versions
from cryptoml_assets.errors import LakeError
from cryptoml_assets.features import assets
from cryptoml_assets.features.pins import FORMULAS, refuse_other_formulas
from cryptoml_assets.features.training_assets import training_set
from cryptoml_assets.monitoring.sensors import keep_fresh
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.settings import settings
from tests.feature_data import make_bars, midnight, some_days
from tests.late_world import (
    COUNT,
    DAYS,
    FEATURES,
    NOW,
    RAW,
    READS,
    SOUND,
    SYMBOLS,
    TODAY,
    WORLD,
    House,
    bits,
    definitions_over,
    fill,
    fresh_world,
    recomputed,
    revise,
    use,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose lake holds all days, as ``cryptoml backfill`` leaves it."""
    home = tmp_path_factory.mktemp("built")
    fresh_world()
    with pytest.MonkeyPatch.context() as patch:
        use(patch, home)
        with dg.DagsterInstance.ephemeral() as instance:
            house = House(home, instance)
            house.run(*RAW, *FEATURES, days=DAYS)
            assert house.tick() == {}
    settings.cache_clear()
    return home


@pytest.fixture
def house(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    home = tmp_path / "home"
    shutil.copytree(built, home)
    fresh_world()
    use(monkeypatch, home)
    with dg.DagsterInstance.ephemeral() as instance:
        house = House(home, instance)
        for table in RAW:
            house.tell(table, DAYS)
        for table, read in READS.items():
            house.tell(table, DAYS, read.versions(house.lake, DAYS, NOW))
        house.run("raw_prices", days=DAYS[-1:])
        yield house


def test_nothing_is_asked_for_after_all_days_were_computed(house: House) -> None:
    assert house.tick() == {}
    assert house.tick() == {}


def test_reading_the_same_rows_again_asks_for_nothing(house: House) -> None:
    house.tick()
    house.run(*RAW, days=DAYS[-2:])
    house.run("raw_prices", days=DAYS)
    assert house.tick() == {}


def test_a_revised_bar_asks_for_the_days_its_windows_reach_and_no_other(house: House) -> None:
    house.tick()
    revise(DAYS[5])
    house.run("raw_prices", days=DAYS[5:6])
    assert house.tick() == {"price_features": [DAYS[5], DAYS[6]]}
    assert house.tick() == {}


def test_a_run_that_died_before_it_told_of_its_days_is_made_up_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.tick()
    revise(DAYS[5])
    house.run("raw_prices", days=DAYS[5:6])

    def die(*_: object, **__: object) -> None:
        raise ConnectionError("the store went away")

    with monkeypatch.context() as patch:
        patch.setattr(versions, "version_events", die)
        house.run("price_features", days=DAYS[5:7], expect=False)
    assert house.tick()["price_features"] == [DAYS[5], DAYS[6]]


def test_other_formulas_ask_for_every_day_that_was_computed(house: House) -> None:
    house.tick()
    read = dataclasses.replace(READS["price_features"], code="other formulas")
    house.tell("price_features", DAYS[3:], read.versions(house.lake, DAYS, NOW))
    assert house.tick() == {"price_features": list(DAYS[3:])}


def test_rows_of_other_formulas_are_neither_learnt_from_nor_brought_online(house: House) -> None:
    house.run(*FEATURES, days=DAYS)
    refuse_other_formulas(house.instance, DAYS)
    told = dg.AssetMaterialization(
        "price_features", partition=DAYS[5].isoformat(), metadata={FORMULAS: "others"}
    )
    house.instance.report_runless_asset_event(told)
    said = "1 days of price_features, 2024-01-06 to 2024-01-06, were computed by other formulas"
    with pytest.raises(LakeError, match=said):
        refuse_other_formulas(house.instance, DAYS)
    refuse_other_formulas(house.instance, DAYS[6:])
    with pytest.raises(LakeError, match=said):
        training_set(
            dg.build_asset_context(instance=house.instance),
            lake=LakeIOManager(uri=house.lake.uri),
        )


def test_a_new_bar_asks_for_today_alone(house: House) -> None:
    house.tick()
    later = NOW + timedelta(minutes=5)
    bars = make_bars(COUNT, SYMBOLS)
    WORLD["raw_prices"] = bars.filter(pl.col("close_time") <= later)
    house.run("raw_prices", days=DAYS[-2:])
    assert house.tick(later) == {"price_features": [TODAY]}


def test_after_a_revision_every_stored_row_is_that_of_a_full_recomputation(house: House) -> None:
    before, files = house.rows("price_features"), house.lake.day_versions("price_features")
    at = revise(DAYS[5])
    house.run("raw_prices", days=DAYS[5:6])
    asked = house.settle()
    assert asked[0] == {"price_features": [DAYS[5], DAYS[6]]}
    after = house.rows("price_features")
    assert bits(after).equals(bits(recomputed()))
    rewritten = house.lake.day_versions("price_features")
    assert {day for day in DAYS if rewritten[day] != files[day]} == {DAYS[5], DAYS[6]}
    longest = READS["price_features"].tables["raw_prices"] * timedelta(days=1)
    outside = ~pl.col("event_timestamp").is_between(at, at + longest)
    assert bits(after.filter(outside)).equals(bits(before.filter(outside)))
    assert not bits(after).equals(bits(before))


def test_replaced_blocks_ask_for_the_days_their_windows_reach(house: House) -> None:
    house.tick()
    other = pl.when(pl.col("date") == DAYS[3]).then(pl.col("gas_used") + 1).otherwise("gas_used")
    WORLD["onchain_blocks"] = WORLD["onchain_blocks"].with_columns(other.alias("gas_used"))
    days = house.store("onchain_blocks", WORLD["onchain_blocks"].filter(date=DAYS[3]))
    house.tell("onchain_blocks", days)
    reach = READS["onchain_features"].tables["onchain_blocks"]
    assert house.tick() == {"onchain_features": list(DAYS[3 : 4 + reach])}


def test_revised_metrics_ask_for_the_days_their_windows_reach(house: House) -> None:
    house.tick()
    other = pl.when(pl.col("date") == DAYS[8]).then(99.0).otherwise("nvt_ratio")
    WORLD["network_metrics"] = WORLD["network_metrics"].with_columns(other.alias("nvt_ratio"))
    house.run("network_metrics", days=DAYS[8:9])
    assert house.tick() == {"onchain_features": list(DAYS[8:])}


def test_imported_bars_flow_on_once_the_checks_of_their_table_have_passed(house: House) -> None:
    house.tick()
    revise(DAYS[2])
    days = house.store("raw_prices", WORLD["raw_prices"].filter(date=DAYS[2]))
    house.tell("raw_prices", days)
    assert house.tick() == {}
    SOUND["raw_prices"] = False
    house.run("raw_prices", days=DAYS[-2:], expect=False)
    assert house.tick() == {}
    SOUND["raw_prices"] = True
    house.run("raw_prices", days=DAYS[-2:])
    assert house.tick() == {"price_features": [DAYS[2], DAYS[3]]}


def test_what_a_killed_run_left_in_the_lake_flows_on_though_nobody_told_of_it(house: House) -> None:
    house.tick()
    revise(DAYS[4])
    house.store("raw_prices", WORLD["raw_prices"].filter(date=DAYS[4]))
    assert house.tick() == {"price_features": [DAYS[4], DAYS[5]]}


def test_rows_of_features_that_are_not_those_told_of_are_computed_again(house: House) -> None:
    house.tick()
    rows = house.rows("price_features").filter(date=DAYS[7])
    house.store("price_features", rows.with_columns(pl.col("rsi") + 1.0))
    assert house.tick() == {"price_features": [DAYS[7]]}


def test_a_change_while_features_are_computed_is_not_lost(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.tick()
    compute = assets._price_rows

    def overtaken(reading: reads.Reading, days: Sequence[date]) -> tuple[pl.DataFrame, ...]:
        rows = compute(reading, days)
        revise(DAYS[5], factor=1.02)
        house.store("raw_prices", WORLD["raw_prices"].filter(date=DAYS[5]))
        return rows

    monkeypatch.setattr(assets, "_price_rows", overtaken)
    house.run("price_features", days=DAYS[4:7])
    monkeypatch.undo()
    use(monkeypatch, Path(house.lake.uri).parent)
    assert house.settle()[0] == {"price_features": [DAYS[5], DAYS[6]]}
    assert bits(house.rows("price_features")).equals(bits(recomputed()))


def test_a_failed_day_is_asked_for_again_after_a_change_or_an_hour(house: House) -> None:
    house.tick()
    revise(DAYS[5])
    house.run("raw_prices", days=DAYS[5:6])
    wanted = {"price_features": [DAYS[5], DAYS[6]]}
    assert house.tick() == wanted
    assert house.tick(NOW + timedelta(minutes=5)) == {}
    revise(DAYS[5], factor=1.03)
    house.run("raw_prices", days=DAYS[5:6])
    assert house.tick(NOW + timedelta(minutes=10)) == wanted
    assert house.tick(NOW + timedelta(minutes=15)) == {}
    assert house.tick(NOW + timedelta(minutes=75)) == wanted


def test_an_on_chain_day_is_asked_for_when_it_can_be_known(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.tick()
    delay = READS["onchain_features"].delay
    assert delay is not None
    known = midnight(TODAY) + timedelta(days=1) + delay
    use(monkeypatch, Path(house.lake.uri).parent, known - timedelta(seconds=1))
    assert "onchain_features" not in house.tick(known - timedelta(seconds=1))
    use(monkeypatch, Path(house.lake.uri).parent, known)
    assert house.tick(known)["onchain_features"] == [TODAY]


def test_history_that_was_never_computed_is_left_to_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_world()
    use(monkeypatch, tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        house = House(tmp_path, instance)
        assert house.tick() == {}
        house.run("raw_prices", days=DAYS)
        assert house.tick() == {"price_features": list(DAYS[-2:])}
        house.run(*RAW[1:], days=DAYS)
        assert house.tick() == {"onchain_features": list(DAYS[-2:])}


def test_days_of_which_it_is_not_known_what_they_were_made_of_stay_unless_open(
    house: House,
) -> None:
    house.tell("price_features", DAYS)
    assert house.tick() == {"price_features": list(DAYS[-2:])}


def test_nothing_is_asked_for_while_what_it_reads_is_being_written(house: House) -> None:
    house.tick()
    revise(DAYS[5])
    house.store("raw_prices", WORLD["raw_prices"].filter(date=DAYS[5]))
    bars = dg.define_asset_job("bars", dg.AssetSelection.assets("raw_prices").without_checks())
    run = house.instance.create_run_for_job(
        house.over(bars).resolve_job_def("bars"),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": DAYS[5].isoformat()},
    )
    assert house.tick() == {}
    house.instance.report_run_canceled(run)
    assert house.tick() == {"price_features": [DAYS[5], DAYS[6]]}


def test_what_follows_all_days_runs_again_when_rows_changed_and_not_else(house: House) -> None:
    house.run("follower")
    house.tick()
    house.run("price_features", days=DAYS[4:8])
    assert house.tick() == {}
    revise(DAYS[5])
    house.run("raw_prices", days=DAYS[5:6])
    assert list(house.tick()) == ["price_features"]
    house.run("price_features", days=DAYS[5:7])
    assert list(house.tick()) == ["follower"]


def test_a_range_in_parts_is_one_commit_of_the_rows_that_it_is_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = {table: house.rows(table) for table in FEATURES}
    for table in FEATURES:
        house.store(table, whole[table].with_columns(source=pl.lit("other")))
    before = {table: house.lake.version(table) for table in FEATURES}
    monkeypatch.setattr(reads, "ROWS_AT_A_TIME", 3_000)
    capfd.readouterr()
    house.run("price_features", days=DAYS)
    assert "5 of 16 days computed, 2880 rows" in capfd.readouterr().err
    monkeypatch.setattr(reads, "ROWS_AT_A_TIME", 12)
    house.run("onchain_features", days=DAYS)
    for table in FEATURES:
        assert house.lake.version(table) == before[table] + 1
        assert bits(house.rows(table)).equals(bits(whole[table]))
    monkeypatch.setattr(reads, "ROWS_AT_A_TIME", 1)
    house.run(*FEATURES, days=DAYS)
    assert house.lake.version("price_features") == before["price_features"] + 1
    assert house.tick() == {}


@pytest.mark.filterwarnings("ignore:Function `AssetSelection.keys` is deprecated")
def test_the_sensor_asks_for_the_days(house: House) -> None:
    revise(DAYS[5])
    house.run("raw_prices", days=DAYS[5:6])
    repository = house.definitions.get_repository_def()
    context = dg.build_sensor_context(house.instance, repository_def=repository)
    told = keep_fresh.evaluate_tick(context)
    asked = [request for request in told.run_requests or () if request.asset_graph_subset]
    subset = asked[0].asset_graph_subset.get_asset_subset(dg.AssetKey("price_features"))
    assert set(subset.subset_value.get_partition_keys()) >= {str(DAYS[5]), str(DAYS[6])}


def test_a_tick_over_a_thousand_days_asks_for_their_events_by_the_hundred(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    days = some_days(1_100)
    now = midnight(days[-1]) + timedelta(hours=1)
    fresh_world()
    use(monkeypatch, tmp_path, now)
    with dg.DagsterInstance.ephemeral() as instance:
        house = House(tmp_path, instance)
        house.definitions = definitions_over(tmp_path, checked=False)
        fill(house, days)
        house.tick(now)
        fetched: list[int] = []

        def fetch(asked: dg.AssetRecordsFilter, limit: int) -> dg.EventRecordsResult:
            fetched.append(limit)
            return found(asked, limit=limit)

        with monkeypatch.context() as patch:
            found = instance.fetch_materializations
            patch.setattr(instance, "fetch_materializations", fetch)
            begin = time.perf_counter()
            nothing = house.tick(now)
            seconds = time.perf_counter() - begin
        assert sum(fetched) >= len(days)
        # A few hundred at a time, for each of the two tables.
        assert len(fetched) <= 2 * math.ceil(len(days) / 500)
        late = house.rows("raw_prices").filter(date=days[300])
        house.store("raw_prices", late.with_columns(pl.col("value") + 1.0))
        assert nothing == {}
        assert house.tick(now) == {"price_features": list(days[300:302])}
    with capsys.disabled():
        sys.stdout.write(f"\none evaluation over {len(days)} days: {seconds:.2f} s\n")
