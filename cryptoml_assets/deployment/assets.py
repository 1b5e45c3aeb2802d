"""Assets of the deployment room: what may serve, and why."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.deployment import evidence, gate, promotion, signing
from cryptoml_assets.deployment.evidence import Evidence
from cryptoml_assets.deployment.gate import Verdict
from cryptoml_assets.deployment.history import Subject
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.models.evaluation import row_scores
from cryptoml_assets.models.figures import skill_by_day
from cryptoml_assets.models.strategy import Costs
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import markdown_table
from cryptoml_serving.contract.approval import ApprovalRecord, Criterion
from cryptoml_serving.contract.registry import BUNDLE_FOLDER, PREDICTIONS_FILE

_POLICY = "policy:automatic"


@dg.asset(
    group_name="deployment",
    kinds={"jax", "mlflow", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    output_required=False,
    required_resource_keys={"lake", "tracker"},
)
def validated_deployment(
    context: dg.AssetExecutionContext,
    model_comparison: pl.DataFrame,
    training_set: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[None]]:
    """The approved model: one that passed every rule of the gate, under a signed record.

    A materialisation is one approval in force: the record is in the lake table `deployments` and
    beside the model in MLflow, and the alias `champion` points at the model. A rejected candidate
    leaves an observation with the reasons and no materialisation.
    """
    configured = settings()
    lake, client = context.resources.lake.lake, context.resources.tracker.client()
    subject = _subject(model_comparison, configured)
    key = signing.signing_key(configured.private_key_path, configured.public_key_path)
    standing = promotion.standing_approval(client, lake, subject, key.public_key())
    if standing is not None:
        context.log.info("version %s is champion already", subject.model_version)
        yield dg.MaterializeResult(metadata={"unchanged": True, **_facts(standing)})
        return
    measured, verdict = _judge(client, subject, training_set, configured)
    if measured is None or not verdict.approved:
        _reject(context, subject, verdict)
        return
    record = _record(subject, measured, verdict, configured)
    record = promotion.promote(client, lake, record, key)
    yield dg.MaterializeResult(
        metadata={
            "unchanged": False,
            **_facts(record),
            "skill_by_day": _plot(measured, configured),
        }
    )


def _subject(comparison: pl.DataFrame, configured: Settings) -> Subject:
    """The candidate to judge: the one that the comparison chose.

    It was chosen by the folds before the newest, so its significance in the newest need not count
    the ones it was chosen from.

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


def _judge(
    client: Any, subject: Subject, training_set: pl.DataFrame, configured: Settings
) -> tuple[Evidence | None, Verdict]:
    """Fetch the bundle by its run and hold it against the rules; no evidence, no approval."""
    gathered: list[Evidence] = []

    def measure() -> dict[str, float]:
        gathered.append(
            evidence.gather(
                Path(bundle),
                subject.bundle_digest,
                training_set,
                pl.read_parquet(predictions),
                embargo=configured.embargo,
                costs=Costs(configured.fee_bps, configured.slippage_bps),
                seed=configured.seed,
            )
        )
        return gathered[0].figures

    rules = gate.rules(
        configured.gate_claim,
        least_rows=configured.gate_minimum_rows,
        largest_p_value=configured.gate_significance,
        coverage_tolerance=configured.gate_coverage_tolerance,
        leak_accuracy=configured.gate_suspected_leak,
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = client.download_artifacts(subject.run_id, BUNDLE_FOLDER, folder)
        predictions = client.download_artifacts(subject.run_id, PREDICTIONS_FILE, folder)
        verdict = gate.judge(measure, rules)
    return (gathered[0] if gathered else None), verdict


def _record(
    subject: Subject, measured: Evidence, verdict: Verdict, configured: Settings
) -> ApprovalRecord:
    return ApprovalRecord(
        model_name=subject.model_name,
        model_version=subject.model_version,
        bundle_digest=subject.bundle_digest,
        run_id=subject.run_id,
        claim=configured.gate_claim,
        source=measured.manifest.source,
        criteria=verdict.criteria,
        decided_by=_POLICY,
        reason=f"passed all {len(verdict.criteria)} rules of the gate for its claim",
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
    context.log_event(
        dg.AssetObservation(
            context.asset_key,
            description=f"version {subject.model_version} rejected",
            metadata={
                "approved": False,
                "model_version": subject.model_version,
                "bundle_digest": subject.bundle_digest,
                "claim": subject.claim,
                "reasons": reasons,
                "criteria": dg.MetadataValue.md(_table(verdict.criteria)),
            },
        )
    )


def _facts(record: ApprovalRecord) -> dict[str, Any]:
    return {
        "model_version": record.model_version,
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
