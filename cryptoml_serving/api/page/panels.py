"""The page's panels on the model, the decisions and drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptoml_serving.api.page import figures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptoml_serving.contract.approval import ApprovalRecord, Criterion
    from cryptoml_serving.contract.deployment import Deployment, Placement
    from cryptoml_serving.runtime.history import Decision, History
    from cryptoml_serving.runtime.lake_tables import Drift
    from cryptoml_serving.runtime.lake_view import Picture
    from cryptoml_serving.runtime.registry import ApprovedModel

#: Decisions shown, the newest; all are verified.
MOST_DECISIONS = 30
#: Columns shown of a report on drift, those that moved most.
MOST_FEATURES = 40
#: Shades of a cell, by how many times the threshold its index is.
_SHADES = (0.5, 1.0, 4.0)


@dataclass(frozen=True)
class Placed:
    """One version that may predict.

    Attributes:
        placement: its part of the signed deployment.
        record: its approval; none until it is loaded.
        family: of the model, once loaded.
    """

    placement: Placement
    record: ApprovalRecord | None
    family: str

    @classmethod
    def of(cls, placement: Placement, model: ApprovedModel | None) -> Placed:
        """A placement, and its model where that is loaded."""
        if model is None:
            return cls(placement, None, "")
        return cls(placement, model.record, model.bundle.manifest.family)


@dataclass(frozen=True)
class Rule:
    """One criterion."""

    name: str
    passed: bool
    figure: str
    threshold: str
    rule: str

    @classmethod
    def of(cls, criterion: Criterion) -> Rule:
        """A criterion, its numbers as text."""
        return cls(
            name=figures.words(criterion.name),
            passed=criterion.passed,
            figure=figures.figure(criterion.figure),
            threshold=figures.figure(criterion.threshold),
            rule=criterion.rule,
        )


@dataclass(frozen=True)
class Approval:
    """The model that answers, and the record that lets it."""

    record: ApprovalRecord
    family: str
    features: tuple[str, ...]
    trained: str
    tested: str
    criteria: tuple[Rule, ...]
    data: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Past:
    """The decisions, newest first.

    Attributes:
        decisions: the newest of them.
        total: of all.
        faults: of all: rows that do not verify, or are not in their place.
        behind: whether the decision that the deployment follows is missing.
    """

    decisions: tuple[Decision, ...]
    total: int
    faults: int
    behind: bool


@dataclass(frozen=True)
class Cell:
    """The drift of one column of one symbol.

    Attributes:
        text: its index; empty where there is none.
        shade: 0 to 3, by the index' size beside the threshold.
        drifted: the verdict; none where there is too little data.
        told: all of it in words.
    """

    text: str
    shade: int
    drifted: bool | None
    told: str


@dataclass(frozen=True)
class Drifts:
    """One report on drift, a row for each column that was judged and a cell for each symbol."""

    title: str
    symbols: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    unjudged: tuple[str, ...]
    hidden: int
    drifted: int
    judged: int
    pairs: int
    threshold: float | None
    start: datetime | None
    end: datetime | None
    version: str | None


def approval(model: ApprovedModel) -> Approval:
    """The panel on the model that answers."""
    manifest, record = model.bundle.manifest, model.record
    return Approval(
        record=record,
        family=manifest.family,
        features=tuple(each.name for each in manifest.features),
        trained=_span(manifest.training_start, manifest.training_end),
        tested=_span(manifest.test_start, manifest.test_end),
        criteria=tuple(Rule.of(each) for each in record.criteria),
        data=tuple(sorted(record.data_versions.items())),
    )


def past(history: History, deployment: Deployment | None) -> Past:
    """The panel on the decisions."""
    return Past(
        decisions=tuple(reversed(history.decisions[-MOST_DECISIONS:])),
        total=len(history.decisions),
        faults=history.faults,
        behind=history.lacks(deployment),
    )


def drifts(picture: Picture, symbols: Sequence[str]) -> tuple[Drifts, ...]:
    """The panels on the reports that have rows, answers first."""
    reports = (("answers", picture.prediction_drift), ("inputs", picture.feature_drift))
    return tuple(_drifts(title, report, symbols) for title, report in reports if report)


def _drifts(title: str, report: Sequence[Drift], symbols: Sequence[str]) -> Drifts:
    found = {(each.feature, each.symbol): each for each in report}
    shown = [each for each in symbols if any(symbol == each for _, symbol in found)]
    largest: dict[str, float] = {}
    for each in report:
        # What drifted comes before anything that is only large.
        size = (each.psi or 0.0) + (1e6 if each.drifted else 0.0)
        largest[each.feature] = max(largest.get(each.feature, 0.0), size)
    judged = {each.feature for each in report if each.psi is not None}
    order = sorted(judged, key=lambda name: (-largest[name], name))
    first = report[0]
    return Drifts(
        title=title,
        symbols=tuple(shown),
        rows=tuple(
            (name, tuple(_cell(found.get((name, symbol))) for symbol in shown))
            for name in order[:MOST_FEATURES]
        ),
        unjudged=tuple(sorted(largest.keys() - judged)),
        hidden=max(0, len(order) - MOST_FEATURES),
        drifted=sum(each.drifted is True for each in report),
        judged=sum(each.psi is not None for each in report),
        pairs=len(report),
        threshold=first.threshold,
        start=min((each.window_start for each in report if each.window_start), default=None),
        end=max((each.window_end for each in report if each.window_end), default=None),
        version=first.model_version,
    )


def _cell(drift: Drift | None) -> Cell:
    if drift is None or drift.psi is None:
        return Cell("", 0, None, "not judged: too little data")
    threshold = drift.threshold or 1.0
    shade = sum(drift.psi >= part * threshold for part in _SHADES)
    told = f"{drift.feature} of {drift.symbol}: index {drift.psi:.2f}"
    if drift.adjusted_p_value is not None:
        told += f", p {drift.adjusted_p_value:.3g} over all pairs"
    told += {True: "; drifted", False: "; no more than chance", None: "; not judged"}[drift.drifted]
    return Cell(f"{drift.psi:.2f}", shade, drift.drifted, told)


def _span(start: datetime, end: datetime) -> str:
    return f"{figures.instant(start)} to {figures.instant(end)}"
