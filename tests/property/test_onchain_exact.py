"""On-chain rows are made of what was published and final by then, and of nothing else."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.features import proofs
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.feature import BLOCKS, METRICS, Feature
from cryptoml_assets.features.lacks import needs
from cryptoml_assets.features.remake import OfChain
from cryptoml_assets.features.terms import Column, Term
from tests.feature_data import make_blocks, make_metrics, some_days
from tests.feature_leaks import NULLS, leaks, suspect

DELAY = timedelta(hours=4)
SYMBOLS = ("BTC/USDT", "ETH/USDT")
DAYS = some_days(20)
EVERY = features_of("onchain_features")
NUMBERS = ("gas_used", "base_fee_per_gas", "transaction_count", "active_addresses")
CHAIN = OfChain(
    SYMBOLS,
    delay=DELAY,
    metrics_lag=DELAY,
    finality_delay=timedelta(hours=1),
    now=datetime(2030, 1, 1, tzinfo=UTC),
)
RAW = {
    "network_metrics": make_metrics(20, assets=("btc", "eth")),
    "onchain_blocks": make_blocks(20).with_columns(
        (pl.col(name) * (1 + (pl.col("number") % 7) / 10)).round().cast(pl.Int64)
        for name in NUMBERS
    ),
}
WHOLE = CHAIN.make(RAW, DAYS)
days = st.integers(min_value=9, max_value=18)


def case(
    recipe: OfChain, day: date, rows: pl.DataFrame | None = None, seed: int = 1
) -> proofs.Case:
    made = recipe.make(RAW, DAYS) if rows is None else rows
    of_day = made.filter(pl.col("date") == day)
    return proofs.Case(recipe, RAW, of_day, day, recipe.cuts(of_day, day, 0), seed)


@settings(max_examples=15, deadline=None)
@given(day=days, seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_every_proof_holds_for_every_feature(day: int, seed: int) -> None:
    found = proofs.proved([case(CHAIN, DAYS[day], WHOLE, seed)])
    assert found == dict.fromkeys(proofs.MEANINGS, ())


@pytest.mark.parametrize("column", ["nvt_ratio", "block_base_fee"])
@pytest.mark.parametrize("name", sorted(set(leaks("nvt_ratio")) - {"silent zero"}))
def test_a_feature_that_leaks_is_caught_and_named(column: str, name: str) -> None:
    term, proof = leaks(column, shared=column in BLOCKS)[name]
    recipe = replace(CHAIN, features=suspect(term, "onchain_features"))
    found = proofs.proved([case(recipe, DAYS[day]) for day in (11, 12, 13)])
    assert str(found[proof][0]).startswith("suspect of ")


def test_a_metric_that_becomes_a_number_where_it_is_missing_is_caught() -> None:
    recipe = replace(
        CHAIN, features=suspect(leaks("mvrv_ratio")["silent zero"][0], "onchain_features")
    )
    (found, *_) = proofs.proved([case(recipe, DAYS[1])])[NULLS]
    assert str(found).startswith("suspect of BTC/USDT at 2024-01-03 04:00: None before, 0.0 ")


@pytest.mark.parametrize("hours", [0, 3])
def test_a_row_that_is_dated_before_its_metrics_are_published_is_caught(hours: int) -> None:
    early = replace(CHAIN, delay=timedelta(hours=hours))
    found = proofs.proved([case(early, DAYS[12])])["no_look_ahead"]
    assert {each.feature for each in found} >= {
        feature.name for feature in EVERY if "network_metrics" in feature.sources
    }


def test_a_row_that_is_dated_before_its_blocks_are_final_is_caught() -> None:
    slow = replace(CHAIN, finality_delay=timedelta(hours=30))
    found = proofs.proved([case(slow, DAYS[12])])["no_look_ahead"]
    assert {each.feature for each in found} >= {
        feature.name for feature in EVERY if "onchain_blocks" in feature.sources
    }


def test_a_wrong_stored_value_is_caught_and_named() -> None:
    at = (pl.col("symbol") == "ETH/USDT") & (pl.col("date") == DAYS[12])
    wrong = pl.when(at).then(pl.col("eth_fee_pressure") + 1e-12).otherwise("eth_fee_pressure")
    rows = WHOLE.with_columns(wrong.alias("eth_fee_pressure"))
    found = proofs.proved([case(CHAIN, DAYS[12], rows)])
    for name in ("no_look_ahead", "warm_up_suffices", "partition_independent"):
        assert str(found[name][0]).startswith("eth_fee_pressure of ETH/USDT at 2024-01-14 04:00: ")
    assert not found[NULLS]


@settings(max_examples=15, deadline=None)
@given(day=days, table=st.sampled_from(sorted(RAW)), gone=st.booleans())
def test_a_revised_day_changes_the_windows_over_it_and_nothing_else(
    day: int, table: str, gone: bool
) -> None:
    of_day, numbers = pl.col("date") == DAYS[day], NUMBERS
    if table == "network_metrics":
        of_day, numbers = of_day & (pl.col("asset") == "eth"), METRICS
    rows = RAW[table]
    other = (
        rows.filter(~of_day)
        if gone
        else rows.with_columns(
            pl.when(of_day)
            .then((pl.col(name) * 3).cast(rows.schema[name]))
            .otherwise(name)
            .alias(name)
            for name in numbers
        )
    )
    after = CHAIN.make({**RAW, table: other}, DAYS)
    of_metrics = table == "network_metrics"
    for feature in EVERY:
        found = changed(after, feature)
        lags = {lag for name, lag in lags_of(feature.term) if (name in METRICS) is of_metrics}
        over = {day + lag for lag in lags if day + lag < len(DAYS)}
        assert {step for _, step in found} <= over, feature.name
        assert {symbol for symbol, _ in found} <= set(SYMBOLS[of_metrics:]), feature.name
        # A share of blocks may stay what it was.
        assert not gone or {step for _, step in found} == over, feature.name


def lags_of(term: Term) -> set[tuple[str, int]]:
    return {
        (key.name, lag)
        for key, steps in needs(term).items()
        for lag in range(steps.bit_length())
        if isinstance(key, Column) and steps >> lag & 1
    }


def changed(after: pl.DataFrame, feature: Feature) -> set[tuple[str, int]]:
    """Symbol and day of every row whose value has other bits."""
    bits = pl.col(feature.name).reinterpret(dtype=pl.Int64).alias("bits")
    both = WHOLE.select("symbol", "date", bits).join(
        after.select("symbol", "date", bits), on=["symbol", "date"]
    )
    apart = both.filter(pl.col("bits").ne_missing(pl.col("bits_right")))
    return {(symbol, (day - DAYS[0]).days) for symbol, day, *_ in apart.iter_rows()}
