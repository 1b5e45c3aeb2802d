"""The proofs as blocking checks over a lake: what they catch, name, and rightly let pass."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from datetime import time as time_of_day
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from cryptoml_assets.features import assets, catalog, checks, proofs
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.partitions import daily
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake, Stored
from cryptoml_assets.settings import settings
from tests.feature_data import (
    BAR,
    DAY,
    FIRST,
    make_bars,
    make_blocks,
    make_metrics,
    midnight,
    some_days,
)
from tests.feature_leaks import NULLS, leaks, suspect

pytestmark = pytest.mark.long

COUNT = 12
DAYS = some_days(COUNT)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
NOW = midnight(FIRST) + (COUNT + 2) * DAY
BARS = make_bars(COUNT, SYMBOLS)
METRICS = make_metrics(COUNT, assets=("btc", "eth"))
BLOCKS = make_blocks(COUNT).with_columns(gas_used=pl.col("gas_used") + pl.col("number") * 1000)
PROVED = dict.fromkeys(proofs.MEANINGS, "")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake of raw rows."""
    monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
    monkeypatch.setenv("CRYPTOML_SYMBOLS", ",".join(SYMBOLS))
    settings.cache_clear()
    lake = Lake(str(tmp_path / "lake"))
    lake.replace_days("raw_prices", BARS, DAYS)
    lake.replace_days("network_metrics", METRICS, DAYS)
    lake.replace_days("onchain_blocks", BLOCKS, DAYS)
    return lake


def store_prices(
    lake: Lake, bars: pl.DataFrame = BARS, features: tuple[Feature, ...] | None = None
) -> pl.DataFrame:
    rows = price_features(bars, DAYS, BAR, features or catalog.features_of("price_features"))
    lake.replace_days("price_features", rows, DAYS)
    return rows


def store_onchain(
    lake: Lake, metrics: pl.DataFrame = METRICS, features: tuple[Feature, ...] | None = None
) -> pl.DataFrame:
    rows = onchain_features(
        metrics,
        BLOCKS,
        SYMBOLS,
        DAYS,
        delay=max(settings().metrics_lag, settings().finality_delay),
        now=NOW,
        features=features or catalog.features_of("onchain_features"),
    )
    lake.replace_days("onchain_features", rows, DAYS)
    return rows


def faults(check: Callable[..., Iterator[dg.AssetCheckResult]], lake: Lake) -> dict[str, str]:
    """What each check of an asset says is wrong; nothing where it has passed."""
    results = check(dg.build_asset_check_context(), lake=LakeIOManager(uri=lake.uri))
    return {each.check_name: "" if each.passed else each.description for each in results}


def catalog_of(monkeypatch: pytest.MonkeyPatch, features: tuple[Feature, ...]) -> None:
    monkeypatch.setattr(catalog, "FEATURES", features)


def test_what_was_computed_is_proved(lake: Lake) -> None:
    store_prices(lake)
    store_onchain(lake)
    assert faults(checks.exact_prices, lake) == faults(checks.exact_onchain, lake) == PROVED


def test_without_rows_there_is_nothing_to_prove(lake: Lake) -> None:
    for table, raw in (("price_features", ["raw_prices"]), ("onchain_features", [])):
        rows = {"price_features": store_prices, "onchain_features": store_onchain}[table](lake)
        for name, days in ((table, rows), *((name, BARS) for name in raw)):
            lake.replace_days(name, days.clear(), DAYS)
    assert faults(checks.exact_prices, lake) == faults(checks.exact_onchain, lake) == PROVED
    context = dg.build_asset_check_context()
    assert checks.one_row_per_bar(context, lake=LakeIOManager(uri=lake.uri)).passed


def test_every_proof_of_both_tables_is_blocking() -> None:
    for check in (checks.exact_prices, checks.exact_onchain):
        specs = {spec.name: spec.blocking for spec in check.check_specs}
        assert specs == dict.fromkeys(proofs.MEANINGS, True)


