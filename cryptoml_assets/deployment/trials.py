"""How many models were tried before one of them is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from datetime import datetime


def trials_of(comparison: pl.DataFrame, searched: int, earlier: int = 0) -> int:
    """What a candidate's significance is deflated by.

    Every configuration of learning rate and weight decay that was searched for a family that can be
    served, the ones given up included, and the versions that were judged on some of the same rows
    before. What a fit chooses inside its own validation part (the epochs of a network, the penalty
    of the linear family) is part of the fit. Benchmarks can never be approved, so that they add no
    way to be approved by luck.

    Args:
        comparison: column ``served``, one row a family.
        searched: configurations searched for each family, 1 or more: ``CRYPTOML_SEARCH_TRIALS``.
        earlier: see `overlapping_verdicts`.

    Raises:
        ValueError: nothing that can be served was tried, or less than none.
    """
    families = int(comparison["served"].sum())
    if families < 1 or searched < 1 or earlier < 0:
        message = (
            f"families={families} that can be served, searched={searched}, earlier={earlier}: "
            "at least 1, 1 and 0"
        )
        raise ValueError(message)
    return families * searched + earlier


def overlapping_verdicts(
    verdicts: pl.DataFrame, *, model_version: str, start: datetime, end: datetime
) -> int:
    """How many other versions were judged on rows of a test window, whatever the verdict.

    A version that is judged again on its own rows is no new trial. Windows that share no instant
    share no luck, and a version that could not be measured, whose verdict has none, had none.

    Args:
        verdicts: columns ``model_version``, ``test_start`` and ``test_end``, one row a verdict.
        model_version: of the candidate.
        start: first event of its test window.
        end: last event of it.
    """
    if verdicts.is_empty():
        return 0
    overlaps = (pl.col("test_start") <= end) & (pl.col("test_end") >= start)
    others = verdicts.filter(pl.col("model_version") != model_version, overlaps)
    return int(others["model_version"].n_unique())
