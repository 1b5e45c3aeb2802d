"""A candidate beside the champion: both answer the same out-of-sample rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.deployment import criteria
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.features.catalog import FEATURES
from cryptoml_assets.features.service import return_service_name
from cryptoml_assets.models.evaluation import CLAIM_LOSS, row_losses, row_scores
from cryptoml_assets.models.rows import rows_from_frame
from cryptoml_assets.models.significance import bootstrap_p_value, overlap_block, regime_block

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import polars as pl
    from numpy.typing import NDArray

    from cryptoml_assets.deployment.evidence import Evidence
    from cryptoml_assets.models.evaluation import Answered, Claim
    from cryptoml_serving.contract.approval import Criterion
    from cryptoml_serving.contract.bundle import Bundle
    from cryptoml_serving.contract.manifest import Manifest

    Answers = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Paired:
    """Two models on the same rows.

    Attributes:
        excess: mean loss of the candidate above the champion's, as a share of the base rate's.
        p_value: chance of so much smaller a loss than the champion's by luck.
        rows: how many.
        seen: whether the champion has learnt from some of them, which is in its favour.
    """

    excess: float
    p_value: float
    rows: int
    seen: bool


@dataclass(frozen=True)
class Comparing:
    """How to compare.

    Attributes:
        claim: whose loss is compared.
        margin: share of the base rate's loss by which a candidate may be worse.
        least_rows: fewest rows that a comparison needs.
        seed: of the bootstrap.
    """

    claim: Claim
    margin: float
    least_rows: int
    seed: int


def against_champion(
    candidate: Evidence, version: str, bundle: Bundle, training_set: pl.DataFrame, how: Comparing
) -> Criterion:
    """Hold a candidate against the champion on the candidate's own out-of-sample rows.

    A champion whose inputs these rows do not hold cannot be served from now on either: a candidate
    replaces it, and passes. A champion of another horizon answers another question, which is for a
    person to settle, and one that breaks, or answers no numbers, is no reason to pass: both raise,
    which the gate makes a FAIL.

    Args:
        candidate: measured.
        version: of the champion.
        bundle: of the champion, loaded by the digest it was approved with.
        training_set: the rows the candidate was trained and tested on.
        how: to compare.

    Raises:
        ApprovalError: the champion is of another horizon or answers what is no number, or the rows
            are not the same.
    """
    horizons = bundle.manifest.horizon_seconds, candidate.manifest.horizon_seconds
    if horizons[0] != horizons[1]:
        message = (
            f"champion {version} answers {horizons[0]} s ahead, the candidate {horizons[1]} s: "
            "they cannot be compared, and callers would be told something else; leave "
            "no_worse_than_champion out of CRYPTOML_GATE_REQUIRED for one approval if that is meant"
        )
        raise ApprovalError(message)
    if why := incomparable(bundle.manifest, training_set.columns):
        told = f"champion {version} cannot be compared: {why}"
        return criteria.no_comparable_champion(told, how.margin)
    found = paired(candidate, bundle, training_set, how)
    note = ", of which the champion has learnt from some" if found.seen else ""
    return criteria.no_worse_than_champion(
        version, found.excess, found.p_value, rows=found.rows, margin=how.margin, note=note
    )


def incomparable(champion: Manifest, columns: list[str]) -> str | None:
    """Why a champion cannot answer the candidate's rows, in words; none where it can.

    Args:
        champion: what serves.
        columns: of the training set.
    """
    known = {(str(each.table), each.name): each for each in FEATURES}
    wanted = [(each.view, each.name) for each in champion.features]
    if gone := [name for view, name in wanted if (view, name) not in known or name not in columns]:
        return f"its features {', '.join(gone)} are computed no more"
    if champion.feature_service != return_service_name([known[each] for each in wanted]):
        return f"its features {champion.feature_service} were made by other formulas"
    return None


def paired(
    candidate: Evidence, bundle: Bundle, training_set: pl.DataFrame, how: Comparing
) -> Paired:
    """Losses of both on the same rows.

    The rows are the candidate's test rows that the champion has not learnt from. Where those are
    fewer than a verdict needs, all of them are compared: that favours the champion, so a candidate
    that passes would pass on unseen rows too.

    Raises:
        ApprovalError: the champion answers what is no number, or the rows are not the same.
    """
    names = [feature.name for feature in bundle.manifest.features]
    rows = rows_from_frame(training_set, names)
    test = candidate.test
    own = rows.take((rows.events >= test.events.min()) & (rows.events <= test.events.max()))
    for name in ("symbols", "events", "labels"):
        if not np.array_equal(getattr(own, name), getattr(test, name)):
            message = f"champion and candidate were given rows of other {name}"
            raise ApprovalError(message)
    answers = bundle.predict(own.features)
    if broken := [name for name, values in answers.items() if not np.isfinite(values).all()]:
        message = f"the champion's {', '.join(broken)} are no numbers on rows of the test part"
        raise ApprovalError(message)
    fresh = test.events >= _first_unseen(bundle.manifest)
    enough = int(fresh.sum()) >= how.least_rows
    used = fresh if enough else np.ones(len(test), bool)
    return _measured(candidate.answered, answers, used, how, seen=not fresh[used].all())


def _measured(
    candidate: Answered, champion: Answers, used: NDArray[np.bool_], how: Comparing, *, seen: bool
) -> Paired:
    labels, loss = candidate.rows.labels, CLAIM_LOSS[how.claim]
    own = getattr(row_losses(labels, candidate.answers), loss)
    gained = getattr(row_scores(labels, candidate.answers, candidate.base), loss)
    others = getattr(row_losses(labels, champion), loss)
    events, horizon = candidate.rows.events, _horizon(candidate)
    block = overlap_block(horizon) if how.claim == "direction" else regime_block(horizon)
    # Loss of the base rate: what a model loses and what it gains over it.
    base = (own + gained)[used].mean()
    return Paired(
        excess=float((own - others)[used].mean() / base),
        p_value=bootstrap_p_value(events[used], (others - own)[used], block, how.seed),
        rows=int(used.sum()),
        seen=seen,
    )


def _horizon(part: Answered) -> np.timedelta64:
    horizon: np.timedelta64 = part.rows.label_times[0] - part.rows.events[0]
    return horizon


def _first_unseen(manifest: Manifest) -> np.datetime64:
    """The first event whose label overlaps with none that a model has learnt from."""
    reach = np.timedelta64(manifest.horizon_seconds, "s")
    instant: np.datetime64 = _instant(manifest.training_end) + reach
    return instant


def _instant(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")
