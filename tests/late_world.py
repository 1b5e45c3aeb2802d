"""The graph of features over raw tables that a test writes, watched by the automation."""

import shutil
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from cryptoml_assets import reads
from cryptoml_assets.cadence import follow_all
from cryptoml_assets.features import assets
from cryptoml_assets.features.compute import price_features as compute_price
from cryptoml_assets.features.feature import Table
from cryptoml_assets.monitoring.sensors import keep_fresh
from cryptoml_assets.partitions import daily, partition_days
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake, Stored
from cryptoml_assets.settings import settings
from cryptoml_assets.versions import version_events, versioned
from tests.feature_data import BAR, make_bars, make_blocks, make_metrics, midnight, some_days

COUNT = 16
DAYS = some_days(COUNT)
TODAY = DAYS[-1]
NOW = midnight(TODAY) + timedelta(hours=19)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
RAW = ("raw_prices", "network_metrics", "onchain_blocks")
FEATURES = ("price_features", "onchain_features")
#: What a day of each feature table is computed from.
READS: dict[Table, reads.Reads] = {
    "price_features": assets._PRICE_READS,
    "onchain_features": assets._ONCHAIN_READS,
}
Requested = dict[str, list[date]]
#: What the world outside holds of each table; a run over days stores what it holds of them.
WORLD: dict[str, pl.DataFrame] = {}
SOUND = {"raw_prices": True}


def raw_asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="lake",
    )
    def raw(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
    ) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
        days = partition_days(context)
        rows = WORLD[name].filter(pl.col("date").is_in(days))
        stored = lake.lake.rewrite_days(name, days, lambda _: rows, rows.schema)
        yield from versioned(stored, lake.lake, context.asset_key, days, metadata={})

    return raw


@dg.asset_check(asset="raw_prices", blocking=True)
def sound_prices() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=SOUND["raw_prices"])


@dg.asset(deps=FEATURES, automation_condition=follow_all)
def follower() -> None:
    """Stands for what is made of all days of features."""


def definitions_over(home: Path, *jobs: object, checked: bool = True) -> dg.Definitions:
    return dg.Definitions(
        assets=[*map(raw_asset, RAW), *dg.load_assets_from_modules([assets]), follower],
        asset_checks=[sound_prices] if checked else [],
        jobs=jobs,
        sensors=[keep_fresh],
        resources={"lake": LakeIOManager(uri=str(home / "lake"))},
    )


