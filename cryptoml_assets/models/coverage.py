"""Whether the interval holds what it says for each symbol, in calm markets and in wild ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cryptoml_assets.models.evaluation import covered, row_losses, row_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cryptoml_assets.models.evaluation import Answered
    from cryptoml_assets.models.rows import Rows

#: The feature a regime is told by: how much the last day moved.
REGIME_FEATURE = "volatility_288"
#: Regimes in order; a row's number is the place of its regime here.
REGIMES = ("calm", "usual", "wild")
#: Regime of rows whose volatility is missing, and its number.
UNKNOWN = "unknown"
UNKNOWN_NUMBER = -1
#: What stands for every symbol, or every regime.
ALL = "all"

#: Meaning of each column of a coverage table.
COVERAGE_COLUMNS = {
    "symbol": f"market pair, or {ALL}",
    "regime": "third of the fold's training rows, by the volatility of the day before, that a row "
    f"would belong to: {', '.join(REGIMES)}; {UNKNOWN} where it is missing; or {ALL}",
    "rows": "rows out of sample",
    "coverage": "share of labels inside the 90 % interval",
    "interval_width": "mean width of that interval, log return",
    "log_loss_skill": "share of the base rate's log loss saved",
    "crps_skill": "share of the past distribution's CRPS saved",
}
_SUMS = ("rows", "covered", "width", "log_loss_gain", "log_loss", "crps_gain", "crps")


def regimes(training: Rows, test: Rows, column: int) -> NDArray[np.int8]:
    """Which third of a symbol's training rows each of its test rows would belong to.

    The edges are terciles of the fold's training rows of the same symbol, so nothing of the test
    part, its own spread included, says what counts as wild.

    Args:
        training: the fold's training rows.
        test: the fold's out-of-sample rows.
        column: place of a trailing volatility among the features.

    Returns:
        Shape (n,), one for each test row: 0 calm, 1 usual, 2 wild, -1 where the value is missing or
        its symbol has none in the training rows.
    """
    numbers = np.full(len(test), UNKNOWN_NUMBER, np.int8)
    for symbol in np.unique(test.symbols):
        past = training.features[training.symbols == symbol, column]
        past, own = past[np.isfinite(past)], test.symbols == symbol
        if len(past):
            edges = np.quantile(past, [1 / 3, 2 / 3])
            numbers[own] = np.searchsorted(edges, test.features[own, column])
    numbers[~np.isfinite(test.features[:, column])] = UNKNOWN_NUMBER
    return numbers


def coverage_table(parts: Sequence[Answered]) -> pl.DataFrame:
    """Coverage of each symbol in each regime, over the rows of all folds.

    Args:
        parts: the folds; without regimes every row counts as ``unknown``.

    Returns:
        The columns of `COVERAGE_COLUMNS`, one row for each symbol and regime that has rows, with
        ``all`` in place of either or both; symbols by name, regimes from calm to wild, all last.
    """
    cells = pl.concat([_sums(part) for part in parts])
    names = {UNKNOWN_NUMBER: UNKNOWN} | dict(enumerate(REGIMES))
    cells = cells.with_columns(pl.col("regime").replace_strict(names, return_dtype=pl.String))
    for margin in ("regime", "symbol"):
        cells = pl.concat([cells, cells.with_columns(pl.lit(ALL).alias(margin))])
    return (
        cells.group_by("symbol", "regime")
        .agg(pl.col(_SUMS).sum())
        .sort(
            pl.col("symbol") == ALL,
            "symbol",
            pl.col("regime").replace_strict(
                {name: place for place, name in enumerate((*REGIMES, UNKNOWN, ALL))}
            ),
        )
        .select(
            "symbol",
            "regime",
            pl.col("rows").cast(pl.Int64),
            coverage=pl.col("covered") / pl.col("rows"),
            interval_width=pl.col("width") / pl.col("rows"),
            log_loss_skill=_skill("log_loss"),
            crps_skill=_skill("crps"),
        )
    )


def _sums(part: Answered) -> pl.DataFrame:
    """Sums over one fold's rows of each symbol and regime."""
    rows, answers = part.rows, part.answers
    losses, gains = row_losses(rows.labels, answers), row_scores(rows.labels, answers, part.base)
    unknown = np.full(len(rows), UNKNOWN_NUMBER, np.int8)
    frame = pl.DataFrame(
        {
            "symbol": rows.symbols,
            "regime": unknown if part.regimes is None else part.regimes,
            "rows": np.ones(len(rows)),
            "covered": covered(rows.labels, answers),
            "width": (answers["upper"] - answers["lower"]).astype(np.float64),
            "log_loss_gain": gains.log_loss,
            "log_loss": losses.log_loss,
            "crps_gain": gains.crps,
            "crps": losses.crps,
        }
    )
    return frame.group_by("symbol", "regime").agg(pl.col(_SUMS).sum())


def _skill(loss: str) -> pl.Expr:
    gain = pl.col(f"{loss}_gain")
    return gain / (gain + pl.col(loss))
