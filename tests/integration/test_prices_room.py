"""raw_prices from a real venue into a real lake, in process, with its checks."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import LakeError, UnknownSymbolError, WorldUnreachableError
from cryptoml_assets.partitions import daily
from cryptoml_assets.prices.assets import raw_prices
from cryptoml_assets.prices.bars import SCHEMA
from cryptoml_assets.prices.checks import raw_prices_quality
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from tests.sandbox_server import SandboxServer, sandbox

pytestmark = pytest.mark.long

NOW = "2024-01-03T00:07:00Z"
DAYS = [date(2024, 1, day) for day in (1, 2, 3)]
#: Per symbol: two full days, and the bar that closed at 00:05 of the third.
CLOSED = 2 * 288 + 1
Configure = Callable[..., None]


@dg.asset(partitions_def=daily, backfill_policy=dg.BackfillPolicy.single_run())
def downstream(context: dg.AssetExecutionContext, raw_prices: pl.LazyFrame) -> None:
    context.add_output_metadata({"rows": raw_prices.collect().height})


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"CRYPTOML_{name.upper()}", value)
        settings.cache_clear()

    change(symbols="BTC/USDT,ETH/USDT", retry_delays="0.01,0.02,0.04", now=NOW)
    return change


@pytest.fixture
def world(configure: Configure) -> Iterator[SandboxServer]:
    with sandbox(now=NOW) as server:
        configure(venue_url=server.url)
        yield server


def materialise(
    *assets: dg.AssetsDefinition,
    days: Sequence[date] = DAYS,
    fails: bool = False,
    run_config: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [raw_prices, raw_prices_quality, *assets],
        tags={
            "dagster/asset_partition_range_start": str(days[0]),
            "dagster/asset_partition_range_end": str(days[-1]),
        },
        resources={"lake": LakeIOManager(uri=settings().lake_uri)},
        raise_on_error=not fails,
        run_config=run_config,
    )


def data_versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The last version told of each partition."""
    events = result.asset_materializations_for_node("raw_prices")
    return {
        str(event.partition): event.tags["dagster/data_version"]
        for event in events
        if event.tags and "dagster/data_version_is_user_provided" in event.tags
    }


def lake() -> Lake:
    return Lake(settings().lake_uri)


def stored() -> pl.DataFrame:
    return lake().scan("raw_prices").collect()


