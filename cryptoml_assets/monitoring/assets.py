"""Monitoring assets: how far today's inputs are from what the models learnt on."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.features.catalog import row_inputs
from cryptoml_assets.features.point_in_time import as_of
from cryptoml_assets.features.training_set import model_inputs
from cryptoml_assets.monitoring import drift
from cryptoml_assets.plots import figure_metadata, new_figure
from cryptoml_assets.settings import settings
from cryptoml_assets.tables import described_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEANINGS = {
    "feature": "model input",
    "symbol": "base and quote currency, BASE/QUOTE",
    "psi": "population stability index; null where not judged",
    "threshold": "index above which a feature has drifted",
    "drifted": "whether it has; false where not judged",
    "window_start": "start of the recent rows (UTC)",
    "window_end": "end of the recent rows (UTC)",
    "reference_rows": "training rows with a value",
    "current_rows": "recent rows with a value",
    "source": "source of the newest recent row",
}
_tick: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed("0 * * * *")
#: Once an hour, after a first report was asked for: before any training there is no reference.
_hourly = (
    _tick.since_last_handled()
    & ~dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.in_progress()
)


class DriftConfig(dg.Config):
    """What a run of ``feature_drift`` compares."""

    window_days: int = 7


@dg.asset(
    group_name="monitoring",
    kinds={"polars", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    io_manager_key="lake",
    automation_condition=_hourly,
    metadata=described_columns(drift.SCHEMA, _MEANINGS, ("feature", "symbol")),
)
def feature_drift(
    config: DriftConfig,
    training_set: pl.LazyFrame,
    price_features: pl.LazyFrame,
    onchain_features: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """How far each model input has moved from the rows the models learnt on.

    One row per feature and symbol: the population stability index of the newest days against the
    training set, null where too few independent values allow no judgement. Lags are left out.
    """
    configured = settings()
    now = configured.clock()
    start = now - timedelta(days=config.window_days)
    recent = price_features.filter(
        pl.col("date") >= start.date() - timedelta(days=1),
        pl.col("event_timestamp").is_between(start, now, closed="right"),
    )
    rows = recent.select("symbol", "event_timestamp", "source").collect()
    current = as_of(rows, model_inputs(price_features, onchain_features))
    if current.is_empty():
        message = f"price_features has no rows between {start} and {now}: nothing to compare"
        raise TrainingDataError(message)
    report = drift.feature_drift(
        training_set.collect(),
        current,
        _spans(configured.bar),
        threshold=configured.drift_threshold,
        window=(start, now),
    )
    share = drift.drifted_share(report)
    return dg.MaterializeResult(
        value=report,
        metadata={
            "drifted_share": share.share,
            "drifted": share.drifted,
            "judged": share.judged,
            "pairs": report.height,
            "heat_map": figure_metadata(_heat_map(report, configured.drift_threshold)),
        },
    )


def _spans(bar: timedelta) -> dict[str, int]:
    """Rows that share one independent value: a feature's window, or a day for daily features.

    Of lags nothing is told: they drift with what they are lags of, and would count it often.
    """
    day = timedelta(days=1) // bar
    return {
        feature.name: day if feature.table == "onchain_features" else feature.window
        for feature in row_inputs()
    }


def _heat_map(report: pl.DataFrame, threshold: float) -> "Figure":
    table = report.pivot(on="symbol", index="feature", values="psi")
    symbols = table.columns[1:]
    figure = new_figure(1.6 + 1.3 * max(len(symbols), 3), 1.2 + 0.32 * max(table.height, 3))
    axes = figure.subplots()
    image = axes.imshow(
        table.select(symbols).cast(pl.Float64).to_numpy(),
        vmin=0.0,
        vmax=2 * threshold,
        cmap="RdYlGn_r",
        aspect="auto",
    )
    axes.set_xticks(range(len(symbols)), symbols)
    axes.set_yticks(range(table.height), table["feature"].to_list())
    axes.set_title(f"Population stability index (drifted above {threshold:g}; blank: not judged)")
    figure.colorbar(image, ax=axes)
    return figure
