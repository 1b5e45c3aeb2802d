"""The drift report: what is judged, against what, and what counts as drift."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from cryptoml_assets.features.catalog import row_inputs
from cryptoml_assets.monitoring import assets
from cryptoml_assets.monitoring.drift import (
    KEY,
    MEANINGS,
    SCHEMA,
    Rules,
    Share,
    drift_report,
    drifted_share,
    recent_windows,
    windows_of_both,
)
from cryptoml_assets.monitoring.drift_figures import distributions, heat_map, most_drifted
from cryptoml_assets.settings import Settings
from tests.drift_worlds import (
    CHANGED,
    DAILY,
    DAYS,
    FIRST,
    LEARNT,
    LEARNT_UNTIL,
    NAMES,
    RULES,
    SPANS,
    SYNTHETIC,
    chain,
    moved,
    report,
    synthetic,
)

NOW = CHANGED + timedelta(days=2)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return synthetic(3)


def judged(table: pl.DataFrame) -> set[tuple[str, str]]:
    return set(table.filter(pl.col("psi").is_not_null()).select(KEY).iter_rows())


def test_only_what_moved_has_drifted(rows: pl.DataFrame) -> None:
    table = report(moved(rows, "quick", 2.0), NOW, SYNTHETIC)
    assert table.schema == SCHEMA
    assert list(MEANINGS) == list(SCHEMA)
    assert table.select(KEY).rows() == sorted(table.select(KEY).rows())
    drifted = table.filter("drifted")
    assert drifted.select(KEY).rows() == [("quick", "BTC/USDT")]
    (row,) = drifted.to_dicts()
    assert row["psi"] > 0.25
    assert row["ks"] > 0.5
    assert row["p_value"] <= row["adjusted_p_value"] <= 0.05
    assert (row["reference_end"], row["window_end"]) == (LEARNT_UNTIL, NOW)
    assert row["window_start"] == NOW - timedelta(days=1)
    assert (row["current_rows"], row["reference_rows"]) == (48, 48 * 48 + 1)
    assert row["source"] == "simulated"
    assert drifted_share(table) == Share(1, len(judged(table)), 0)
    assert not report(rows, NOW, SYNTHETIC)["drifted"].any()


def test_what_is_significant_but_small_is_no_drift(rows: pl.DataFrame) -> None:
    there = moved(rows, "quick", 2.0)
    table = report(there, NOW, SYNTHETIC, replace(RULES, threshold=50.0))
    assert table.filter(pl.col("adjusted_p_value") <= 0.05).height == 1
    assert drifted_share(table).drifted == 0


def test_what_is_large_but_no_more_than_the_past_was_is_no_drift() -> None:
    """The index of a mood alone passes its threshold most of the time."""
    tables = [report(synthetic(seed), NOW, SYNTHETIC) for seed in range(4)]
    volatile = pl.concat(tables).filter(feature="volatility")
    assert (volatile["psi"] > 0.25).mean() > 0.5
    assert drifted_share(pl.concat(tables)).drifted == 0


@pytest.mark.parametrize(
    ("span", "rules", "there"),
    [
        # 48 rows are half of what a value of 96 is about; in less of it hardly anything moves.
        (96, RULES, True),
        (97, RULES, False),
        (1, replace(RULES, minimum=48), True),
        (1, replace(RULES, minimum=49), False),
    ],
)
def test_windows_too_short_for_a_column_judge_nothing(
    rows: pl.DataFrame, span: int, rules: Rules, there: bool
) -> None:
    table = report(moved(rows, "slow", 9.0), NOW, {"slow": span}, rules)
    assert judged(table) == ({("slow", name) for name in NAMES} if there else set())
    assert table["effective_rows"].to_list() == [48 / span] * 2
    assert table.filter("drifted").select(KEY).rows() == [("slow", "BTC/USDT")] * there
    assert drifted_share(table).unjudged == (0 if there else 2)


def test_every_input_of_a_model_is_judged_after_a_history_that_is_stated() -> None:
    """Of bars after 48 days learnt of the default 60, daily ones once the lake holds 240."""
    configured = Settings(_env_file=None)
    assert configured.training_window == timedelta(days=60)
    assert (configured.drift_minimum, configured.drift_significance) == (10, 0.05)
    assert (RULES.minimum, RULES.significance) == (10, 0.05)
    calendar = {"hour_sin", "hour_cos"}
    inputs = {feature.name for feature in row_inputs()}
    assert SPANS.keys() | DAILY.keys() == inputs - calendar == assets._spans().keys()
    bars = bars_of(SPANS, days=LEARNT + 3)
    now = bars["event_timestamp"].max()
    learnt = bars.filter(pl.col("event_timestamp") <= LEARNT_UNTIL)
    for days, waiting in ((DAYS, set()), (60, DAILY.keys())):
        past = chain(1).filter(pl.col("event_timestamp") > LEARNT_UNTIL - timedelta(days=days))
        before = past.filter(pl.col("event_timestamp") <= LEARNT_UNTIL)
        (windows, own), (longer, of_days) = windows_of_both(learnt, before, now, RULES)
        assert windows is not None
        tables = [
            drift_report(learnt, bars, SPANS, windows, own, now=now),
            drift_report(before, past, DAILY, longer, of_days, now=now, symbols=NAMES),
        ]
        table = pl.concat(tables)
        assert {name for name, _ in judged(table)} == inputs - calendar - waiting
        assert drifted_share(table).unjudged == len(NAMES) * len(waiting)
        # Together they may err as often as the settings say, and one alone takes it all.
        levels = [each.significance for each in (own, of_days)][: 1 if waiting else 2]
        assert sum(levels) == RULES.significance
        assert windows.width == timedelta(hours=24 if waiting else 14)
        assert longer is None or longer.width == timedelta(days=3)


def bars_of(names: Collection[str], days: int) -> pl.DataFrame:
    """Noise of one symbol at the default bar."""
    count = timedelta(days=days) // timedelta(minutes=5)
    times = [FIRST + n * timedelta(minutes=5) for n in range(1, count + 1)]
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "symbol": "BTC/USDT",
            "event_timestamp": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            **{name: random.standard_normal(count) for name in names},
            "source": "simulated",
        }
    )


def test_a_daily_input_far_beyond_all_before_has_drifted_within_its_window() -> None:
    """Three values are no farther from a thousand, by their ranks, than the three largest."""
    since = LEARNT_UNTIL + timedelta(hours=1)
    days = moved(chain(1), "eth_base_fee_gwei", 10.0, since)
    before = days.filter(pl.col("event_timestamp") <= LEARNT_UNTIL)
    now, rules = LEARNT_UNTIL + timedelta(days=3), RULES.of_days()
    windows = recent_windows(before, now, rules)
    assert windows is not None
    found = drift_report(before, days, DAILY, windows, rules, now=now).filter("drifted")
    assert found.select(KEY).rows() == [("eth_base_fee_gwei", "BTC/USDT")]
    assert not drift_report(before, chain(1), DAILY, windows, rules, now=now)["drifted"].any()


def test_values_that_are_missing_do_not_count(rows: pl.DataFrame) -> None:
    there = rows.with_columns(
        quick=pl.when(pl.int_range(pl.len()) % 4 > 0).then("quick"),
        moody=pl.when(pl.col("event_timestamp") <= LEARNT_UNTIL).then("moody"),
        volatility=pl.lit(np.nan),
    )
    table = report(there, NOW, dict.fromkeys(SYNTHETIC, 1))
    counts = dict(table.filter(symbol="BTC/USDT").select("feature", "current_rows").iter_rows())
    assert counts == {"quick": 36, "slow": 48, "moody": 0, "volatility": 0}
    assert {name for name, _ in judged(table)} == {"quick", "slow"}


def test_symbols_are_compared_with_their_own_past(rows: pl.DataFrame) -> None:
    ether = pl.col("symbol") == "ETH/USDT"
    apart = rows.with_columns(quick=pl.when(ether).then(pl.col("quick") + 9).otherwise("quick"))
    assert not report(apart, NOW, SYNTHETIC)["drifted"].any()


def test_a_reference_that_holds_the_newest_rows_is_cut_before_them(rows: pl.DataFrame) -> None:
    there = moved(rows, "quick", 2.0).filter(
        pl.col("event_timestamp") <= CHANGED + timedelta(days=1)
    )
    now = there["event_timestamp"].max()
    windows = recent_windows(there, now, RULES)
    assert windows is not None
    table = drift_report(there, there, SYNTHETIC, windows, RULES, now=now)
    assert table["reference_end"].unique().to_list() == [now - timedelta(days=1)]
    assert table.filter("drifted").select(KEY).rows() == [("quick", "BTC/USDT")]


def test_without_enough_past_nothing_is_judged_and_that_is_no_drift(rows: pl.DataFrame) -> None:
    for past in (rows.clear(), rows.head(2)):
        windows = recent_windows(past, NOW, RULES)
        assert windows is None
        table = drift_report(past, rows, SYNTHETIC, windows, RULES, now=NOW)
        assert table.height == 2 * len(SYNTHETIC)
        assert drifted_share(table) == Share(0, 0, table.height)
        assert drifted_share(table).share == 0.0
        assert distributions(past, rows, table) is None
        heat_map(table, 0.25)


def test_the_pairs_that_stand_out_are_drawn_from_their_own_rows(rows: pl.DataFrame) -> None:
    there = moved(rows, "quick", 2.0)
    table = report(there, NOW, SYNTHETIC)
    shown = most_drifted(table)
    assert shown.select(KEY).row(0) == ("quick", "BTC/USDT")
    assert shown["statistic"][1:].is_sorted(descending=True)
    figure = distributions(there, there.filter(pl.col("event_timestamp") > CHANGED), table)
    assert figure is not None
    drawn = [axes for axes in figure.axes if axes.get_title()]
    assert len(drawn) == shown.height
    assert drawn[0].get_title().startswith("quick BTC/USDT\ndrifted")
    # A picture of shares: the bars of either part add up to what is not cut off.
    assert len(heat_map(table, 0.25).axes[0].collections[0].get_offsets()) == 1
