"""Rows laid out by symbol and step, and values laid back into rows."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoml_assets.features.engine import Store
from cryptoml_assets.features.grid import Rows, Span, lay_out

START = datetime(2024, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=1)
seeds = st.integers(min_value=0, max_value=2**32 - 1)


@given(
    seed=seeds,
    there=st.sampled_from([0.05, 0.5, 0.99, 1.0]),
    width=st.integers(1, 90),
    halo=st.integers(0, 9),
)
def test_blocks_in_any_order_become_the_wanted_rows_and_what_is_not_finite_null(
    seed: int, there: float, width: int, halo: int
) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.random((3, halo + 77)) < there
    wanted[:, :halo] = False
    values = rng.normal(size=(2, 3, 77))
    values[rng.random(values.shape) < 0.2] = np.nan
    values[0, 0, 0] = np.inf

    def fill(store: Store) -> None:
        begins = list(range(0, 77, width))
        rng.shuffle(begins)
        for begin in begins:
            for index in (1, 0):
                store(index, begin, values[index, :, begin : begin + width])

    rows = Rows(wanted, halo)
    assert rows.height == np.count_nonzero(wanted)
    for found, column in zip(rows.collect(2, fill), values, strict=True):
        expected = column[wanted[:, halo:]]
        known = np.where(np.isfinite(expected), expected, None).tolist()
        assert found.to_list() == known
        assert found.null_count() == known.count(None)


@given(seed=seeds, kept=st.sampled_from([0.1, 0.9, 1.0]), shuffled=st.booleans())
def test_rows_in_any_order_lie_at_their_symbol_and_step(
    seed: int, kept: float, shuffled: bool
) -> None:
    rng = np.random.default_rng(seed)
    span = Span(START, STEP, 200)
    every = pl.DataFrame(
        {
            "symbol": np.repeat(["B", "A"], 200),
            "open_time": [START + step * STEP for step in range(200)] * 2,
            "close": rng.random(400),
        },
        schema_overrides={"open_time": pl.Datetime("us", "UTC")},
    )
    rows = every.filter(pl.Series(rng.random(400) < kept))
    rows = rows.sample(fraction=1.0, shuffle=True, seed=seed) if shuffled else rows
    grid = lay_out(rows, span, ["close"], {})
    assert grid.symbols.to_list() == sorted(set(rows["symbol"]))
    expected = {
        (symbol, (moment - START) // STEP): (row, close)
        for row, (symbol, moment, close) in enumerate(rows.rows())
    }
    for place, symbol in enumerate(grid.symbols):
        for step in range(200):
            row, close = expected.get((symbol, step), (-1, np.nan))
            assert grid.row_at[place, step] == row
            assert grid.values["close"][place, step] == pytest.approx(close, rel=0, nan_ok=True)
