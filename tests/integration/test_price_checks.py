"""The checks of raw_prices against a real venue and a real lake: each sees what it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.prices.assets import raw_prices
from cryptoml_assets.prices.checks import raw_prices_quality
from cryptoml_assets.prices.ingest import run_ingest
from cryptoml_assets.prices.ledger import LEDGER_TABLE
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from tests.sandbox_server import SandboxServer, sandbox

NOW = "2024-01-03T00:07:00Z"
DAYS = [date(2024, 1, day) for day in (1, 2, 3)]
BAR = timedelta(minutes=5)
BLOCKING = {
    "schema",
    "unique_keys",
    "sound_bars",
    "rising_times",
    "ledger_agrees",
    "complete_days",
}
WARNING = {"outliers", "newest_bar", "gaps", "native_days_agree"}
Configure = Callable[..., None]
Checked = dict[str, dg.AssetCheckEvaluation]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"CRYPTOML_{name.upper()}", value)
        settings.cache_clear()

    change(symbols="BTC/USDT,ETH/USDT", retry_delays="0.01,0.02", now=NOW)
    return change


@pytest.fixture
def world(configure: Configure) -> Iterator[SandboxServer]:
    with sandbox(now=NOW) as server:
        configure(venue_url=server.url)
        yield server


def lake() -> Lake:
    return Lake(settings().lake_uri)


def fill() -> pl.DataFrame:
    run_ingest(settings(), lake(), DAYS)
    return lake().scan("raw_prices").collect()


def put(bars: pl.DataFrame) -> None:
    lake().replace_days("raw_prices", bars, DAYS)


def check(days: list[date] | None = DAYS) -> Checked:
    ends = {} if days is None else {"start": str(days[0]), "end": str(days[-1])}
    result = dg.materialize(
        [raw_prices, raw_prices_quality],
        selection=dg.AssetSelection.all_asset_checks(),
        resources={"lake": LakeIOManager(uri=settings().lake_uri)},
        tags={f"dagster/asset_partition_range_{end}": day for end, day in ends.items()},
        raise_on_error=False,
    )
    return {done.check_name: done for done in result.get_asset_check_evaluations()}


def failed(checks: Checked) -> set[str]:
    return {name for name, done in checks.items() if not done.passed}


def shown(done: dg.AssetCheckEvaluation) -> str:
    return str(done.metadata["first_offending"].value)


def where(slot: int, symbol: str = "BTC/USDT") -> pl.Expr:
    opens = datetime(2024, 1, 1, tzinfo=UTC) + slot * BAR
    return (pl.col("open_time") == opens) & (pl.col("symbol") == symbol)


def test_sound_days_pass_all_and_say_what_was_compared(world: SandboxServer) -> None:
    fill()
    for days in (DAYS, None):
        checks = check(days)
        assert set(checks) == BLOCKING | WARNING
        assert failed(checks) == set()
        assert {name for name, done in checks.items() if done.blocking} == BLOCKING
        assert checks["native_days_agree"].metadata["compared"].value == 2, "one day settles yet"


def test_a_bar_that_is_gone_is_a_false_claim_and_shows_in_the_days(world: SandboxServer) -> None:
    bars = fill()
    put(bars.filter(~where(100)))
    checks = check()
    assert failed(checks) == {"ledger_agrees"}
    assert checks["ledger_agrees"].severity == dg.AssetCheckSeverity.ERROR
    assert "| BTC/USDT | 5m | 2024-01-01" in shown(checks["ledger_agrees"])
    assert "| 287 |" in shown(checks["ledger_agrees"])


def test_a_bar_that_the_ledger_does_not_know_of_is_counted(world: SandboxServer) -> None:
    fill()
    known = lake().scan(LEDGER_TABLE).collect()
    lake().replace_days(LEDGER_TABLE, known.filter(pl.col("symbol") != "ETH/USDT"), DAYS)
    checks = check()
    assert failed(checks) == {"complete_days", "gaps"}
    assert checks["ledger_agrees"].metadata["unrecorded_bars"].value == 2 * 288 + 1
    assert checks["gaps"].metadata["bars_by_cause"].value == "not_fetched 577"
    assert "| ETH/USDT | 2024-01-01 00:00:00+00:00 | 2024-01-03 00:05" in shown(checks["gaps"])


def test_other_figures_than_the_venue_has_are_named_by_its_daily_bars(world: SandboxServer) -> None:
    bars = fill()
    put(bars.with_columns(volume=pl.when(where(7)).then(0.0).otherwise("volume")))
    done = check()["native_days_agree"]
    assert (done.passed, done.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert done.metadata["offending"].value == 1
    assert "| BTC/USDT | 2024-01-01 00:00:00+00:00 | volume |" in shown(done)


def test_a_venue_that_does_not_answer_is_a_warning_with_its_reason(
    world: SandboxServer, configure: Configure
) -> None:
    fill()
    with sandbox(now=NOW, faults={"unavailable": 1.0}) as down:
        configure(venue_url=down.url)
        done = check()["native_days_agree"]
    assert (done.passed, done.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"binance at {down.url}: " in shown(done)


def test_a_symbol_that_the_venue_no_longer_knows_is_not_compared(
    world: SandboxServer, configure: Configure
) -> None:
    fill()
    with sandbox(now=NOW, faults={"delisted_after": {"ETH/USDT": 0}}) as later:
        configure(venue_url=later.url)
        done = check()["native_days_agree"]
    assert (done.passed, done.metadata["compared"].value) == (True, 1)


def test_bars_that_contradict_themselves_or_their_times_are_named(world: SandboxServer) -> None:
    bars = fill()
    odd = bars.with_columns(
        high=pl.when(where(3)).then(pl.col("low") / 2).otherwise("high"),
        close_time=pl.when(where(5)).then(pl.col("open_time")).otherwise("close_time"),
    )
    put(pl.concat([odd, odd.filter(where(9))]))
    checks = check()
    assert failed(checks) & BLOCKING == {"unique_keys", "sound_bars", "rising_times"}
    assert "2024-01-01 00:15" in shown(checks["sound_bars"])
    assert "2024-01-01 00:25" in shown(checks["rising_times"])
    assert checks["rising_times"].metadata["offending"].value == 2
    assert "2024-01-01 00:45" in shown(checks["unique_keys"])


def test_a_jump_is_listed_as_an_outlier_and_stops_nothing(world: SandboxServer) -> None:
    bars = fill()
    put(
        bars.with_columns(
            pl.when(where(60))
            .then(pl.col("^(high|close)$") * 2)
            .otherwise(pl.col("^(high|close)$"))
        )
    )
    done = check()["outliers"]
    assert (done.passed, done.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert done.metadata["offending"].value == 2, "there and back"
    assert "2024-01-01 05:00" in shown(done)
    assert "2024-01-01 05:05" in shown(done)


def test_another_schema_fails_all_without_an_error(world: SandboxServer) -> None:
    bars = fill()
    lake().replace_days("raw_prices", bars.with_columns(extra=1), DAYS)
    checks = check()
    assert failed(checks) == BLOCKING | WARNING
    assert "extra: expected no such column" in shown(checks["schema"])


@pytest.mark.parametrize(("minutes", "late"), [(34, False), (46, True)])
def test_bars_that_do_not_come_are_seen_in_runs_of_the_newest_day(
    world: SandboxServer, configure: Configure, minutes: int, late: bool
) -> None:
    fill()
    now = datetime(2024, 1, 3, 0, minutes, tzinfo=UTC)
    configure(now=now.isoformat())
    done = check(DAYS[2:])["newest_bar"]
    assert done.passed is not late
    assert done.severity == dg.AssetCheckSeverity.WARN
    if late:
        assert "| BTC/USDT | 2024-01-03 00:05:00+00:00 |" in shown(done)
    past = check(DAYS[:2])["newest_bar"]
    assert past.passed
    assert "days past" in str(past.metadata["note"].value)


def test_listing_is_no_gap_and_silence_is_one(configure: Configure) -> None:
    quiet = {"ETH/USDT": [["2024-01-02T03:00:00Z", "2024-01-02T03:30:00Z"]]}
    listings = {"BTC/USDT": {"from": "2024-01-01T12:00:00Z"}}
    with sandbox(now=NOW, quiet=quiet, listings=listings) as world:
        configure(venue_url=world.url)
        fill()
        checks = check()
    assert failed(checks) == {"gaps"}
    done = checks["gaps"]
    assert done.severity == dg.AssetCheckSeverity.WARN
    assert done.metadata["bars_by_cause"].value == "listed_later 144, nothing_traded 6"
    assert done.metadata["offending"].value == 1
    assert "| ETH/USDT | 2024-01-02 03:00:00+00:00 | 2024-01-02 03:30" in shown(done)
    assert checks["native_days_agree"].metadata["compared"].value == 2
