"""Served predictions and what became of them, as assets."""

from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.deployment import standing
from cryptoml_assets.features.inputs import bars_of_settings
from cryptoml_assets.models.strategy import Costs
from cryptoml_assets.monitoring import outcomes, performance
from cryptoml_assets.monitoring.outcomes_table import PRICES, Report, Seen, bring_up_to_date
from cryptoml_assets.monitoring.performance_figures import live_against_promise
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Stored
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns, markdown_table
from cryptoml_serving.contract.served import SERVED_COLUMNS, SERVED_PREDICTIONS

#: Metadata that says what the table of outcomes was brought up to.
BROUGHT = "brought_up_to"
_tick: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed("*/15 * * * *")
#: Four times an hour: the service writes predictions without telling Dagster of it.
_quarterly = _tick.since_last_handled() & ~dg.AutomationCondition.in_progress()
#: As soon as there are new outcomes.
after_outcomes: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)

served_predictions = dg.AssetSpec(
    SERVED_PREDICTIONS,
    deps=["validated_deployment", "online_features"],
    description="Every prediction the inference service had ready to answer with.\n\n"
    "One row per bundle, symbol and feature instant, written once by the service itself, whether "
    "or not anybody asked for it; those of challengers beside those of the champion. Stored in the "
    "lake by days of `feature_timestamp`.",
    group_name="monitoring",
    kinds={"fastapi", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    metadata=described_columns(SERVED_COLUMNS, outcomes.MEANINGS, outcomes.KEY),
)


@dg.asset(
    deps=[served_predictions, PRICES],
    group_name="monitoring",
    kinds={"polars", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    io_manager_key="lake",
    automation_condition=_quarterly,
    metadata=described_columns(outcomes.SCHEMA, outcomes.MEANINGS, outcomes.KEY),
)
def prediction_outcomes(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.MaterializeResult[Stored]:
    """What became of each served prediction, once its horizon has passed.

    One row per prediction: the log return that followed, by the definition of the training label,
    how far off the prediction was, and what its position would have earned after costs. Days whose
    predictions or bars changed are computed again, so that a revised bar corrects what it told. A
    prediction whose bar never came has nulls, once `CRYPTOML_REVISION_WINDOW` is over.
    """
    configured = settings()
    report = bring_up_to_date(
        lake.lake,
        now=configured.clock(),
        rules=rules_of(configured),
        bars=bars_of_settings,
        since=last_seen(context.instance),
    )
    return dg.MaterializeResult(value=report.stored, metadata=_told(report))


@dg.asset(
    deps=[prediction_outcomes],
    group_name="monitoring",
    kinds={"polars", "mlflow", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    io_manager_key="lake",
    required_resource_keys={"lake", "tracker"},
    automation_condition=after_outcomes,
    metadata=described_columns(performance.SCHEMA, performance.MEANINGS, performance.KEY),
)
def model_performance(context: dg.AssetExecutionContext) -> dg.MaterializeResult[pl.DataFrame]:
    """How each version did live, beside what its training run promised.

    One row per version, role, symbol (or all of them) and window of an hour, a day or a week up to
    now. All symbols together are held against the figures of the version's newest test part:
    `below_promise` says that they are worse by more than luck explains. The metadata tell of the
    version that is champion now: `judged` says whether it has enough outcomes for a verdict.
    """
    configured = settings()
    now, lake = configured.clock(), context.resources.lake.lake
    champion = standing.current(configured).champion_version
    recent = performance.recent_outcomes(lake, now)
    promises = (
        performance.promises(context.resources.tracker.client(), recent) if recent.height else {}
    )
    report = performance.performance(
        recent,
        promises,
        now=now,
        minimum=configured.performance_minimum,
        significance=configured.performance_significance,
        seed=configured.seed,
    )
    return dg.MaterializeResult(
        value=report,
        metadata={
            **performance.champion_figures(
                report, model_name=configured.model_name, champion=champion
            ),
            "below": dg.MetadataValue.md(_table(report)),
            "live_against_promise": figure_metadata(live_against_promise(recent, promises)),
        },
    )


def rules_of(configured: Settings) -> outcomes.Rules:
    """How outcomes are computed, by the settings."""
    return outcomes.Rules(
        costs=Costs(configured.fee_bps, configured.slippage_bps),
        notional_usd=configured.trade_notional_usd,
        patience=configured.revision_window,
        horizon=configured.horizon,
    )


def last_seen(instance: dg.DagsterInstance) -> Seen | None:
    """What the newest run brought the table up to; nothing where that is not known."""
    event = instance.get_latest_materialization_event(prediction_outcomes.key)
    made = event.asset_materialization if event is not None else None
    entry: Any = made.metadata.get(BROUGHT) if made is not None else None
    try:
        return Seen(**entry.value)
    except (AttributeError, TypeError):
        # Not being known only costs computing everything.
        return None


def _told(report: Report) -> dict[str, Any]:
    told: dict[str, Any] = {
        "outcomes": report.outcomes,
        "without_outcome": report.missing,
        "not_yet_known": report.waiting,
        "duplicates": report.duplicates,
        "days_computed": report.days,
        "days_changed": len(report.stored.days_changed),
    }
    if report.seen is not None:
        told[BROUGHT] = dg.MetadataValue.json(report.seen.record())
    return told


def _table(report: pl.DataFrame) -> str:
    shown = report.filter(symbol=performance.ALL).drop("symbol", "window_start", "window_end")
    return markdown_table(shown.columns, shown.iter_rows())
