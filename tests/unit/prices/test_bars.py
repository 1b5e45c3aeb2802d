"""From a venue's answer to rows: nothing unusable gets in, every bar gets in once."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import LakeError, UnusableAnswerError
from cryptoml_assets.prices.bars import (
    SCHEMA,
    Answer,
    Rows,
    answer_rows,
    bars_frame,
    check_one_source,
    held_slots,
    merge_bars,
    once_each,
    page_spans,
)

BAR = timedelta(minutes=5)
START = datetime(2024, 1, 1, tzinfo=UTC)
START_MS = 1_704_067_200_000
BAR_MS = 300_000


def answer(*indices: int, close: float = 10.5) -> list[list[float | None]]:
    return [[START_MS + i * BAR_MS, 10.0, 11.0, 9.0, close, 3.0] for i in indices]


def frame(rows: Answer, symbol: str = "BTC/USDT") -> pl.DataFrame:
    return bars_frame(
        rows, venue="binance", symbol=symbol, timeframe="5m", bar=BAR, source="simulated"
    )


def test_a_row_of_the_answer_becomes_a_row_of_raw_prices() -> None:
    row = frame([[START_MS + 287 * BAR_MS, 10, 11.5, 9.25, 10.5, 0]]).row(0, named=True)
    assert row == {
        "venue": "binance",
        "symbol": "BTC/USDT",
        "timeframe": "5m",
        "open_time": datetime(2024, 1, 1, 23, 55, tzinfo=UTC),
        "close_time": datetime(2024, 1, 2, tzinfo=UTC),
        "open": 10.0,
        "high": 11.5,
        "low": 9.25,
        "close": 10.5,
        "volume": 0.0,
        "source": "simulated",
        "date": date(2024, 1, 1),
    }


def test_the_schema_is_the_same_with_and_without_rows() -> None:
    assert frame(answer(0)).schema == frame([]).schema == SCHEMA


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (1, math.nan),
        (1, None),
        (2, math.inf),
        (3, -9.0),
        (4, 0.0),
        (5, -1.0),
        (5, None),
        (5, math.nan),
        (0, START_MS + BAR_MS + 1),
    ],
)
def test_an_unusable_bar_is_refused_and_named(column: int, value: float | None) -> None:
    rows = answer(0, 1, 2)
    rows[1][column] = value
    with pytest.raises(UnusableAnswerError, match=r"binance BTC/USDT 5m: unusable bar at 2024-01"):
        frame(rows)


@pytest.mark.parametrize("rows", [["{"], [{"code": -1}], [[START_MS, "ten", 11, 9, 10, 1]]])
def test_an_answer_that_holds_no_bars_is_refused(rows: Answer) -> None:
    with pytest.raises(UnusableAnswerError, match="binance BTC/USDT 5m"):
        frame(rows)


def test_merging_keeps_each_bar_once_and_the_later_answer() -> None:
    first = merge_bars(frame(answer(2, 0, 1)), frame(answer(1), "ETH/USDT"))
    revised = frame([*answer(1, close=10.1), *answer(1, close=10.2), *answer(3)])
    merged = merge_bars(first, revised)
    assert merged.select("symbol", "open_time", "close").rows() == [
        ("BTC/USDT", START, 10.5),
        ("BTC/USDT", START + BAR, 10.2),
        ("BTC/USDT", START + 2 * BAR, 10.5),
        ("BTC/USDT", START + 3 * BAR, 10.5),
        ("ETH/USDT", START + BAR, 10.5),
    ]
    assert_frame_equal(merge_bars(merged, revised), merged)


def test_pages_cover_the_span_once() -> None:
    end = START + 5 * BAR
    spans = page_spans(START, end, BAR, page_bars=2)
    assert spans == [
        (START, START + 2 * BAR),
        (START + 2 * BAR, START + 4 * BAR),
        (START + 4 * BAR, end),
    ]
    assert page_spans(START, START, BAR, page_bars=2) == []
    assert page_spans(START, START - BAR, BAR, page_bars=2) == []


def rows(*indices: int, close: float = 10.5) -> Rows:
    return answer_rows(answer(*indices, close=close), "bars")


@pytest.mark.parametrize("held", [(0, 1, 2, 3), (0, 3), (), (2, 1), (1, 1)])
def test_slots_are_held_by_the_bars_that_open_in_them(held: tuple[int, ...]) -> None:
    mask = held_slots(rows(*held), START, 4, BAR)
    assert set(np.flatnonzero(mask).tolist()) == set(held)


def test_rows_are_put_in_order_once_each_and_the_later_wins() -> None:
    mixed = np.concatenate([rows(2, 0, 1), rows(1, close=10.1), rows(1, close=10.2)])
    ordered = once_each(mixed)
    assert ordered[:, 0].tolist() == [START_MS + i * BAR_MS for i in range(3)]
    assert ordered[:, 4].tolist() == [10.5, 10.2, 10.5]
    assert once_each(ordered) is ordered, "what is in order is not copied"
    assert len(once_each(rows())) == 0


def test_a_row_without_a_time_is_no_bar() -> None:
    broken = answer(0, 1)
    broken[1][0] = None
    with pytest.raises(UnusableAnswerError, match="bars: the answer holds no bars of a time"):
        answer_rows(broken, "bars")


def test_worlds_do_not_mix() -> None:
    stored = frame(answer(0))
    check_one_source(stored, "simulated")
    with pytest.raises(LakeError, match=r"holds simulated bars \(BTC/USDT 2024-01-01\); replay"):
        check_one_source(stored, "replay")
