from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from cryptoml_sandbox.bars import DAY_MS
from cryptoml_sandbox.market import SimulatedMarket
from cryptoml_sandbox.metrics import METRICS, NETWORKS, SimulatedMetrics
from cryptoml_sandbox.symbols import KNOWN

GENESIS = date(2024, 1, 1)
GENESIS_MS = 1_704_067_200_000
DAYS = 120


def make():
    market = SimulatedMarket(KNOWN, seed=7, signal=1.0, genesis_ms=GENESIS_MS)
    return market, SimulatedMetrics((market,), seed=7, genesis=GENESIS)


def series(metrics, asset, name):
    days = [GENESIS + timedelta(days=k) for k in range(DAYS)]
    return np.asarray([float(metrics.row(asset, day)[name]) for day in days])


def test_each_network_has_the_metrics_that_make_sense_for_it():
    _, metrics = make()
    for asset in NETWORKS:
        assert tuple(metrics.row(asset, GENESIS)) == metrics.metrics[asset]
        assert set(metrics.metrics[asset]) <= set(METRICS)
    assert set(METRICS) - set(metrics.metrics["eth"]) == {"HashRate", "CapMVRVCur", "CapRealUSD"}
    assert {"NVTAdj", "TxTfrValAdjUSD"}.isdisjoint(metrics.metrics["sol"])
    assert set(metrics.metrics["btc"]) == set(METRICS)


def test_the_price_is_the_markets_close():
    market, metrics = make()
    for symbol in KNOWN:
        bars = market.bars(symbol, GENESIS_MS + 9 * DAY_MS, GENESIS_MS + 10 * DAY_MS)
        row = metrics.row(symbol.base.lower(), GENESIS + timedelta(days=9))
        close = bars.close[-1] / 10**symbol.price_decimals
        assert float(row["PriceUSD"]) == pytest.approx(close, rel=1e-9)


def test_values_do_not_depend_on_the_order_asked():
    _, one = make()
    _, other = make()
    days = [GENESIS + timedelta(days=k) for k in (30, 3, 17)]
    assert [one.row("btc", day) for day in days] == [
        other.row("btc", day) for day in reversed(days)
    ][::-1]


def test_there_is_nothing_before_genesis():
    _, metrics = make()
    assert metrics.row("btc", GENESIS - timedelta(days=1)) is None


@pytest.mark.parametrize(
    ("name", "measured"), [("AdrActCnt", 0.105), ("TxCnt", 0.122), ("HashRate", 0.114)]
)
def test_days_differ_as_much_as_real_ones_within_a_factor_of_two(name, measured):
    """Deviation of daily log changes of bitcoin's metrics over the last recorded year."""
    _, metrics = make()
    change = np.diff(np.log(series(metrics, "btc", name)))
    assert measured / 2 < change.std() < measured * 2


def test_a_busy_market_day_is_a_busy_network_day():
    market, metrics = make()
    bars = market.bars(KNOWN[0], GENESIS_MS, GENESIS_MS + DAYS * DAY_MS)
    volume = np.log(bars.volume.reshape(DAYS, 1440).sum(axis=1))
    addresses = np.log(series(metrics, "btc", "AdrActCnt"))
    ratio = np.log(series(metrics, "btc", "NVTAdj"))
    assert np.corrcoef(volume, addresses)[0, 1] > 0.3
    assert np.corrcoef(volume, ratio)[0, 1] < -0.3


def test_the_market_value_moves_with_the_price_and_the_realised_one_hardly():
    _, metrics = make()
    price, value = (series(metrics, "btc", name) for name in ("PriceUSD", "CapMVRVCur"))
    assert value[0] == pytest.approx(1.95, rel=0.02)
    changes = [np.diff(np.log(x)) for x in (price, value)]
    assert np.corrcoef(*changes)[0, 1] > 0.99


@pytest.mark.parametrize("asset", list(NETWORKS))
def test_ratios_are_exactly_those_of_what_is_served(asset):
    _, metrics = make()
    has = metrics.metrics[asset]
    cap = series(metrics, asset, "CapMrktCurUSD")
    assert (cap == series(metrics, asset, "PriceUSD") * series(metrics, asset, "SplyCur")).all()
    for ratio, divisor in (("NVTAdj", "TxTfrValAdjUSD"), ("CapMVRVCur", "CapRealUSD")):
        assert (ratio in has) == (divisor in has)
        if ratio in has:
            made = cap / series(metrics, asset, divisor)
            assert (series(metrics, asset, ratio) == made).all()


def test_supply_grows_as_the_network_issues():
    _, metrics = make()
    supply = series(metrics, "btc", "SplyCur")
    yearly = (supply[-1] / supply[0] - 1) * 365.25 / (DAYS - 1)
    assert yearly == pytest.approx(NETWORKS["btc"].issuance, rel=1e-6)
    assert (np.diff(supply) > 0).all()


def test_the_realised_cap_moves_slower_than_the_market_cap():
    _, metrics = make()
    market, realised = (series(metrics, "btc", name) for name in ("CapMrktCurUSD", "CapRealUSD"))
    moves = [np.diff(np.log(x)).std() for x in (market, realised)]
    assert moves[1] < moves[0] / 10
