"""The asset that says, each hour, how the platform does."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.monitoring import quality
from cryptoml_assets.monitoring.scrape import Counters, counters_of
from cryptoml_assets.plots import figure_metadata, new_figure
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.runs import run_figures
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEANINGS = {
    "metric": "figure of the platform; overall is what the others add up to",
    "value": "the figure in the unit that its rule names; null where it is not known",
    "threshold": "bound of a healthy figure",
    "rule": "the rule in words",
    "state": "HEALTHY, WARNING, CRITICAL or UNKNOWN",
    "why": "why there is no value, or what it is of; in the row overall, what is not healthy",
    "reported_at": "when the report was made (UTC)",
    "source": "the world whose platform this is",
}
#: Metadata that says what the inference service had counted.
COUNTED = "counted"
#: Shortest time that a report is made of, and how many reports are searched for its beginning.
_LEAST, _LOOKS = timedelta(minutes=30), 10
_COLOURS = {"HEALTHY": "#2e7d32", "WARNING": "#ef6c00", "CRITICAL": "#c62828", "UNKNOWN": "#757575"}
_tick: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed("15 * * * *")
#: Once an hour, after the hour's figures: a platform that does nothing is worth a report as well.
_hourly = _tick.since_last_handled() & ~dg.AutomationCondition.in_progress()


@dg.asset(
    group_name="monitoring",
    kinds={"polars", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    io_manager_key="lake",
    deps=["model_performance", "feature_drift"],
    automation_condition=_hourly,
    metadata=described_columns(quality.SCHEMA, _MEANINGS, ("metric",)),
)
def quality_report(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.MaterializeResult[pl.DataFrame]:
    """How the platform does: runs, live accuracy, drift and inference service, each by its rule.

    One row per figure with its threshold and state, and a last one for all of them. A figure that
    nobody could measure, as of a service that does not answer, is UNKNOWN and keeps the whole from
    being HEALTHY. Latency and error rate are those of the time since the report before. The report
    also lies as JSON and Markdown in `reports` of the home folder.
    """
    from cryptoml_assets.monitoring import quality_figures  # noqa: PLC0415

    configured = settings()
    at = datetime.now(UTC)
    runs = run_figures(context.instance, at - quality_figures.RUNS_SINCE)
    service = quality_figures.look_at_service(configured, last_look(context.instance, at))
    made = quality_figures.quality_report(configured, lake.lake, runs, service, configured.clock())
    counted = (
        {}
        if isinstance(service, str)
        else {
            COUNTED: dg.MetadataValue.json(
                {address: asdict(each) for address, each in service.counters.items()}
            )
        }
    )
    markdown, as_json = quality.write(made, configured.home_path / "reports")
    if made.overall is not quality.State.HEALTHY:
        context.log.warning("quality is %s: %s", made.overall, made.verdict)
    return dg.MaterializeResult(
        value=quality.table(made),
        metadata={
            "overall": made.overall.value,
            "verdict": made.verdict,
            "markdown": dg.MetadataValue.md(quality.as_markdown(made)),
            "json": dg.MetadataValue.json(quality.told(made)),
            **counted,
            "board": figure_metadata(_board(made)),
            "markdown_file": dg.MetadataValue.path(str(markdown)),
            "json_file": dg.MetadataValue.path(str(as_json)),
        },
    )


def last_look(instance: dg.DagsterInstance, now: datetime) -> dict[str, Counters]:
    """What each worker had counted at the report to compare with: the newest of long enough ago.

    A report made by hand right after another one would find no request in between.
    """
    records = instance.fetch_materializations(dg.AssetKey("quality_report"), limit=_LOOKS).records
    for record in records:
        entry: Any = record.asset_materialization and record.asset_materialization.metadata.get(
            COUNTED
        )
        if entry and now.timestamp() - record.timestamp >= _LEAST.total_seconds():
            return counters_of(entry.value)
    return {}


def _board(made: quality.Report) -> "Figure":
    """A bar per figure in the colour of its state, with what was measured."""
    lines = made.lines[::-1]
    figure = new_figure(8, 0.8 + 0.36 * len(lines))
    axes = figure.subplots()
    names = [f"{each.rule.metric}  ({each.rule.side} {each.rule.threshold:g})" for each in lines]
    axes.barh(names, [1.0] * len(lines), color=[_COLOURS[each.state] for each in lines])
    for place, each in enumerate(lines):
        value = each.why or "not known" if each.value is None else f"{each.value:.4g}"
        axes.text(
            0.02, place, f"{each.state}: {value[:70]}", va="center", color="white", fontsize="small"
        )
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.set_title(f"Quality: {made.overall}")
    return figure