@pytest.mark.parametrize("name", sorted(leaks("close")))
def test_a_price_feature_that_leaks_fails_its_check_by_name(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    term, proof = leaks("close")[name]
    features = suspect(term, "price_features")
    catalog_of(monkeypatch, features)
    # A bar is lost every day, for what makes something of nothing.
    bars = BARS.filter(pl.col("open_time").dt.time() != time_of_day(7, 30))
    lake.replace_days("raw_prices", bars, DAYS)
    store_prices(lake, bars, features)
    assert faults(checks.exact_prices, lake)[proof].startswith("suspect of BTC/USDT at 2024-01-")


@pytest.mark.parametrize("name", sorted(leaks("nvt_ratio")))
def test_a_chain_feature_that_leaks_fails_its_check_by_name(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    term, proof = leaks("nvt_ratio")[name]
    features = suspect(term, "onchain_features")
    catalog_of(monkeypatch, features)
    metrics = METRICS
    if proof == NULLS:
        metrics = METRICS.with_columns(nvt_ratio=None)
        lake.replace_days("network_metrics", metrics.cast({"nvt_ratio": pl.Float64}), DAYS)
    store_onchain(lake, metrics, features)
    assert faults(checks.exact_onchain, lake)[proof].startswith("suspect of ")


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("rsi", float("nan"), "288 not finite"),
        ("macd", None, "288 null without reason"),
        ("null_reason", "undefined", "288 reason without null"),
    ],
)
def test_a_null_without_its_reason_fails_the_check(
    lake: Lake, column: str, value: object, fault: str
) -> None:
    rows = store_prices(lake)
    kind = rows.schema[column]
    at = (pl.col("date") == DAYS[7]) & (pl.col("symbol") == "ETH/USDT")
    wrong = pl.when(at).then(pl.lit(value, kind)).otherwise(column).alias(column)
    lake.replace_days("price_features", rows.with_columns(wrong), DAYS)
    assert faults(checks.exact_prices, lake)["nulls_have_reasons"].startswith(fault)


def test_a_wrong_reason_is_named(lake: Lake) -> None:
    rows = store_prices(lake)
    wrong = pl.col("null_reason").str.replace("before_history", "missing_bar")
    lake.replace_days("price_features", rows.with_columns(wrong), DAYS)
    lake.replace_days("price_features", rows.with_columns(wrong).head(0), DAYS[1:])
    said = faults(checks.exact_prices, lake)["nulls_have_reasons"]
    assert said == (
        "null_reason of BTC/USDT at 2024-01-01 00:05: missing_bar+other_symbol_missing before, "
        "before_history+other_symbol_missing recomputed"
    )


RAW = ("raw_prices", "network_metrics", "onchain_blocks")
#: A stored row is compared with what it was made of, not with what came later.
CAME_LATER = {
    "raw_prices": BARS.with_columns(close=pl.col("close") * 1.001).filter(
        pl.int_range(pl.len()) % 7 != 3
    ),
    "network_metrics": METRICS.with_columns(nvt_ratio=pl.col("nvt_ratio") + 1)[:-1],
    "onchain_blocks": BLOCKS.with_columns(gas_used=pl.col("gas_used") + 1)[:-1],
}


@pytest.fixture
def run(lake: Lake) -> Iterator[Callable[..., dict[str, str]]]:
    """Runs assets or checks over days in Dagster; answers what each failed check says."""
    with dg.DagsterInstance.ephemeral() as instance:

        def execute(selection: dg.AssetSelection, days: Sequence[date] = DAYS) -> dict[str, str]:
            definitions = dg.Definitions(
                assets=[
                    *(dg.AssetSpec(name, partitions_def=daily) for name in RAW),
                    *dg.load_assets_from_modules([assets]),
                ],
                asset_checks=dg.load_asset_checks_from_modules([checks]),
                jobs=[dg.define_asset_job("job", selection)],
                resources={"lake": LakeIOManager(uri=lake.uri)},
            )
            tags = {
                "dagster/asset_partition_range_start": days[0].isoformat(),
                "dagster/asset_partition_range_end": days[-1].isoformat(),
            }
            result = definitions.resolve_job_def("job").execute_in_process(
                instance=instance, tags=tags, raise_on_error=False
            )
            evaluations = result.get_asset_check_evaluations()
            assert evaluations, "no check was run"
            return {
                f"{each.asset_key.path[-1]}.{each.check_name}": each.description or "failed"
                for each in evaluations
                if not each.passed
            }

        yield execute


