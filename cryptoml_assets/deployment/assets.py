"""Assets of the deployment room: what may serve, and why."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.deployment import history, judgement, promotion, signing, trials, verdicts
from cryptoml_assets.deployment.evidence import Evidence
from cryptoml_assets.deployment.gate import Verdict
from cryptoml_assets.deployment.history import Decision, Entry, Subject
from cryptoml_assets.deployment.moved_alias import teller
from cryptoml_assets.deployment.standing import Standing, standing
from cryptoml_assets.deployment.superseding import LEAST_STAY, POLICY, place, too_young
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.features.pins import versions_read
from cryptoml_assets.models.evaluation import row_scores
from cryptoml_assets.models.figures import skill_by_day
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import markdown_table
from cryptoml_serving.contract.approval import ApprovalRecord, Criterion, Role
from cryptoml_serving.contract.registry import PREDICTIONS_FILE


@dataclass(frozen=True)
class _Asked:
    """A candidate that asks to be approved, and what stands after how many decisions."""

    subject: Subject
    now: Standing
    decisions: int
    configured: Settings


@dg.asset(
    group_name="deployment",
    kinds={"jax", "mlflow", "deltalake"},
    owners=["team:platform"],
    code_version="2",
    output_required=False,
    required_resource_keys={"lake", "tracker"},
)
def validated_deployment(
    context: dg.AssetExecutionContext,
    model_comparison: pl.DataFrame,
    training_set: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[None]]:
    """The approved model: one that passed every required rule of the gate, under a signed record.

    A materialisation is one approval in force: the record is in the chain of the lake table
    `deployments` and beside the model in MLflow, and the signed deployment names the model. A
    rejected candidate leaves an observation with the reasons and no materialisation; so does one
    that passed and waits for a person, where `CRYPTOML_GATE_APPROVAL` asks for one, and one for
    which a challenger of the policy would have to go that has stood for less than a week.
    """
    configured = settings()
    lake, client = context.resources.lake.lake, context.resources.tracker.client()
    subject = _subject(model_comparison, configured)
    key = signing.signing_key(configured.private_key_path, configured.public_key_path)
    tell = teller(configured, context.log)
    # What a process that died has left is finished first.
    promotion.reconcile(client, lake, key, configured.model_name, tell=tell)
    entries = history.read(lake, key.public_key())
    now = standing(entries, configured.model_name)
    if (entry := now.entry_of(subject)) is not None:
        context.log.info("version %s is %s already", subject.model_version, entry.record.role)
        yield dg.MaterializeResult(metadata={"unchanged": True, **_facts(entry.record)})
        return
    asked = _Asked(subject, now, len(entries), configured)
    circumstances = _circumstances(context, client, asked, model_comparison)
    measured, verdict = judgement.judge_candidate(
        client, lake, subject, training_set, configured=configured, given=circumstances
    )
    used = judgement.versions_used(client, subject, measured) if measured is not None else {}
    verdicts.record(lake, _judged(asked, measured, verdict, used), key)
    if measured is None or not verdict.approved:
        _reject(context, subject, verdict)
        return
    if configured.gate_approval == "person":
        _ask_a_person(context, subject, verdict)
        return
    decision = _decision(asked, measured, verdict, used)
    if young := too_young(now, decision):
        _leave_out(context, asked, verdict, young)
        return
    made = place(client, lake, key, decision, seen=now, tell=tell)
    yield dg.MaterializeResult(
        metadata={
            "unchanged": False,
            **_facts(made.record),
            "skill_by_day": _plot(measured, configured),
        }
    )


def _subject(comparison: pl.DataFrame, configured: Settings) -> Subject:
    """The candidate to judge: the one that the comparison chose.

    Raises:
        ApprovalError: not exactly one was chosen, or it is not a registered version.
    """
    chosen = comparison.filter("chosen")
    if chosen.height != 1:
        message = f"the gate judges one candidate, model_comparison chose {chosen.height}"
        raise ApprovalError(message)
    row = chosen.row(0, named=True)
    names = ("model_name", "model_version", "run_id", "bundle_digest")
    if missing := [name for name in names if row[name] is None]:
        message = f"the chosen {row['family']} has no {', '.join(missing)}: it cannot be served"
        raise ApprovalError(message)
    return Subject(**{name: row[name] for name in names}, claim=configured.gate_claim)


def _circumstances(
    context: dg.AssetExecutionContext, client: Any, asked: _Asked, comparison: pl.DataFrame
) -> judgement.Circumstances:
    """What counts besides the candidate: the champion, earlier verdicts, what days were made of.

    Raises:
        ApprovalError: the run of a family does not say how much was searched for it.
    """
    subject, now = asked.subject, asked.now
    before = verdicts.stored(context.resources.lake.lake, subject.model_name)
    window = _test_window(client, subject)
    earlier = (
        trials.overlapping_verdicts(
            before, model_version=subject.model_version, start=window[0], end=window[1]
        )
        if window is not None
        else 0
    )
    return judgement.Circumstances(
        champion=now.champion.record if now.champion else None,
        withdrawn=now.withdrawn,
        trials=trials.trials_of(trials.searched(client, comparison), earlier),
        pins=lambda table, days: versions_read(context.instance, dg.AssetKey(table), days),
    )


def _test_window(client: Any, subject: Subject) -> tuple[datetime, datetime] | None:
    """First and last instant a candidate was tested on; none where its run does not say.

    Without, the gate cannot measure anything either, and every rule fails.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    with tempfile.TemporaryDirectory() as folder:
        try:
            file = client.download_artifacts(subject.run_id, PREDICTIONS_FILE, folder)
        except (MlflowException, OSError):
            return None
        events = pl.read_parquet(file, columns=["event_timestamp"]).to_series().sort()
    return (events[0], events[-1]) if len(events) else None


