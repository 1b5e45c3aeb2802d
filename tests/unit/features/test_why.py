import polars as pl
import pytest

from cryptoml_assets.errors import LakeError
from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.why import Why, why
from tests.feature_data import BAR
from tests.holed_bars import BARS, HOLE, HOLED, LEDGER, NOON

BY_NAME = {feature.name: feature for feature in FEATURES}


def reasons(name: str, symbol: str, bars: pl.DataFrame = HOLED) -> tuple[Why, ...]:
    return why(bars, BY_NAME[name], symbol, NOON, BAR, ledger=LEDGER)


def test_a_hole_is_named_with_the_cause_of_the_ledger() -> None:
    assert reasons("sma_20", "BTC/USDT") == (Why("missing_bar", "BTC/USDT", *HOLE, "venue_outage"),)


def test_a_hole_of_bitcoin_is_named_where_others_need_it() -> None:
    (found,) = reasons("beta_btc_48", "ETH/USDT")
    # A return needs the close before, and the two bars missing make three returns missing.
    assert found == Why("other_symbol_missing", "BTC/USDT", *HOLE, "venue_outage")
    assert reasons("sma_20", "ETH/USDT") == ()


def test_bars_before_the_first_one_are_no_hole() -> None:
    begin = NOON - 10 * BAR
    late = BARS.filter(pl.col("open_time") >= begin)
    assert reasons("sma_20", "ETH/USDT", late) == (
        Why("before_history", "ETH/USDT", NOON - 20 * BAR, begin, None),
    )
    known = why(late, BY_NAME["sma_20"], "ETH/USDT", NOON, BAR, history=BARS)
    assert [each.reason for each in known] == ["missing_bar"]


def test_a_price_that_stands_leaves_the_formula_without_a_value() -> None:
    still = BARS.with_columns(pl.lit(5.0).alias(name) for name in ("open", "high", "low", "close"))
    assert reasons("bollinger_position_20", "BTC/USDT", still) == (Why("undefined"),)


def test_a_rank_needs_another_symbol() -> None:
    alone = BARS.filter(pl.col("symbol") == "ETH/USDT")
    (found,) = reasons("rank_log_return_12", "ETH/USDT", alone)
    assert (found.reason, found.symbol) == ("other_symbol_missing", "")


def test_a_row_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LakeError, match="no row of BTC/USDT at 2024-01-02 11:35:00"):
        why(HOLED, BY_NAME["rsi"], "BTC/USDT", HOLE[0] + BAR, BAR)
