"""The review of challengers: the asset that promotes and withdraws them."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.deployment import history, promotion, signing
from cryptoml_assets.deployment.history import Entry
from cryptoml_assets.deployment.moved_alias import teller
from cryptoml_assets.deployment.standing import Standing, standing
from cryptoml_assets.errors import ServiceMetricsError
from cryptoml_assets.monitoring.challenger import Judgement, Limits, Service, judge, paired
from cryptoml_assets.monitoring.outcomes import PREDICTION_OUTCOMES, SCHEMA
from cryptoml_assets.monitoring.outcomes_assets import after_outcomes, prediction_outcomes
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import markdown_table

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cryptoml_assets.deployment.promotion import Tell
    from cryptoml_assets.monitoring.scrape import ServiceFigures

_POLICY = "policy:challenger"
_MS_PER_SECOND = 1000.0
#: Kinds of errors that are no fault of a version: the registry, or the feature store it reads.
_OF_OTHERS = frozenset({"registry_unavailable", "feature_store"})


@dg.asset(
    deps=[prediction_outcomes, "validated_deployment"],
    group_name="monitoring",
    kinds={"polars", "mlflow", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    required_resource_keys={"lake", "tracker"},
    automation_condition=after_outcomes,
)
def challenger_review(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """What became of each challenger: promoted, withdrawn, or left standing, and why.

    A challenger is compared with the champion on what both predicted since it was let in. It is
    promoted when it predicts better by more than luck explains, and withdrawn when it predicts
    worse, fails or is slow. Each change is a record in the chain of the lake table `deployments`.
    """
    configured, lake = settings(), context.resources.lake.lake
    if not lake.exists(history.TABLE):
        return dg.MaterializeResult(metadata=_told([], 0))
    client = context.resources.tracker.client()
    key = signing.signing_key(configured.private_key_path, configured.public_key_path)
    entries, tell = history.read(lake, key.public_key()), teller(configured, context.log)
    if entries and entries[-1].record.decided_by == _POLICY:
        # A run that died after its decision left the registry behind.
        promotion.reconcile(client, lake, key, configured.model_name, tell=tell)
    now = standing(entries, configured.model_name)
    if now.champion is None or not now.challengers:
        return dg.MaterializeResult(metadata=_told([], 0))
    service = _service(context, configured)
    judged = [
        (
            entry,
            _judged(
                lake,
                entry,
                now.champion,
                service,
                configured=configured,
                beside=len(now.challengers),
            ),
        )
        for entry in now.challengers
    ]
    decided = _act(client, lake, key, judged, now=now, configured=configured, tell=tell)
    for entry, judgement in decided:
        context.log.warning(
            "version %s: %s: %s", entry.record.model_version, judgement.verdict, judgement.reason
        )
    return dg.MaterializeResult(metadata=_told(judged, len(decided)))


def _judged(
    lake: Lake,
    challenger: Entry,
    champion: Entry,
    service: "ServiceFigures | None",
    *,
    configured: Settings,
    beside: int,
) -> Judgement:
    """The verdict on one challenger; several at once share what may be risked."""
    first, second = champion.record, challenger.record
    since = max(first.decided_at, second.decided_at)
    versions = (first.model_version, second.model_version)
    outcomes = pl.DataFrame(schema=SCHEMA)
    if lake.exists(PREDICTION_OUTCOMES):
        outcomes = (
            lake.scan(PREDICTION_OUTCOMES)
            .filter(
                pl.col("date") >= since.date(),
                pl.col("feature_timestamp") >= since,
                pl.col("model_name") == second.model_name,
                pl.col("model_version").is_in(versions),
            )
            .collect()
        )
    symbols = len(configured.symbols)
    before, after = (outcomes.filter(model_version=version) for version in versions)
    return judge(
        paired(before, after, second.claim),
        second.claim,
        champion=counted(service, first.model_version, first.role, symbols),
        challenger=counted(service, second.model_version, second.role, symbols),
        limits=Limits(
            minimum=configured.challenger_minimum,
            significance=configured.challenger_significance / beside,
            error_rate=configured.challenger_error_rate,
            latency=configured.challenger_latency,
        ),
        seed=configured.seed,
    )


def _act(
    client: Any,
    lake: Lake,
    key: "Ed25519PrivateKey",
    judged: list[tuple[Entry, Judgement]],
    *,
    now: Standing,
    configured: Settings,
    tell: "Tell",
) -> list[tuple[Entry, Judgement]]:
    """Record what was decided: every withdrawal, and the promotion of the best.

    The others are held against the new champion from then on.

    Raises:
        ApprovalError: the champion changed meanwhile, or somebody withdrew one of them.
    """
    withdrawn = [each for each in judged if each[1].verdict == "abort"]
    better = sorted(
        (each for each in judged if each[1].verdict == "promote"), key=lambda each: each[1].gain
    )
    decided = [*withdrawn, *better[-1:]]
    version = lake.version(PREDICTION_OUTCOMES) if lake.exists(PREDICTION_OUTCOMES) else None
    for entry, judgement in decided:
        names = {criterion.name for criterion in judgement.criteria}
        kept = (each for each in entry.record.criteria if each.name not in names)
        promoted = judgement.verdict == "promote"
        decision = entry.again(
            action="promote" if promoted else "withdraw",
            role="champion" if promoted else "none",
            percent=0.0,
            criteria=(*kept, *judgement.criteria),
            decided_by=_POLICY,
            reason=f"{judgement.reason} ({PREDICTION_OUTCOMES} version {version})",
            decided_at=configured.clock(),
        )
        promotion.decide(client, lake, key, decision, seen=now, tell=tell)
    return decided


def _service(context: dg.AssetExecutionContext, configured: Settings) -> "ServiceFigures | None":
    """What the inference service counted; none where it does not answer."""
    from cryptoml_assets.monitoring.scrape import look  # noqa: PLC0415 - the metrics' parser

    try:
        return look(configured)
    except ServiceMetricsError as error:
        context.log.warning("no challenger can be promoted now: %s", error)
        return None


def counted(
    service: "ServiceFigures | None", version: str, role: str, symbols: int
) -> Service | None:
    """What the service counted of one version; none where it has not predicted or failed yet.

    That registry or feature store did not answer is no fault of a version, and not counted.
    """
    if service is None:
        return None
    figures = service.challenger(version, role)
    errors = sum(count for kind, count in figures.errors.items() if kind not in _OF_OTHERS)
    times = service.metrics.total("model_predict_seconds_count", model_version=version, role=role)
    seconds = None if figures.latency_ms is None else figures.latency_ms / _MS_PER_SECOND
    if not figures.predictions and not errors and not times:
        return None
    at_once = symbols * max(1, len(service.counters))
    asked = int(figures.predictions + errors)
    return Service(asked, int(errors), seconds, int(times or 0), at_once)


def _told(judged: list[tuple[Entry, Judgement]], decided: int) -> dict[str, Any]:
    rows = (
        (
            entry.record.model_version,
            entry.record.role,
            judgement.verdict,
            judgement.reason,
            judgement.pairs,
            judgement.gain,
        )
        for entry, judgement in judged
    )
    header = ("version", "role", "verdict", "why", "outcomes of both", "mean loss saved")
    return {
        "challengers": len(judged),
        "decided": decided,
        "verdicts": {entry.record.model_version: each.verdict for entry, each in judged},
        "review": dg.MetadataValue.md(markdown_table(header, rows)),
    }
