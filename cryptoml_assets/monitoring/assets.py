"""Monitoring assets: how far inputs and answers of today are from those a model was made with."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.deployment import standing
from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.features.catalog import features_of, row_inputs
from cryptoml_assets.monitoring import drift, drift_figures, reference
from cryptoml_assets.monitoring.conditions import once_there_is
from cryptoml_assets.monitoring.prediction_drift import OUTPUTS, outputs, served_answers
from cryptoml_assets.monitoring.two_sample import Windows
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns
from cryptoml_serving.contract.served import SERVED_PREDICTIONS

_DESCRIBED = described_columns(drift.SCHEMA, drift.MEANINGS, drift.KEY)
_tick: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed("0 * * * *")
#: Once an hour.
_hourly = _tick.since_last_handled() & ~dg.AutomationCondition.in_progress()


class DriftConfig(dg.Config):
    """What a run compares; the recent window is as long as its reference allows, and no longer."""

    window_days: int = 7


@dg.asset(
    group_name="monitoring",
    kinds={"polars", "deltalake"},
    owners=["team:platform"],
    code_version="3",
    io_manager_key="lake",
    required_resource_keys={"lake", "tracker"},
    automation_condition=_hourly & once_there_is("training_set"),
    metadata=_DESCRIBED,
)
def feature_drift(
    context: dg.AssetExecutionContext,
    config: DriftConfig,
    training_set: pl.LazyFrame,
    price_features: pl.LazyFrame,
    onchain_features: pl.LazyFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """How far each model input has moved from the rows the champion learnt on.

    One row per feature and symbol: the newest window against the champion's training window, or
    the newest training set without a champion. A pair has drifted where its distributions differ
    beyond chance and its population stability index is above the threshold: the probability of
    any drifted pair where nothing has drifted is at most `CRYPTOML_DRIFT_SIGNIFICANCE`. Null where
    too little data allows no judgement. Daily inputs are compared with all days before the end of
    that training window, and the newest window of them is longer. Lags are left out, and so is what
    only the calendar tells.
    """
    configured = settings()
    now, rules = configured.clock(), _rules(configured, config)
    champion = standing.current(configured).champion
    client = context.resources.tracker.client() if champion else None
    past = reference.learnt_rows(
        context.resources.lake.lake, client, champion, training_set, _spans()
    )
    chain, bars = _parted(past.spans)
    days = reference.daily_rows(onchain_features, chain)
    # All of them, and not only those it learnt from: windows of days need many.
    before = days.filter(pl.col("event_timestamp") <= past.rows["event_timestamp"].max())
    (windows, of_bars), (longer, of_days) = drift.windows_of_both(past.rows, before, now, rules)
    start = now - (windows.width if windows else rules.longest)
    current = _newest(price_features, start, now, list(bars))
    symbols = current["symbol"].unique().sort().to_list()
    shared: dict[str, Any] = {"now": now, "model_version": past.model_version, "symbols": symbols}
    report = pl.concat(
        [
            drift.drift_report(past.rows, current, bars, windows, of_bars, **shared),
            drift.drift_report(before, days, chain, longer, of_days, **shared),
        ]
    ).sort(drift.KEY)
    context.log.info("compared with %s", past.told)
    shown = [
        drift.before_and_now(past.rows.drop(list(chain)), current, windows, now),
        drift.before_and_now(before, days, longer, now),
    ]
    told = {"reference": past.told, **_told(longer, "daily_")}
    then, newest = (pl.concat(each, how="diagonal") for each in zip(*shown, strict=True))
    return _result(report, rules, windows, told, (then, newest))


@dg.asset(
    deps=[SERVED_PREDICTIONS],
    group_name="monitoring",
    kinds={"polars", "mlflow", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    io_manager_key="lake",
    required_resource_keys={"lake", "tracker"},
    automation_condition=_hourly & once_there_is("validated_deployment"),
    metadata=_DESCRIBED,
)
def prediction_drift(
    context: dg.AssetExecutionContext, config: DriftConfig
) -> dg.MaterializeResult[pl.DataFrame]:
    """How far what the champion answers has moved from its own answers out of sample.

    One row per output and symbol, by the rules of `feature_drift`: the expected return, the width
    of the 90 % interval and the probability of a rise in the newest window of served predictions
    against the newest test part of its training run. Empty before anything was served.
    """
    configured = settings()
    now, rules = configured.clock(), _rules(configured, config)
    champion = standing.current(configured).champion
    if champion is None:
        empty = pl.DataFrame(schema=drift.SCHEMA)
        return _result(empty, rules, None, {"reference": "there is no champion"})
    answers = reference.promised_answers(context.resources.tracker.client(), champion)
    past = outputs(answers)
    windows = drift.recent_windows(past, now, rules)
    start = now - (windows.width if windows else rules.longest)
    served = served_answers(context.resources.lake.lake, champion, start, now)
    version = champion.record.model_version
    spans = dict.fromkeys(OUTPUTS, 1)
    report = drift.drift_report(past, served, spans, windows, rules, now=now, model_version=version)
    told = {"reference": f"what version {version} answered in its newest test part"}
    shown = drift.before_and_now(past, served, windows, now)
    return _result(report, rules, windows, told, shown)


def _rules(configured: Settings, config: DriftConfig) -> drift.Rules:
    return drift.Rules(
        threshold=configured.drift_threshold,
        significance=configured.drift_significance,
        minimum=configured.drift_minimum,
        share=configured.drift_share,
        longest=timedelta(days=config.window_days),
    )


def _result(
    report: pl.DataFrame,
    rules: drift.Rules,
    windows: Windows | None,
    told: dict[str, Any],
    shown: tuple[pl.DataFrame, pl.DataFrame] | None = None,
) -> dg.MaterializeResult[pl.DataFrame]:
    share = drift.drifted_share(report)
    version = report["model_version"].drop_nulls().first()
    figure = drift_figures.distributions(*shown, report) if shown else None
    drawn = {"distributions": figure_metadata(figure)} if figure else {}
    return dg.MaterializeResult(
        value=report,
        metadata={
            "drifted_share": share.share,
            "drifted": share.drifted,
            "judged": share.judged,
            "unjudged": share.unjudged,
            "pairs": report.height,
            "alarm": share.share >= rules.share,
            "model_version": str(version or "none"),
            **told,
            **_told(windows),
            "heat_map": figure_metadata(drift_figures.heat_map(report, rules.threshold)),
            **drawn,
        },
    )


def _told(windows: Windows | None, prefix: str = "") -> dict[str, Any]:
    """What was compared, and after how long a change fills the newest window."""
    if windows is None:
        return {f"{prefix}window": "none: the reference is too short"}
    told = {
        "delay_hours": windows.width / timedelta(hours=1),
        "reference_start": windows.start.isoformat(),
        "reference_end": windows.end.isoformat(),
        "independent_windows": windows.independent,
    }
    return {f"{prefix}{name}": value for name, value in told.items()}


def _spans() -> dict[str, int]:
    """Rows of its own table that a value of each judged input is about.

    Of lags nothing is told: they drift with what they are lags of, and would count it often. Nor
    of the calendar, which is made of no table: the hours of a window are known before it begins.
    """
    return {feature.name: feature.window for feature in row_inputs() if feature.sources}


def _parted(spans: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """The spans of daily inputs, and those of inputs with a value for each bar."""
    daily = {feature.name for feature in features_of("onchain_features")}
    return (
        {name: span for name, span in spans.items() if name in daily},
        {name: span for name, span in spans.items() if name not in daily},
    )


def _newest(
    price: pl.LazyFrame, start: datetime, now: datetime, names: Sequence[str]
) -> pl.DataFrame:
    """The rows of the newest window.

    Raises:
        TrainingDataError: there are none.
    """
    recent = price.filter(
        pl.col("date") >= start.date() - timedelta(days=1),
        pl.col("event_timestamp").is_between(start, now, closed="right"),
    )
    rows = recent.select("symbol", "event_timestamp", "source", *names).collect()
    if rows.is_empty():
        message = f"price_features has no rows between {start} and {now}: nothing to compare"
        raise TrainingDataError(message)
    return rows
