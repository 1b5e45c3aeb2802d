"""What is told of each kind of trouble: from what the graph records to a notice.

A key names a trouble, not an event: two failed runs of one step are one trouble, and a calm report
ends the trouble of an alarming one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptoml_assets.notices.notice import Notice, Severity, safe

if TYPE_CHECKING:
    from cryptoml_assets.deployment.history import Entry
    from cryptoml_assets.deployment.promotion import Reconciled
    from cryptoml_assets.monitoring.freshness import Age

Links = Mapping[str, str]
#: Makes a notice of an event's metadata, its instant and its links; none where it is no news.
Teller = Callable[[Mapping[str, Any], datetime, Links], Notice | None]
_ERROR = 1500
_FIGURES = 8


def run_failed(  # noqa: PLR0917 - what a run is told by
    job: str, steps: Mapping[str, str], message: str, cause: str, at: datetime, links: Links
) -> Notice:
    """A run that failed.

    Args:
        job: the job's name.
        steps: those that failed, with their errors; none where it failed before its first.
        message: Dagster's own words.
        cause: what asked for the run; empty for a person.
        at: when it failed, UTC.
        links: to the run.
    """
    place = ", ".join(sorted(steps)) or "before its first step"
    errors = "\n".join(f"{step}: {error}" for step, error in sorted(steps.items()))
    return Notice(
        kind="run_failed",
        severity="critical",
        title=f"Run of {_job(job)} failed: {place}",
        body=safe(errors or message, _ERROR) or "Dagster recorded no cause",
        key=f"run_failed:{job}:{place}",
        at=at,
        facts={"job": _job(job), "steps": place, **({"asked for by": cause} if cause else {})},
        links=links,
    )


def gate(facts: Mapping[str, Any], at: datetime, links: Links) -> Notice | None:
    """A candidate that the gate rejected, or that waits for a person."""
    version, waits = facts.get("model_version", "?"), facts.get("waits_for")
    if facts.get("approved") is False:
        return Notice(
            kind="gate_rejected",
            severity="warning",
            title=f"Candidate {version} was rejected by the gate",
            body=safe(str(facts.get("reasons", "the observation gives no reason"))),
            key=f"gate_rejected:{version}",
            at=at,
            facts={"version": str(version), "claim": str(facts.get("claim", "?"))},
            links=links,
        )
    if waits:
        return Notice(
            kind="approval_awaited",
            severity="info",
            title=f"Candidate {version} passed the gate and waits for a person",
            body=f"To let it serve: {waits}",
            key=f"approval_awaited:{version}",
            at=at,
            facts={"version": str(version), "claim": str(facts.get("claim", "?"))},
            links=links,
        )
    return None


def drift_of(table: str) -> Teller:
    """What the reports of ``table`` say of drift."""
    what = table.removesuffix("_drift")

    def tell(facts: Mapping[str, Any], at: datetime, links: Links) -> Notice | None:
        alarm, share = facts.get("alarm"), facts.get("drifted_share")
        if not isinstance(alarm, bool) or not (alarm or mostly_judged(facts)):
            return None
        names = ("drifted", "judged", "unjudged", "model_version")
        figures = {name: str(facts[name]) for name in names if name in facts}
        if isinstance(share, int | float):
            figures["share"] = f"{share:.1%}"
        told = "; ".join(f"{name} {value}" for name, value in figures.items())
        return Notice(
            kind="drift",
            severity="warning",
            title=f"{what.capitalize()} drift{_under(facts.get('model_version'))}"
            + (" has passed" if not alarm else ""),
            body=f"{table}: {told}",
            # Without the version: what ends the trouble may be another one.
            key=f"drift:{table}",
            at=at,
            facts=figures,
            links=links,
            resolved=not alarm,
        )

    return tell


def performance(facts: Mapping[str, Any], at: datetime, links: Links) -> Notice | None:
    """Live performance that is below what was promised, or no longer is.

    Outcomes that are too few to be judged say neither.
    """
    below = facts.get("below_promise")
    if not isinstance(below, bool) or not (below or facts.get("judged", True)):
        return None
    figures = {
        name: f"{value:.4g}"
        for name, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    accuracy, version = figures.get("accuracy_24h", "unknown"), facts.get("champion")
    shown = list(figures.items())[:_FIGURES]
    return Notice(
        kind="performance",
        severity="warning",
        title=f"Live performance{_of(version)} is {'below' if below else 'again as'} promised",
        body=f"accuracy of the last 24 hours: {accuracy}",
        # Without the version: what ends the trouble may be another one.
        key="performance",
        at=at,
        facts={**({} if version is None else {"version": str(version)}), **dict(shown)},
        links=links,
        resolved=not below,
    )


def quality(facts: Mapping[str, Any], at: datetime, links: Links) -> Notice | None:
    """A quality report that is critical, or no longer is; a warning alone is no news."""
    overall = facts.get("overall")
    if overall not in {"CRITICAL", "WARNING", "HEALTHY"}:
        return None
    return Notice(
        kind="quality",
        severity="critical",
        title=f"Quality of the platform is {overall}",
        body=safe(str(facts.get("verdict", ""))) or "see quality_report",
        key="quality",
        at=at,
        links=links,
        resolved=overall != "CRITICAL",
    )


def revisions(facts: Mapping[str, Any], at: datetime, links: Links) -> Notice | None:
    """Model versions or predictions whose rows are others now, where some are new."""
    new, versions = facts.get("new"), facts.get("affected_versions")
    if not isinstance(new, int) or new < 1:
        return None
    names = ", ".join(map(str, versions)) if isinstance(versions, list) else str(versions)
    return Notice(
        kind="revised_data",
        severity="warning",
        title=f"Revised rows lie under models: {names}",
        body="revision_impact lists the versions and the prediction ids.",
        key=f"revised_data:{names}",
        at=at,
        facts={"new": str(new), "predictions": str(facts.get("affected_predictions", "?"))},
        links=links,
    )


def decision(entry: Entry, links: Links) -> Notice:
    """A decision about a version: approved, promoted, rolled back or withdrawn."""
    record = entry.record
    severity: Severity = "info" if record.action in {"approve", "promote"} else "warning"
    role = f"as {record.role}" if record.role != "none" else "from serving"
    percent = f" of {record.percent:g} %" if record.role == "canary" else ""
    return Notice(
        kind="decision",
        severity=severity,
        title=f"{record.model_name} {record.model_version}: {record.action} {role}{percent}",
        body=safe(record.reason),
        key=f"decision:{record.model_name}:{record.sequence}",
        at=record.decided_at,
        facts={"decided by": record.decided_by, "decision": str(record.sequence)},
        links=links,
    )


def alias_moved(model_name: str, found: Reconciled, at: datetime, links: Links) -> Notice:
    """The champion alias was not where the table of decisions has it."""
    return Notice(
        kind="alias_moved",
        severity="critical",
        title=f"The champion alias of {model_name} was moved by hand",
        body=f"It pointed at {found.alias_before or 'no version'} and follows the table of "
        f"decisions again, to {found.alias_now or 'no version'}. Serving never followed it.",
        key=f"alias_moved:{model_name}:{found.alias_before}",
        at=at,
        links=links,
    )


def history_broken(faults: Sequence[str], at: datetime, links: Links) -> Notice:
    """The table of decisions is not what was signed."""
    digest = hashlib.sha256("\n".join(faults).encode()).hexdigest()[:12]
    return Notice(
        kind="history_broken",
        severity="critical",
        title="The history of deployments is not sound",
        body=safe("; ".join(faults)),
        key=f"history_broken:{digest}",
        at=at,
        facts={"faults": str(len(faults))},
        links=links,
    )


def stale(age: Age, now: datetime, allowed: timedelta, at: datetime, links: Links) -> Notice:
    """A table whose newest rows are too old.

    Args:
        age: what was found.
        now: the world's present instant, UTC.
        allowed: how late rows may be.
        at: when this was noticed, UTC, by the platform's own clock.
        links: where to look.
    """
    newest = "none" if age.newest is None else f"{age.newest:%Y-%m-%d %H:%M:%S} UTC"
    late = "" if age.due is None else f", overdue for {_rough(now - age.due + allowed)}"
    who = f" of {', '.join(age.behind)}" if age.behind else ""
    return Notice(
        kind="stale_data",
        severity="warning",
        title=f"{age.table} is stale",
        body=f"Newest row{who}: {newest}{late}.",
        key=f"stale_data:{age.table}",
        at=at,
        facts={"newest row": newest, "allowed": _rough(allowed)},
        links=links,
    )


def fresh(table: str, at: datetime, links: Links) -> Notice:
    """A table that was stale has rows of now again."""
    return Notice(
        kind="stale_data",
        severity="warning",
        title=f"{table} is fresh again",
        body="Its newest rows are those of now.",
        key=f"stale_data:{table}",
        at=at,
        links=links,
        resolved=True,
    )


def mostly_judged(facts: Mapping[str, Any]) -> bool:
    """Whether a drift report could judge most pairs, without which its silence says nothing."""
    judged, unjudged = facts.get("judged", 1), facts.get("unjudged", 0)
    return bool(judged) and judged >= unjudged


def _of(version: object) -> str:
    return "" if version is None else f" of version {version}"


def _under(version: object) -> str:
    return "" if version in {None, "none"} else f" under version {version}"


def _job(name: str) -> str:
    """A job's name for people; runs of single assets have one that says nothing."""
    return "assets" if name.startswith("__") else name


def _rough(span: timedelta) -> str:
    return str(timedelta(seconds=round(span.total_seconds())))
