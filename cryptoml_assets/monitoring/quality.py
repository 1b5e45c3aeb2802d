"""The quality report: each figure of the platform against its threshold, and what they add up to.

A figure that meets its rule is HEALTHY, one that misses it a WARNING, and one that misses it by
more than the rule's second bound CRITICAL. One that is not known is UNKNOWN. Overall it is CRITICAL
if any figure is, else WARNING if any is a WARNING or UNKNOWN, else HEALTHY: what nobody measured
never counts as healthy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cryptoml_assets.monitoring.options import MonitoringSettings

#: How far a bound is missed before it is CRITICAL: by as much as it allows, once more.
_TWICE = 2.0
#: Row of the report that says what the others add up to.
OVERALL = "overall"
SCHEMA = pl.Schema(
    {
        "metric": pl.String(),
        "value": pl.Float64(),
        "threshold": pl.Float64(),
        "rule": pl.String(),
        "state": pl.String(),
        "why": pl.String(),
        "reported_at": pl.Datetime("us", "UTC"),
        "source": pl.String(),
    }
)


class State(StrEnum):
    """How a figure, or the platform, does."""

    HEALTHY = "HEALTHY"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Rule:
    """What a figure must be.

    Attributes:
        metric: its name.
        words: what it is, with its unit.
        side: whether it must be at least or at most the threshold.
        threshold: bound that a healthy figure keeps.
        critical: bound past which a miss is CRITICAL; none where a miss is never more than a
            WARNING by its size alone.
    """

    metric: str
    words: str
    side: Literal["at least", "at most"]
    threshold: float
    critical: float | None

    @property
    def text(self) -> str:
        """The rule in words."""
        bound = "" if self.critical is None else f"; critical past {self.critical:g}"
        return f"{self.words}: {self.side} {self.threshold:g}{bound}"

    def judge(self, value: float | None) -> State:
        """The state of ``value``; a figure that is none or no number is UNKNOWN."""
        if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
            return State.UNKNOWN
        if not self._misses(value, self.threshold):
            return State.HEALTHY
        grave = self.critical is not None and self._misses(value, self.critical)
        return State.CRITICAL if grave else State.WARNING

    def _misses(self, value: float, bound: float) -> bool:
        return value < bound if self.side == "at least" else value > bound


@dataclass(frozen=True)
class Figure:
    """A measured figure.

    Attributes:
        value: none where it is not known.
        why: why there is no value, or what it is a figure of.
        grave: something worse than its size is wrong with it: CRITICAL, whatever the value.
        partial: too little was looked at to call it HEALTHY.
    """

    value: float | None
    why: str = ""
    grave: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Line:
    """One figure held against its rule; ``why`` says why there is no value, or what it is of."""

    rule: Rule
    value: float | None
    state: State
    why: str = ""


@dataclass(frozen=True)
class Report:
    """All lines, when they were measured and on data of which source."""

    lines: tuple[Line, ...]
    reported_at: datetime
    source: str
    overall: State = field(init=False)

    def __post_init__(self) -> None:
        """Add the lines up."""
        object.__setattr__(self, "overall", overall(line.state for line in self.lines))

    @property
    def verdict(self) -> str:
        """What the lines add up to, in words."""
        names = {
            state: [line.rule.metric for line in self.lines if line.state is state]
            for state in (State.CRITICAL, State.WARNING, State.UNKNOWN)
        }
        parts = [f"{state.lower()}: {', '.join(found)}" for state, found in names.items() if found]
        return "; ".join(parts) or "every figure keeps its threshold"


def rules(configured: MonitoringSettings) -> tuple[Rule, ...]:
    """The rule of each figure, in the order of a report.

    A miss is CRITICAL where it is twice what is allowed: twice the failures, the time, the error or
    the fall. Accuracy has no such bound: it is CRITICAL where it is significantly below what was
    promised, which only the outcomes can say.
    """
    at_most = [
        ("run_seconds", "mean time of a run, of the pipeline where it is longest, seconds",
         configured.quality_run_seconds),
        ("mse", "mean squared error of the expected log return", configured.quality_mse),
        ("drift", "share of the judged features that drifted", configured.quality_drift),
        ("latency_ms", "95th percentile of the time of an answer, milliseconds",
         configured.quality_latency_ms),
        ("memory_mb", "memory of the inference service, megabytes", configured.quality_memory_mb),
        ("error_rate", "share of requests that got no prediction", configured.quality_error_rate),
    ]  # fmt: skip
    success = configured.quality_success_rate
    fall = configured.quality_accuracy_trend
    return (
        Rule("success_rate", "share of runs that succeeded, of the pipeline where it is least",
             "at least", success,
             max(1 - _TWICE * (1 - success), 0.0)),
        Rule("accuracy", "live directional accuracy of 24 hours; critical where significantly "
             "below the promise", "at least", configured.quality_accuracy, None),
        Rule("accuracy_trend", "live accuracy of 24 hours less that of 7 days", "at least", fall,
             _TWICE * fall if fall < 0 else None),
        *(Rule(name, words, "at most", bound, _TWICE * bound) for name, words, bound in at_most),
    )  # fmt: skip


def judge(
    figures: Mapping[str, Figure],
    ruled: Sequence[Rule],
    reported_at: datetime,
    source: str,
) -> Report:
    """Hold each figure against its rule; a figure nobody gave is UNKNOWN."""
    lines = []
    for rule in ruled:
        figure = figures.get(rule.metric, Figure(None, "not measured"))
        state = rule.judge(figure.value)
        if figure.partial and state is State.HEALTHY:
            state = State.UNKNOWN
        if figure.grave and state is not State.UNKNOWN:
            state = State.CRITICAL
        value = None if state is State.UNKNOWN else figure.value
        lines.append(Line(rule, value, state, figure.why))
    return Report(tuple(lines), reported_at, source)


def overall(states: Iterable[State]) -> State:
    """What states add up to; nothing known, or nothing at all, is a WARNING."""
    found = set(states)
    if State.CRITICAL in found:
        return State.CRITICAL
    return State.HEALTHY if found == {State.HEALTHY} else State.WARNING


def table(report: Report) -> pl.DataFrame:
    """The report as :data:`SCHEMA`: a row per figure, and last that of :data:`OVERALL`."""
    dated = (report.reported_at, report.source)
    rows: list[tuple[object, ...]] = [
        (each.rule.metric, each.value, each.rule.threshold, each.rule.text, each.state, each.why,
         *dated)
        for each in report.lines
    ]  # fmt: skip
    words = "critical if any figure is, else warning if any is a warning or unknown"
    rows.append((OVERALL, None, None, words, report.overall, report.verdict, *dated))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def told(report: Report) -> dict[str, object]:
    """The report for a program; :func:`as_json` writes it."""
    return {
        "overall": report.overall,
        "verdict": report.verdict,
        "reported_at": report.reported_at.isoformat(),
        "source": report.source,
        "figures": [
            {
                "metric": each.rule.metric,
                "value": each.value,
                "threshold": each.rule.threshold,
                "rule": each.rule.text,
                "state": each.state,
                "why": each.why,
            }
            for each in report.lines
        ],
    }


def as_json(report: Report) -> str:
    """The report as one JSON object."""
    return json.dumps(told(report), indent=2) + "\n"


def as_markdown(report: Report) -> str:
    """The report for a person."""
    lines = [
        f"# Quality: {report.overall}",
        "",
        f"{report.verdict} ({report.source} data, {report.reported_at:%Y-%m-%d %H:%M} UTC)",
        "",
        "| figure | value | state | rule |",
        "| --- | --- | --- | --- |",
    ]
    for each in report.lines:
        value = each.why or "-" if each.value is None else _with(f"{each.value:.6g}", each.why)
        name = each.rule.metric
        lines.append(f"| {name} | {value} | {each.state} | {each.rule.text} |")
    return "\n".join(lines) + "\n"


def _with(value: str, why: str) -> str:
    return f"{value} ({why})" if why else value


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Keep the report as ``quality.md`` and ``quality.json`` in ``folder``, made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "quality.md", folder / "quality.json"
    for file, text in zip(files, (as_markdown(report), as_json(report)), strict=True):
        # Who reads meanwhile sees the old report or the new one, never half of one.
        fresh = file.with_suffix(f"{file.suffix}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(file)
    return files
