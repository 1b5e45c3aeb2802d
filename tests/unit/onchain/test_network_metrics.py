"""The metrics client against a small server of the API's shape, on loopback."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import httpx
import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cryptoml_assets.errors import LakeError, UnusableAnswerError, WorldUnreachableError
from cryptoml_assets.onchain.network_metrics import (
    MEANINGS,
    SCHEMA,
    MetricsApi,
    base_assets,
    merge_metrics,
    parse_row,
    read_metrics,
)
from tests.sandbox_server import serve

DAYS = [date(2024, 1, n) for n in range(1, 6)]
LAG = timedelta(hours=4)
NOW = datetime(2024, 2, 1, tzinfo=UTC)


def row(asset, day, **figures):
    return {"asset": asset, "time": f"{day}T00:00:00.000000000Z"} | figures


@dataclass
class Api:
    """Serves ``rows`` in pages of two; ``answers`` are given first, each once."""

    rows: list[dict]
    answers: list[Response] = field(default_factory=list)
    headers: dict = field(default_factory=dict)
    queries: list[dict] = field(default_factory=list)

    async def __call__(self, request):
        query = dict(request.query_params)
        self.queries.append(query)
        if self.answers:
            return self.answers.pop(0)
        asset, skip = query["assets"], int(query.get("next_page_token", 0))
        known = {r["asset"] for r in self.rows}
        if asset not in known:
            message = f"Bad parameter 'assets'. Value '{asset}' is not supported."
            return JSONResponse({"error": {"type": "bad_parameter", "message": message}}, 400)
        first, last = query["start_time"], query["end_time"]
        rows = [r for r in self.rows if r["asset"] == asset and first <= r["time"][:10] <= last]
        page = {"data": rows[skip : skip + 2]}
        if skip + 2 < len(rows):
            page["next_page_token"] = str(skip + 2)
        return JSONResponse(page, headers=self.headers)


@contextmanager
def connect(api, delays=(0.0,)) -> Iterator[MetricsApi]:
    async def endpoint(request):
        return await api(request)

    app = Starlette(routes=[Route("/v4/timeseries/asset-metrics", endpoint)])
    with serve(app) as url, httpx.Client(timeout=5) as client:
        yield MetricsApi(url, "network_metrics 2024-01-01..2024-01-05", client, delays)


def read(api, assets=("btc",), days=DAYS, now=NOW):
    with connect(api) as connected:
        return read_metrics(connected, assets, days, lag=LAG, now=now)


def all_days(asset="btc", **figures):
    return [row(asset, day, AdrActCnt=str(day.day * 100), **figures) for day in DAYS]


def test_every_column_is_described():
    assert all(MEANINGS.values())


def test_a_row_keeps_what_is_null_null():
    figures = {"AdrActCnt": "100.5", "HashRate": None, "PriceUSD": "0"}
    assert parse_row(row("BTC", "2024-01-01", **figures), source="live", lag=LAG) == {
        "asset": "btc",
        "day": date(2024, 1, 1),
        "active_addresses": 100.5,
        "transaction_count": None,
        "hash_rate": None,
        "nvt_ratio": None,
        "mvrv_ratio": None,
        "price_usd": 0.0,
        "supply": None,
        "market_cap_usd": None,
        "realised_cap_usd": None,
        "adjusted_transfer_usd": None,
        "available_at": datetime(2024, 1, 2, 4, tzinfo=UTC),
        "source": "live",
        "date": date(2024, 1, 1),
    }


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-inf", ""])
def test_what_is_not_finite_is_no_figure(text):
    parsed = parse_row(row("btc", "2024-01-01", NVTAdj=text), source="live", lag=LAG)
    assert parsed["nvt_ratio"] is None


@pytest.mark.parametrize(
    "broken",
    [
        {"asset": "btc"},
        {"time": "2024-01-01"},
        {"asset": "btc", "time": "today"},
        {"asset": None, "time": "2024-01-01"},
        row("btc", "2024-01-01", TxCnt="many"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused(broken):
    with pytest.raises(UnusableAnswerError, match="cannot be read"):
        parse_row(broken, source="live", lag=LAG)


def test_all_pages_are_read():
    api = Api(all_days())
    frame = read(api)
    assert frame.schema == SCHEMA
    assert frame["day"].to_list() == DAYS
    assert frame["active_addresses"].to_list() == [100, 200, 300, 400, 500]
    assert [q.get("next_page_token") for q in api.queries] == [None, "2", "4"]


def test_a_row_appears_only_once_published():
    now = datetime(2024, 1, 4, 4, tzinfo=UTC)
    assert read(Api(all_days()), now=now)["day"].to_list() == DAYS[:3]
    assert read(Api(all_days()), now=now - timedelta(microseconds=1)).height == 2


def test_nothing_published_yet_asks_nothing():
    api = Api(all_days())
    frame = read(api, now=datetime(2024, 1, 1, 12, tzinfo=UTC))
    assert (frame.height, frame.schema, api.queries) == (0, SCHEMA, [])


def test_only_the_days_asked_for_come_back():
    assert read(Api(all_days()), days=[DAYS[0], DAYS[3]])["day"].to_list() == [DAYS[0], DAYS[3]]


def test_an_asset_the_api_does_not_know_is_absent_and_the_log_says_why(caplog):
    with caplog.at_level(logging.WARNING):
        frame = read(Api(all_days()), assets=("btc", "sol"))
    assert frame["asset"].unique().to_list() == ["btc"]
    assert "Value 'sol' is not supported" in caplog.text


def test_an_asset_without_rows_is_absent_and_the_log_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert read(Api([row("btc", "2023-01-01")])).is_empty()
    assert "no row" in caplog.text


@pytest.mark.parametrize(
    ("headers", "source"), [({}, "live"), ({"X-Cryptoml-Source": "replay"}, "replay")]
)
def test_the_source_is_what_the_answer_declares(headers, source):
    frame = read(Api(all_days(), headers=headers))
    assert frame["source"].unique().to_list() == [source]


@pytest.mark.parametrize(
    "fault",
    [Response(status_code=429), Response(status_code=503), Response(b'{"data": [{"ti')],
)
def test_a_passing_fault_is_survived(fault):
    assert read(Api(all_days(), answers=[fault])).height == 5


def test_the_api_is_asked_again_only_after_the_wait_it_asks_for():
    api = Api(all_days(), answers=[Response(status_code=429, headers={"Retry-After": "1"})])
    began = time.monotonic()
    assert read(api).height == 5
    assert time.monotonic() - began >= 1


def test_a_wait_longer_than_a_run_can_take_is_given_up():
    api = Api([], answers=[Response(status_code=429, headers={"Retry-After": "3600"})])
    with pytest.raises(WorldUnreachableError, match="asked to wait 3600 s"):
        read(api)
    assert len(api.queries) == 1


def test_a_wait_given_as_a_date_leaves_it_to_our_own_delays():
    date_ = {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}
    api = Api(all_days(), answers=[Response(status_code=503, headers=date_)])
    assert read(api).height == 5


def test_a_page_that_names_itself_as_the_next_is_refused():
    again = {"data": [row("btc", "2024-01-01")], "next_page_token": "7"}
    api = Api([], answers=[JSONResponse(again), JSONResponse(again)])
    with pytest.raises(UnusableAnswerError, match="page 7 repeats"):
        read(api)


def test_a_lasting_fault_names_address_partition_and_asset():
    api = Api([], answers=[Response(status_code=500)] * 2)
    with connect(api) as connected, pytest.raises(WorldUnreachableError) as failure:
        read_metrics(connected, ("btc",), DAYS, lag=LAG, now=NOW)
    assert connected.address in str(failure.value)
    assert "network_metrics 2024-01-01..2024-01-05 btc" in str(failure.value)


@pytest.mark.parametrize(
    "answer",
    [
        JSONResponse({"error": {"message": "Bad parameter 'metrics'."}}, 400),
        Response(status_code=404),
        JSONResponse({"rows": []}),
        JSONResponse([]),
    ],
)
def test_an_answer_of_another_shape_is_refused(answer):
    with pytest.raises(UnusableAnswerError, match="network_metrics 2024-01-01"):
        read(Api(all_days(), answers=[answer]))


def rows_of(*rows, source="simulated"):
    """Rows as ``(asset, day of January, figures)``."""
    read_as = [
        parse_row(row(asset, date(2024, 1, day), **figures), source=source, lag=LAG)
        for asset, day, figures in rows
    ]
    return pl.DataFrame(read_as, schema=SCHEMA, orient="row")


NOTHING = pl.DataFrame(schema=SCHEMA)
STORED = rows_of(
    ("btc", 1, {"TxCnt": "10", "PriceUSD": "100"}), ("btc", 2, {"TxCnt": "20", "PriceUSD": "200"})
)


def test_a_revised_figure_replaces_and_a_null_one_does_not():
    merged = merge_metrics(STORED, rows_of(("btc", 2, {"TxCnt": "21", "HashRate": "5"})))
    assert merged.schema == SCHEMA
    assert merged.select("transaction_count", "price_usd", "hash_rate").rows() == [
        (10, 100, None),
        (21, 200, 5),
    ]


def test_a_row_that_is_not_answered_stays():
    assert merge_metrics(STORED, NOTHING).equals(STORED)
    merged = merge_metrics(STORED, rows_of(("eth", 2, {"TxCnt": "3"})))
    assert merged.select("asset", "day").rows() == [
        ("btc", date(2024, 1, 1)),
        ("btc", date(2024, 1, 2)),
        ("eth", date(2024, 1, 2)),
    ]


def test_merging_the_same_answer_again_changes_nothing():
    answered = rows_of(("eth", 1, {"TxCnt": "3"}), ("btc", 2, {"TxCnt": "21"}))
    once = merge_metrics(STORED, answered)
    assert merge_metrics(once, answered).equals(once)
    assert merge_metrics(NOTHING, NOTHING).equals(NOTHING)


def test_a_row_answered_twice_is_stored_once_as_answered_last():
    twice = rows_of(("btc", 1, {"TxCnt": "1", "PriceUSD": "7"}), ("btc", 1, {"TxCnt": "2"}))
    merged = merge_metrics(NOTHING, twice)
    assert merged.select("transaction_count", "price_usd").rows() == [(2, 7)]


def test_figures_of_two_sources_are_never_of_one_row():
    recorded = rows_of(("btc", 2, {"TxCnt": "21"}), source="replay")
    merged = merge_metrics(STORED, recorded)
    assert merged["source"].to_list() == ["simulated", "replay"]
    assert merged["price_usd"].to_list() == [100, None]


@pytest.mark.parametrize("stored_as", ["simulated", "replay"])
@pytest.mark.parametrize("live_first", [True, False])
def test_live_rows_and_others_do_not_go_together(stored_as, live_first):
    made = STORED.with_columns(source=pl.lit(stored_as))
    live = rows_of(("eth", 2, {"TxCnt": "3"}), source="live")
    pair = (live, made) if live_first else (made, live)
    with pytest.raises(LakeError, match=r"live rows \(eth 2024-01-02\) and .* CRYPTOML_LAKE"):
        merge_metrics(*pair)


def test_base_assets_are_lower_case_and_named_once():
    assert base_assets(["BTC/USDT", "ETH/USDT", "BTC/EUR"]) == ("btc", "eth")


@pytest.mark.realdata
@pytest.mark.parametrize("asset", ["btc", "eth"])
def test_recorded_metrics_parse(realdata, asset):
    recorded = pl.read_csv(realdata / "onchain" / f"{asset}.csv", infer_schema=False)
    rows = [{"asset": asset} | r for r in recorded.tail(500).iter_rows(named=True)]
    parsed = pl.DataFrame(
        [parse_row(r, source="replay", lag=LAG) for r in rows], schema=SCHEMA, orient="row"
    )
    complete = parsed.head(490)  # the newest days of the recording are still being filled in
    nulls = {name for name in SCHEMA if complete[name].null_count() == complete.height}
    assert nulls == ({"mvrv_ratio", "realised_cap_usd"} if asset == "eth" else set())
    assert complete["price_usd"].min() > 0
