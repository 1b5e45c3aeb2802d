"""How many models were tried before one of them is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from cryptoml_assets.errors import ApprovalError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: Parameter of a training run: the configurations that were searched.
_SEARCHED = "search_trials"


def searched(client: Any, comparison: pl.DataFrame) -> dict[str, int]:
    """Configurations that were searched for each family that can be served, as its run says.

    What the settings say now is no answer: a schedule may have searched more, and a version that
    stands again was trained before.

    Args:
        client: of the tracker.
        comparison: columns ``family``, ``served`` and ``run_id``, one row a family.

    Raises:
        ApprovalError: a run does not say.
    """
    found = {}
    for row in comparison.filter("served").iter_rows(named=True):
        run = row["run_id"]
        known = client.get_run(run).data.params.get(_SEARCHED, "") if run is not None else ""
        if not (known.isdecimal() and int(known)):
            message = (
                f"the run of {row['family']} does not say how many configurations were searched "
                f"for it ({_SEARCHED}={known or None}): materialise candidate_models again"
            )
            raise ApprovalError(message)
        found[row["family"]] = int(known)
    return found


def trials_of(searched: Mapping[str, int], earlier: int = 0) -> int:
    """What a candidate's significance is deflated by.

    Every configuration of learning rate and weight decay that was searched for a family that can be
    served, the ones given up included, and the versions that were judged on some of the same rows
    before. What a fit chooses inside its own validation part (the epochs of a network, the penalty
    of the linear family) is part of the fit. Benchmarks can never be approved, so that they add no
    way to be approved by luck.

    Args:
        searched: configurations searched for each family that can be served, 1 or more.
        earlier: see `overlapping_verdicts`.

    Raises:
        ValueError: nothing that can be served was tried, or less than none.
    """
    if not searched or min(searched.values()) < 1 or earlier < 0:
        message = (
            f"searched={dict(searched)}, earlier={earlier}: at least 1 for each of one family or "
            "more that can be served, and 0"
        )
        raise ValueError(message)
    return sum(searched.values()) + earlier


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
