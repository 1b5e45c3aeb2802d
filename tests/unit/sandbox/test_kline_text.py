from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import orjson
import pytest

from cryptoml_sandbox.bars import Bars, bucket_start
from cryptoml_sandbox.kline_text import kline_rows
from cryptoml_sandbox.symbols import KNOWN

NUMBERS = [0, 1, 9, 10, 9_999, 10_000, 99_999_999, 100_000_000, 1_234_567_890_123_456_789]


def bars_of(values):
    column = np.asarray(values, np.int64)
    time = 1_704_067_200_000 + 60_000 * np.arange(len(column))
    return Bars(time, *(np.roll(column, k) for k in range(9)))


@pytest.mark.parametrize("decimals", [(0, 0), (1, 3), (2, 5), (4, 0), (8, 8)])
@pytest.mark.parametrize("values", [NUMBERS, NUMBERS[:1], NUMBERS[3:4], NUMBERS[::-1]])
def test_every_number_is_written_in_full(decimals, values):
    price, lot = decimals
    symbol = replace(KNOWN[0], price_decimals=price, lot_decimals=lot)
    bars = bars_of(values)
    text = kline_rows(bars, symbol, "1m")
    rows = orjson.loads(text)
    assert text == orjson.dumps(rows), "as compact as the venue's"
    for k, row in enumerate(rows):
        prices = [bars.open[k], bars.high[k], bars.low[k], bars.close[k]]
        assert row[1:5] == [symbol.price_text(int(x)) for x in prices]
        assert row[5] == symbol.size_text(int(bars.volume[k]))
        assert row[7] == symbol.value_text(int(bars.quote[k]))
        assert row[9:] == [
            symbol.size_text(int(bars.taker_volume[k])),
            symbol.value_text(int(bars.taker_quote[k])),
            "0",
        ]
        assert Decimal(row[7]) == Decimal(int(bars.quote[k])).scaleb(-price - lot)
        assert [row[0], row[6], row[8]] == [
            bars.open_time[k],
            bars.open_time[k] + 59_999,
            bars.trades[k],
        ]


def test_no_bars_are_an_empty_list():
    assert kline_rows(Bars.concatenate([]), KNOWN[0], "1m") == b"[]"


def test_a_month_closes_where_the_next_one_opens():
    bars = bars_of([7])
    (row,) = orjson.loads(kline_rows(bars, KNOWN[0], "1M"))
    assert row[6] == bucket_start(row[0], "1M", following=True) - 1
