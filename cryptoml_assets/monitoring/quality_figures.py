"""Where the figures of the quality report come from: the lake, Dagster's runs, the service."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.errors import ApprovalError, ServiceMetricsError
from cryptoml_assets.monitoring.quality import Figure, Report, judge, rules
from cryptoml_assets.monitoring.scrape import Counters, ServiceFigures, look
from cryptoml_assets.monitoring.stale import stale

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptoml_assets.resources.lake import Lake
    from cryptoml_assets.resources.runs import RunFigures
    from cryptoml_assets.settings import Settings

#: Time back to which runs are counted.
RUNS_SINCE = timedelta(days=7)
_DAY, _WEEK = "24h", "7d"
_LIVE = ("accuracy", "accuracy_trend", "mse")
#: Share of the pairs above which those that could not be judged leave drift unknown.
_MOST_UNJUDGED = 0.25


def quality_report(
    configured: Settings,
    lake: Lake,
    runs: Mapping[str, RunFigures],
    service: ServiceFigures | str,
    now: datetime,
) -> Report:
    """Measure and judge everything.

    Args:
        configured: what the rules are.
        lake: holds the reports.
        runs: by pipeline.
        service: of :func:`look_at_service`.
        now: the world's present instant, UTC.
    """
    figures = {
        **of_runs(runs),
        **_live(configured, lake, now),
        "drift": of_drift(_table(lake, "feature_drift"), now),
        **of_service(service),
    }
    return judge(figures, rules(configured), now, configured.world.value)


def look_at_service(configured: Settings, before: Mapping[str, Counters]) -> ServiceFigures | str:
    """How the inference service did since ``before``; why that is not known where it is not."""
    try:
        return look(configured, before)
    except ServiceMetricsError as error:
        return str(error)


def of_runs(runs: Mapping[str, RunFigures]) -> dict[str, Figure]:
    """Success rate and mean time of the runs, of the pipeline that does worst.

    Many small runs that succeed say nothing of a pipeline that always fails.
    """
    rates = {each: own.success_rate for each, own in runs.items() if own.success_rate is not None}
    means = {each: own.mean_seconds for each, own in runs.items() if own.mean_seconds is not None}
    least = min(rates, key=rates.__getitem__, default="")
    longest = max(means, key=means.__getitem__, default="")
    none = Figure(None, "no run ended in the time looked at")
    return {
        "success_rate": Figure(rates[least], least) if least else none,
        "run_seconds": Figure(means[longest], longest) if longest else none,
    }


def of_service(service: ServiceFigures | str) -> dict[str, Figure]:
    """Latency, memory and error rate of the inference service."""
    if isinstance(service, str):
        return dict.fromkeys(("latency_ms", "memory_mb", "error_rate"), Figure(None, service))
    idle = "" if service.requests else "no request since the last look, or since it started"
    return {
        "latency_ms": Figure(service.latency_ms[95], idle),
        "memory_mb": Figure(service.memory_mb),
        "error_rate": Figure(service.error_rate, idle),
    }


def of_performance(
    performance: pl.DataFrame | None, champion: str | None, now: datetime
) -> dict[str, Figure]:
    """Live accuracy of the champion, its trend and the squared error; unknown where out of date.

    Args:
        performance: the table of that name, where there is one.
        champion: version that answers by the decisions, if one does.
        now: the world's present instant.
    """
    if performance is None or champion is None:
        why = "there is no champion" if champion is None else "no outcomes of predictions yet"
        return dict.fromkeys(_LIVE, Figure(None, why))
    if why := stale(performance, now):
        return dict.fromkeys(_LIVE, Figure(None, why))
    own = performance.filter(
        pl.col("role") == "champion",
        pl.col("symbol") == "all",
        pl.col("model_version") == champion,
        pl.col("predictions") > 0,
    )
    day, week = (own.filter(pl.col("time_window") == name) for name in (_DAY, _WEEK))
    today, lately = _mean(day, "accuracy"), _mean(week, "accuracy")
    why = "" if today is not None else f"no outcome of version {champion} in the last 24 hours"
    trend = None if today is None or lately is None else today - lately
    grave = bool(pl.concat([day, week])["below_promise"].any())
    return {
        "accuracy": Figure(today, why or ("below what was promised" if grave else ""), grave=grave),
        "accuracy_trend": Figure(trend, why),
        "mse": Figure(_mean(day, "mse"), why),
    }


def of_drift(report: pl.DataFrame | None, now: datetime) -> Figure:
    """Share of the judged pairs of feature and symbol that drifted; unknown where out of date."""
    if report is None:
        return Figure(None, "no drift report yet")
    if why := stale(report, now):
        return Figure(None, why)
    judged = report.filter(pl.col("psi").is_not_null())
    if judged.is_empty():
        return Figure(None, "too few rows to judge any feature")
    unjudged = report.height - judged.height
    partial = unjudged > _MOST_UNJUDGED * report.height
    why = f"{unjudged} of {report.height} pairs could not be judged" if partial else ""
    return Figure(float(judged["drifted"].sum()) / judged.height, why, partial=partial)


def _live(configured: Settings, lake: Lake, now: datetime) -> dict[str, Figure]:
    from cryptoml_assets.deployment import standing  # noqa: PLC0415
    from cryptoml_serving.contract.approval import ApprovalInvalidError  # noqa: PLC0415

    try:
        champion = standing.current(configured).champion_version
    except (ApprovalError, ApprovalInvalidError) as error:
        return dict.fromkeys(_LIVE, Figure(None, str(error)))
    return of_performance(_table(lake, "model_performance"), champion, now)


def _mean(rows: pl.DataFrame, column: str) -> float | None:
    """Mean of a figure of several rows, each counting by its predictions."""
    known = rows.filter(pl.col(column).is_not_null())
    if known.is_empty():
        return None
    return float(known.select((pl.col(column) * pl.col("predictions")).sum()).item()) / float(
        known["predictions"].sum()
    )


def _table(lake: Lake, name: str) -> pl.DataFrame | None:
    return lake.scan(name).collect() if lake.exists(name) else None