TABLES = dg.AssetSelection.assets("price_features", "onchain_features")
CHECKS = dg.AssetSelection.checks(checks.exact_prices, checks.exact_onchain, checks.one_row_per_bar)


def test_raw_rows_that_change_between_run_and_check_fail_nothing(
    lake: Lake, run: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Lake.replace_parts

    def raced(self: Lake, table: str, *how: object) -> Stored:
        written = stored(self, table, *how)  # type: ignore[arg-type]
        for name, rows in CAME_LATER.items():
            self.replace_days(name, rows, DAYS)
        return written

    monkeypatch.setattr(Lake, "replace_parts", raced)
    assert run(TABLES.required_multi_asset_neighbors() | CHECKS) == {}
    monkeypatch.undo()


def test_checks_repeated_later_look_at_what_the_rows_were_made_of(
    lake: Lake, run: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(TABLES) == {}
    for name, rows in CAME_LATER.items():
        lake.replace_days(name, rows, DAYS)
    assert run(CHECKS) == {}
    assert run(CHECKS, DAYS[4:6]) == {}
    # Without what the run has told, the newest rows would be taken for those it has read.
    monkeypatch.setattr(checks, "versions_read", lambda *_: {})
    assert {name.partition(".")[2] for name in run(CHECKS)} == {"one_row_per_bar", *PROVED}


def test_a_wrong_value_is_named_although_raw_rows_have_changed_since(
    lake: Lake, run: Callable[..., dict[str, str]]
) -> None:
    assert run(TABLES) == {}
    for name, rows in CAME_LATER.items():
        lake.replace_days(name, rows, DAYS)
    day = DAYS[6:7]
    rows = lake.scan("price_features", day).collect()
    at = pl.int_range(pl.len()) == 0
    wrong = pl.when(at).then(pl.col("volatility") * (1 + 1e-15)).otherwise("volatility")
    lake.replace_days("price_features", rows.with_columns(wrong.alias("volatility")), day)
    found = run(CHECKS, day)
    assert set(found) == {
        f"price_features.{name}"
        for name in ("no_look_ahead", "warm_up_suffices", "partition_independent")
    }
    for said in found.values():
        assert said.startswith("volatility of BTC/USDT at 2024-01-07 00:05: ")
        assert ";" not in said


def test_days_of_several_runs_are_each_compared_with_what_they_were_made_of(
    lake: Lake, run: Callable[..., dict[str, str]]
) -> None:
    assert run(TABLES, DAYS[:6]) == {}
    for name, rows in CAME_LATER.items():
        lake.replace_days(name, rows, DAYS)
    assert run(TABLES, DAYS[6:]) == {}
    assert run(CHECKS) == {}


def test_the_run_tells_how_many_values_are_null_for_which_reason(lake: Lake) -> None:
    features = catalog.features_of("price_features")
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [dg.AssetSpec("raw_prices", partitions_def=daily), assets.price_features],
            partition_key=DAYS[0].isoformat(),
            resources={"lake": LakeIOManager(uri=lake.uri)},
            instance=instance,
            selection=[assets.price_features],
        )
    told = result.asset_materializations_for_node("price_features")[-1].metadata
    lines = str(told["null_reasons"].value).splitlines()
    names = {feature.name for feature in features if feature.warmup}
    assert {line.split(" | ")[0].strip("| ") for line in lines[2:]} >= names
    assert "| log_return_3 | before_history | 6 | 1.04% |" in lines
    assert "| beta_btc_48 | other_symbol_missing | 48 | 8.33% |" in lines
    assert told["lake_versions"].value == {"raw_prices": lake.version("raw_prices")}


def test_the_checks_of_all_days_prove_no_more_days_than_a_sample(
    lake: Lake, run: Callable[..., dict[str, str]]
) -> None:
    assert run(TABLES) == {}
    assert len(DAYS) > checks._SAMPLED_DAYS
    manager = LakeIOManager(uri=lake.uri)
    for check in (checks.exact_prices, checks.exact_onchain):
        for each in check(dg.build_asset_check_context(), lake=manager):
            assert each.passed
            proved = each.metadata["days"].value.split(", ")
            assert len(proved) == checks._SAMPLED_DAYS, "the cost is that of a sample"
    assert checks.one_row_per_bar(dg.build_asset_check_context(), lake=manager).passed
