"""The metrics API as a client of Coin Metrics' community API uses it."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, timedelta

import httpx
import polars as pl
import pytest

from tests.sandbox_server import sandbox

PATH = "/v4/timeseries/asset-metrics"
NOW = datetime(2024, 2, 1, 4, 0, tzinfo=UTC)
GENESIS = date(2024, 1, 1)
ALL = (
    "AdrActCnt,TxCnt,HashRate,NVTAdj,CapMVRVCur,PriceUSD,"
    "SplyCur,CapMrktCurUSD,CapRealUSD,TxTfrValAdjUSD"
)


@contextlib.contextmanager
def api(**settings):
    with sandbox(**settings) as server, httpx.Client(base_url=server.url) as client:
        yield server, client


@pytest.fixture(scope="module")
def world():
    with api(now=NOW) as (_, client):
        yield client


def get(world, **parameters):
    return world.get(PATH, params={"assets": "btc", "metrics": ALL, **parameters})


def days(answer):
    return [date.fromisoformat(row["time"][:10]) for row in answer.json()["data"]]


def walk(world, **parameters):
    """Every page, following the addresses given."""
    answer = get(world, **parameters)
    pages = [answer]
    while url := answer.json().get("next_page_url"):
        answer = world.get(url)
        pages.append(answer)
    return pages


def test_a_row_is_a_day_of_text_values(world):
    row = get(world, start_time="2024-01-05", end_time="2024-01-05").json()["data"][0]
    assert row["asset"] == "btc"
    assert row["time"] == "2024-01-05T00:00:00.000000000Z"
    assert set(row) == {"asset", "time", *ALL.split(",")}
    assert all(isinstance(value, str) and float(value) > 0 for value in list(row.values())[2:])


def test_a_metric_that_makes_no_sense_for_a_network_is_absent(world):
    rows = get(world, assets="btc,eth,sol", page_size=10_000).json()["data"]
    of = {asset: [row for row in rows if row["asset"] == asset] for asset in ("btc", "eth", "sol")}
    assert all("HashRate" in row for row in of["btc"])
    unknown = {"HashRate", "CapMVRVCur", "CapRealUSD"}
    assert not any(unknown & set(row) for row in of["eth"] + of["sol"])
    assert not any({"NVTAdj", "TxTfrValAdjUSD"} & set(row) for row in of["sol"])
    assert len(of["btc"]) == len(of["eth"]) == len(of["sol"]) == 31


@pytest.mark.parametrize(("moment", "newest"), [("03:59:59", 30), ("04:00:00", 31)])
def test_a_day_appears_once_it_has_ended_and_the_lag_has_passed(moment, newest):
    lag = timedelta(hours=4)
    with api(now=f"2024-02-01T{moment}Z", metrics_lag=lag) as (_, client):
        assert days(get(client))[-1] == date(2024, 1, newest)


@pytest.mark.parametrize("paging_from", ["start", "end"])
@pytest.mark.parametrize("sort", ["asset", "time"])
def test_pages_hold_every_row_once(world, paging_from, sort):
    parameters = {"assets": "btc,eth,xrp", "paging_from": paging_from, "sort": sort}
    whole = get(world, **parameters, page_size=10_000).json()
    assert "next_page_token" not in whole
    pages = [page.json()["data"] for page in walk(world, **parameters, page_size=7)]
    assert [len(page) for page in pages] == [7] * 13 + [2]
    ordered = pages if paging_from == "start" else pages[::-1]
    assert [row for page in ordered for row in page] == whole["data"]


def test_the_first_page_is_the_newest_unless_asked_otherwise(world):
    assert days(get(world, page_size=2)) == [date(2024, 1, 30), date(2024, 1, 31)]
    first = get(world, page_size=2, paging_from="start")
    assert days(first) == [GENESIS, GENESIS + timedelta(days=1)]


def test_a_token_stays_right_when_a_new_day_appears():
    with api(now=NOW) as (server, client):
        first = get(client, page_size=3)
        server.move_to(NOW + timedelta(days=1))
        second = client.get(first.json()["next_page_url"])
    assert days(second)[-1] == days(first)[0] - timedelta(days=1)


def test_bounds_can_be_exclusive_or_within_a_day(world):
    both = {"start_time": "2024-01-05", "end_time": "2024-01-08"}
    assert [day.day for day in days(get(world, **both))] == [5, 6, 7, 8]
    open_ = {**both, "start_inclusive": "false", "end_inclusive": "false"}
    assert [day.day for day in days(get(world, **open_))] == [6, 7]
    within = {"start_time": "2024-01-05T00:00:01Z", "end_time": "2024-01-08T23:00:00Z"}
    assert [day.day for day in days(get(world, **within))] == [6, 7, 8]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"assets": "nope"}, "'assets'. Value 'nope'"),
        ({"metrics": "Nope"}, "'metrics'. Value 'Nope'"),
        ({"assets": "eth", "metrics": "HashRate"}, "'metrics'. Value 'HashRate'"),
        ({"assets": ""}, "'assets'"),
        ({"frequency": "1h"}, "'frequency'. Value '1h'"),
        ({"start_time": "soon"}, "'start_time'"),
        ({"start_time": "9999-12-31T12:00:00"}, "'start_time'"),
        ({"end_time": "0001-01-01T00:00:00+01:00"}, "'end_time'"),
        ({"page_size": "0"}, "'page_size'"),
        ({"page_size": "9" * 5000}, "'page_size'"),
        ({"next_page_token": "%%"}, "'next_page_token'"),
    ],
)
def test_bad_parameters_are_refused_in_the_apis_shape(world, parameters, named):
    answer = get(world, **parameters)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "bad_parameter"
    assert named in error["message"]


def test_unsupported_assets_and_metrics_can_be_ignored(world):
    answer = get(world, assets="nope,eth", metrics="Nope,TxCnt", ignore_unsupported_errors="true")
    assert answer.status_code == 200
    assert set(answer.json()["data"][0]) == {"asset", "time", "TxCnt"}


def test_ratios_are_those_of_the_figures_in_the_same_row(world):
    for row in get(world, assets="btc,eth,bnb", page_size=10_000).json()["data"]:
        cap = float(row["PriceUSD"]) * float(row["SplyCur"])
        assert float(row["CapMrktCurUSD"]) == cap
        assert float(row["NVTAdj"]) == cap / float(row["TxTfrValAdjUSD"])
        if row["asset"] == "btc":
            assert float(row["CapMVRVCur"]) == cap / float(row["CapRealUSD"])


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("asset", "lacks"), [("btc", set()), ("eth", {"CapMVRVCur", "CapRealUSD"})]
)
def test_a_recorded_day_is_served_with_all_that_was_recorded_of_it(realdata, asset, lacks):
    recorded = pl.read_csv(realdata / "onchain" / f"{asset}.csv", infer_schema=False)
    (wanted,) = recorded.filter(pl.col("time") == "2021-03-01").iter_rows(named=True)
    asked = {"assets": asset, "start_time": "2021-03-01", "end_time": "2021-03-01"}
    with api(world="replay", replay=realdata) as (_, client):
        (row,) = get(client, **asked, ignore_unsupported_errors="true").json()["data"]
    names = set(ALL.split(",")) - lacks
    assert set(row) == {"asset", "time", *names}
    assert {name: row[name] for name in names} == {name: wanted[name] for name in names}


@pytest.mark.realdata
def test_recorded_and_simulated_days_never_share_a_page(realdata):
    recorded = pl.read_csv(realdata / "onchain" / "btc.csv", infer_schema=False)
    asked = {"start_time": "2021-04-30", "end_time": "2024-01-10"}
    with api(world="replay", replay=realdata) as (_, client):
        pages = walk(client, **asked, paging_from="start", page_size=4)
        described = client.get("/world").json()
    sources = [page.headers["X-Cryptoml-Source"] for page in pages]
    assert sources[:2] == ["replay", "replay"]
    assert set(sources[2:]) == {"simulated"}
    shown = [row for page in pages[:2] for row in page.json()["data"]]
    assert [row["PriceUSD"] for row in shown] == recorded.filter(pl.col("time") >= "2021-04-30")[
        "PriceUSD"
    ].to_list()
    assert days(pages[2])[0] == GENESIS
    assert any("btc" in part and "2021-05-05" in part for part in described["simulated_parts"])