class House:
    """The graph over one home folder, watched tick by tick."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.lake = Lake(str(home / "lake"))
        self._home = home
        self.definitions = definitions_over(home)
        self.instance = instance
        self._cursor: dg.AssetDaemonCursor | None = None

    def run(self, *names: str, days: Sequence[date] = (), expect: bool = True) -> None:
        """One run over ``days``, which have no gaps, with the checks of what it makes."""
        tags = {}
        if days:
            tags = {
                "dagster/asset_partition_range_start": days[0].isoformat(),
                "dagster/asset_partition_range_end": days[-1].isoformat(),
            }
        selection = dg.AssetSelection.assets(*names)
        job = self.over(dg.define_asset_job("job", selection))
        result = job.resolve_job_def("job").execute_in_process(
            instance=self.instance, tags=tags, raise_on_error=expect
        )
        assert result.success is expect

    def over(self, job: object) -> dg.Definitions:
        return definitions_over(self._home, job)

    def tick(self, at: datetime = NOW) -> Requested:
        """What the automation asks for now, in days of each asset."""
        result = dg.evaluate_automation_conditions(
            self.definitions,
            self.instance,
            asset_selection=dg.AssetSelection.assets(*FEATURES, follower),
            evaluation_time=at,
            cursor=self._cursor,
        )
        self._cursor = result.cursor
        found = {
            name: sorted(result.get_requested_partitions(dg.AssetKey(name)), key=str)
            for name in (*FEATURES, "follower")
        }
        return {
            name: [date.fromisoformat(key) for key in keys if key]
            for name, keys in found.items()
            if keys
        }

    def settle(self) -> list[Requested]:
        """Run what is asked for until nothing is."""
        asked = []
        while requested := self.tick():
            asked.append(requested)
            for name, days in requested.items():
                for part in unbroken(days):
                    self.run(name, days=part)
        return asked

    def store(self, table: str, rows: pl.DataFrame) -> list[date]:
        """Put ``rows`` into the lake, told to nobody; the days they are of."""
        days = sorted(rows["date"].unique())
        self.lake.replace_days(table, rows, days)
        return days

    def tell(self, table: str, days: Sequence[date], inputs: dict[date, str] | None = None) -> None:
        """What the run that stored ``days`` tells Dagster of them."""
        told: dict[date, dict[str, object]] = {day: {} for day in days}
        for event in version_events(self.lake, dg.AssetKey(table), told, inputs=inputs):
            self.instance.report_runless_asset_event(event)

    def rows(self, table: str) -> pl.DataFrame:
        return self.lake.scan(table).collect()


def unbroken(days: Sequence[date]) -> list[list[date]]:
    """``days`` in stretches without gaps."""
    parts: list[list[date]] = [[]]
    for day in days:
        if parts[-1] and day - parts[-1][-1] > timedelta(days=1):
            parts.append([])
        parts[-1].append(day)
    return parts


def use(monkeypatch: pytest.MonkeyPatch, home: Path, now: datetime = NOW) -> None:
    monkeypatch.setenv("CRYPTOML_NOW", now.isoformat())
    monkeypatch.setenv("CRYPTOML_LAKE", str(home / "lake"))
    monkeypatch.setenv("CRYPTOML_SYMBOLS", ",".join(SYMBOLS))
    settings.cache_clear()


def fresh_world() -> None:
    bars = make_bars(COUNT, SYMBOLS).filter(pl.col("close_time") <= NOW)
    metrics = make_metrics(COUNT).filter(pl.col("available_at") <= NOW)
    blocks = make_blocks(COUNT).filter(pl.col("timestamp") <= NOW)
    WORLD.update(raw_prices=bars, network_metrics=metrics, onchain_blocks=blocks)
    SOUND["raw_prices"] = True


def revise(day: date, symbol: str = "ETH/USDT", factor: float = 1.01) -> datetime:
    """Another close of the bar that ends at ten o'clock; that instant."""
    at = midnight(day) + timedelta(hours=10)
    bar = (pl.col("close_time") == at) & (pl.col("symbol") == symbol)
    close = pl.when(bar).then(pl.col("close") * factor).otherwise("close")
    WORLD["raw_prices"] = WORLD["raw_prices"].with_columns(close.alias("close"))
    return at


def bits(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in order, floats as the integers of their bits."""
    floats = [name for name, kind in rows.schema.items() if kind == pl.Float64]
    kept = rows.sort("symbol", "event_timestamp")
    return kept.with_columns(
        pl.Series(name, kept[name].fill_null(float("nan")).to_numpy().view(np.int64))
        for name in floats
    )


def recomputed() -> pl.DataFrame:
    return compute_price(WORLD["raw_prices"], DAYS, BAR)


def fill(house: House, days: Sequence[date]) -> None:
    """A row on every day of every table, told of as a run would: of on-chain days the newest.

    Only the rows of ``raw_prices`` are there; of the other tables just the log.
    """
    rows = pl.DataFrame({"value": 1.0, "date": days}, schema_overrides={"date": pl.Date})
    house.store("raw_prices", rows)
    for table in (*RAW[1:], *FEATURES):
        log = Path(house.lake.address("raw_prices"), "_delta_log")
        shutil.copytree(log, Path(house.lake.address(table), "_delta_log"))
    for table in RAW:
        house.tell(table, days[-2:])
    for table, count in (("price_features", len(days)), ("onchain_features", 100)):
        told = days[-count:]
        house.tell(table, told, READS[table].versions(house.lake, told, settings().clock()))