def by_check(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def test_a_range_run_stores_every_closed_bar_of_its_days(world: SandboxServer) -> None:
    result = materialise(downstream)
    bars = stored()
    assert bars.schema == SCHEMA
    assert bars.height == 2 * CLOSED
    assert bars["source"].unique().to_list() == ["simulated"]
    assert bars["close_time"].max() == datetime(2024, 1, 3, 0, 5, tzinfo=UTC)
    checks = by_check(result)
    blocking = {name for name, check in checks.items() if check.blocking}
    assert blocking >= {"schema", "unique_keys", "sound_bars", "complete_days"}
    assert all(check.passed for check in checks.values())
    handed_on = result.asset_materializations_for_node("downstream")
    assert [day.partition for day in handed_on] == [str(day) for day in DAYS]
    assert {day.metadata["rows"].value for day in handed_on} == {2 * CLOSED}


def test_the_run_says_what_it_stored(world: SandboxServer) -> None:
    metadata = materialise().asset_materializations_for_node("raw_prices")[0].metadata
    assert metadata["dagster/row_count"].value == 2 * CLOSED
    assert metadata["new_bars"].value == 2 * CLOSED
    assert metadata["changed_bars"].value == 0
    assert metadata["requests"].value == 4, "markets, time and a page for each symbol"
    assert abs(float(str(metadata["clock_skew_seconds"].value))) < 1
    assert metadata["run_completeness"].value == 1.0
    assert metadata["source"].value == "simulated"
    assert f"| BTC/USDT | {CLOSED} | {CLOSED} | 0 |" in str(metadata["symbols"].value)
    assert metadata["gaps_total"].value == 0
    for picture in ("closes", "coverage"):
        assert str(metadata[picture].value).startswith("![plot](data:image/png;base64,iVBOR")
    definition = raw_prices.metadata_by_key[raw_prices.key]["dagster/column_schema"]
    assert {column.name: column.type for column in definition.columns} == {
        name: str(kind) for name, kind in SCHEMA.items()
    }
    assert all(column.description for column in definition.columns)


def test_each_day_says_how_complete_it_is_and_gaps_are_listed(configure: Configure) -> None:
    quiet = {"ETH/USDT": [["2024-01-02T03:00:00Z", "2024-01-02T09:00:00Z"]]}
    with sandbox(now=NOW, quiet=quiet) as world:
        configure(venue_url=world.url)
        result = materialise(fails=True)
    days = result.asset_materializations_for_node("raw_prices")
    metadata = {day.partition: day.metadata for day in days if "expected" in day.metadata}
    figures = ("expected", "received", "missing", "completeness")
    assert [[metadata[str(day)][name].value for name in figures] for day in DAYS] == [
        [576, 576, 0, 1.0],
        [576, 504, 72, 0.75],
        [2, 2, 0, 1.0],
    ]
    first = days[0].metadata
    assert first["run_completeness"].value == pytest.approx(505 / 577)
    assert first["gaps_total"].value == 1
    assert "| ETH/USDT | 2024-01-02 03:00:00" in str(first["gaps"].value)
    assert "| nothing_traded | 72 |" in str(first["gaps"].value)


def test_only_days_whose_bars_changed_get_another_data_version(
    world: SandboxServer, configure: Configure
) -> None:
    first = data_versions(materialise())
    configure(symbols="BTC/USDT,ETH/USDT,SOL/USDT")
    second = data_versions(materialise(days=DAYS[1:]))
    again = data_versions(materialise(days=DAYS))
    assert set(first) == {str(day) for day in DAYS}
    assert first["2024-01-02"] != second["2024-01-02"] == again["2024-01-02"]
    assert again["2024-01-01"] != first["2024-01-01"], "its bars of SOL/USDT came with this run"


def test_refetch_reads_settled_days_again(world: SandboxServer) -> None:
    materialise()
    truth = stored()
    lake().replace_days("raw_prices", truth.with_columns(volume=pl.col("volume") + 1), DAYS)
    refetch = {"ops": {"raw_prices": {"config": {"refetch": True}}}}
    result = materialise(run_config=refetch)
    assert_frame_equal(stored(), truth)
    metadata = result.asset_materializations_for_node("raw_prices")[0].metadata
    assert metadata["changed_bars"].value == 2 * CLOSED


def test_a_second_run_changes_no_row_and_commits_nothing(world: SandboxServer) -> None:
    materialise()
    version, before = lake().version("raw_prices"), stored()
    result = materialise()
    assert lake().version("raw_prices") == version
    assert_frame_equal(stored(), before)
    assert result.asset_materializations_for_node("raw_prices")[0].metadata["new_bars"].value == 0


def test_a_top_up_adds_the_bars_that_closed_since(
    world: SandboxServer, configure: Configure
) -> None:
    materialise()
    before = stored()
    later = datetime(2024, 1, 3, 0, 21, tzinfo=UTC)
    world.move_to(later)
    configure(now=later.isoformat())
    materialise(days=DAYS[2:])
    after = stored()
    assert after.height == before.height + 2 * 3
    assert after["close_time"].max() == later - timedelta(minutes=1)
    keys = ["symbol", "open_time"]
    assert_frame_equal(after.join(before, on=keys, how="semi"), before, check_row_order=False)


def test_a_venue_that_is_down_fails_with_address_and_partition_and_harms_nothing(
    world: SandboxServer, configure: Configure
) -> None:
    materialise()
    version, before = lake().version("raw_prices"), stored()
    with sandbox(now=NOW, faults={"unavailable": 1.0}) as down:
        configure(venue_url=down.url)
        with pytest.raises(WorldUnreachableError) as caught:
            materialise(days=DAYS[1:])
    assert str(caught.value).startswith(
        f"binance at {down.url}: markets for raw_prices 2024-01-02 .. 2024-01-03: "
    )
    assert "after 4 attempts" in str(caught.value)
    assert lake().version("raw_prices") == version
    assert_frame_equal(stored(), before)


def test_an_unknown_symbol_fails_before_anything_is_stored(
    world: SandboxServer, configure: Configure
) -> None:
    configure(symbols="BTC/USDT,ETH/USTD")
    with pytest.raises(UnknownSymbolError, match=r"ETH/USTD \(close: .*ETH/USDT"):
        materialise()
    assert not lake().exists("raw_prices")


def test_too_few_bars_of_a_closed_day_stop_what_is_downstream(
    world: SandboxServer, configure: Configure
) -> None:
    silent = ["2024-01-01T12:00:00Z", "2024-01-01T14:00:00Z"]
    with sandbox(now=NOW, quiet={"BTC/USDT": [silent]}) as lossy:
        configure(venue_url=lossy.url)
        result = materialise(downstream, fails=True)
    check = by_check(result)["complete_days"]
    assert not check.passed
    shown = str(check.metadata["first_offending"].value)
    assert "| 2024-01-01 | BTC/USDT | 288 | 264 |" in shown
    assert "2024-01-03" not in shown, "the day in progress is not complete yet"
    assert not result.asset_materializations_for_node("downstream")


def test_bad_rows_in_the_table_fail_their_checks_and_name_them(world: SandboxServer) -> None:
    materialise()
    bars = stored()
    upside_down = bars.head(1).with_columns(high=pl.col("low") / 2)
    lake().replace_days("raw_prices", pl.concat([upside_down, bars]), DAYS)
    result = dg.materialize(
        [raw_prices, raw_prices_quality],
        selection=dg.AssetSelection.all_asset_checks(),
        resources={"lake": LakeIOManager(uri=settings().lake_uri)},
        raise_on_error=False,
    )
    checks = by_check(result)
    assert checks["schema"].passed
    assert checks["complete_days"].passed
    assert not checks["unique_keys"].passed
    assert not checks["sound_bars"].passed
    assert "2024-01-01 00:00" in str(checks["sound_bars"].metadata["first_offending"].value)


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": "2024-01-02"},
        {
            "dagster/asset_partition_range_start": "2024-01-02",
            "dagster/asset_partition_range_end": "2024-01-03",
        },
    ],
)
def test_checks_repeated_alone_look_at_the_days_of_their_run(
    world: SandboxServer, tags: dict[str, str]
) -> None:
    materialise()
    bars = stored()
    upside_down = pl.col("high").mul(pl.when(pl.col("date") < DAYS[1]).then(0.5).otherwise(1))
    lake().replace_days("raw_prices", bars.with_columns(high=upside_down), DAYS)
    result = dg.materialize(
        [raw_prices, raw_prices_quality],
        selection=dg.AssetSelection.all_asset_checks(),
        tags=tags,
        resources={"lake": LakeIOManager(uri=settings().lake_uri)},
    )
    assert {check.passed for check in by_check(result).values()} == {True}