def _judged(
    asked: _Asked, measured: Evidence | None, verdict: Verdict, used: Mapping[str, int]
) -> verdicts.Judged:
    """The verdict for the table of all verdicts, be it a pass or not."""
    manifest = measured.manifest if measured is not None else None
    return verdicts.Judged(
        subject=asked.subject,
        judged_at=asked.configured.clock(),
        approved=verdict.approved,
        criteria=verdict.criteria,
        champion_version=asked.now.champion_version,
        limits=verdicts.limits_of(asked.configured),
        decisions=asked.decisions,
        source=manifest.source if manifest else "",
        data_versions=used,
        git_commit=manifest.git_commit if manifest else "",
        test=(manifest.test_start, manifest.test_end) if manifest else None,
    )


def _decision(
    asked: _Asked, measured: Evidence, verdict: Verdict, used: Mapping[str, int]
) -> Decision:
    """The policy's approval; the first model of all becomes the champion, whatever the role."""
    configured = asked.configured
    role: Role = configured.gate_role if asked.now.champion is not None else "champion"
    return Decision(
        subject=asked.subject,
        action="approve",
        role=role,
        percent=configured.gate_canary_percent if role == "canary" else 0.0,
        source=measured.manifest.source,
        data_versions=used,
        git_commit=measured.manifest.git_commit,
        criteria=verdict.criteria,
        decided_by=POLICY,
        reason=f"passed all {len(verdict.criteria)} required rules of the gate for its claim",
        decided_at=configured.clock(),
    )


def _reject(context: dg.AssetExecutionContext, subject: Subject, verdict: Verdict) -> None:
    reasons = "; ".join(verdict.failures)
    context.log.warning(
        "ALERT: version %s of %s was rejected: %s",
        subject.model_version,
        subject.model_name,
        reasons,
    )
    told = f"version {subject.model_version} rejected"
    _observe(context, subject, verdict, told, {"approved": False, "reasons": reasons})


def _ask_a_person(context: dg.AssetExecutionContext, subject: Subject, verdict: Verdict) -> None:
    command = f"cryptoml approve {subject.model_version} --reason ..."
    context.log.warning(
        "ALERT: version %s of %s passed the gate and waits for a person: %s",
        subject.model_version,
        subject.model_name,
        command,
    )
    told = f"version {subject.model_version} passed and waits for a person"
    _observe(context, subject, verdict, told, {"approved": True, "waits_for": command})


def _leave_out(
    context: dg.AssetExecutionContext, asked: _Asked, verdict: Verdict, young: list[Entry]
) -> None:
    """Say that a candidate passed, and for which challengers it gets no role."""
    subject = asked.subject
    names = ", ".join(entry.record.model_version for entry in young)
    reason = (
        f"the policy's {young[0].record.role} stands first: version {names} has been compared "
        f"with the champion for less than {LEAST_STAY.days} days"
    )
    context.log.info("version %s passed and gets no role: %s", subject.model_version, reason)
    told = f"version {subject.model_version} passed and gets no role"
    _observe(context, subject, verdict, told, {"approved": True, "left_out": reason})


def _observe(
    context: dg.AssetExecutionContext,
    subject: Subject,
    verdict: Verdict,
    told: str,
    facts: dict[str, Any],
) -> None:
    context.log_event(
        dg.AssetObservation(
            context.asset_key,
            description=told,
            metadata={
                **facts,
                "model_version": subject.model_version,
                "bundle_digest": subject.bundle_digest,
                "claim": subject.claim,
                "criteria": dg.MetadataValue.md(_table(verdict.criteria)),
            },
        )
    )


def _facts(record: ApprovalRecord) -> dict[str, Any]:
    return {
        "model_version": record.model_version,
        "role": record.role,
        "sequence": record.sequence,
        "bundle_digest": record.bundle_digest,
        "claim": record.claim,
        "source": record.source,
        "decided_by": record.decided_by,
        "decided_at": record.decided_at.isoformat(),
        "reason": record.reason,
        "criteria": dg.MetadataValue.md(_table(record.criteria)),
    }


def _plot(measured: Evidence, configured: Settings) -> dg.MetadataValue[str]:
    scores = row_scores(measured.test.labels, measured.answers, measured.base)
    if configured.gate_claim == "direction":
        figure = skill_by_day(measured.test.events, scores.log_loss, "log loss saved (nats)")
    else:
        figure = skill_by_day(measured.test.events, scores.crps, "CRPS saved (log return)")
    return figure_metadata(figure)


def _table(criteria: tuple[Criterion, ...]) -> str:
    return markdown_table(
        ("rule", "verdict", "figure", "threshold", "in words"),
        (
            (each.name, "PASS" if each.passed else "FAIL", each.figure, each.threshold, each.rule)
            for each in criteria
        ),
    )