def test_worlds_do_not_mix_in_one_lake(
    world: SandboxServer, configure: Configure, tmp_path: Path
) -> None:
    configure(lake=str(tmp_path / "shared"))
    materialise()
    before = stored()
    configure(world="replay")
    with pytest.raises(LakeError, match="raw_prices holds simulated bars"):
        materialise()
    assert_frame_equal(stored(), before)


def test_a_day_without_a_closed_bar_yet_is_stored_empty(
    world: SandboxServer, configure: Configure
) -> None:
    world.move_to(datetime(2024, 1, 3, 0, 2, tzinfo=UTC))
    configure(now="2024-01-03T00:02:00Z")
    result = materialise(days=DAYS[2:])
    assert stored().height == 0
    assert all(check.passed for check in by_check(result).values() if check.blocking)
    metadata = result.asset_materializations_for_node("raw_prices")[0].metadata
    assert metadata["run_completeness"].value is None
    assert "completeness" not in metadata


def test_the_newest_day_is_topped_up_and_the_day_just_ended_completed() -> None:
    defs = dg.Definitions([raw_prices], resources={"lake": LakeIOManager(uri="unused")})
    requested: dict[str, list[str]] = {}
    cursor = None
    with dg.DagsterInstance.ephemeral() as instance:
        for minute in range(-4, 8):
            at = datetime(2024, 1, 3, tzinfo=UTC) + timedelta(minutes=minute, seconds=10)
            result = dg.evaluate_automation_conditions(
                defs,
                instance,
                asset_selection=dg.AssetSelection.assets(raw_prices),
                cursor=cursor,
                evaluation_time=at,
            )
            cursor = result.cursor
            if days := result.get_requested_partitions(raw_prices.key):
                requested[f"{at:%H:%M}"] = sorted(str(day) for day in days)
    assert list(requested) == ["00:00", "00:05"]
    assert all(days == ["2024-01-02", "2024-01-03"] for days in requested.values())
