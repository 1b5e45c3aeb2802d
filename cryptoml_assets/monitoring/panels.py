"""Panels of the Grafana dashboard as plain dictionaries: what is asked, and how it is drawn.

Every query is PromQL over the metrics of the inference service and of the asset graph. ``$model``
and ``$window`` are variables of the dashboard: the registered model, and the span of a rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: The dashboard's variable that names the Prometheus to ask.
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_MODEL = 'model_name=~"$model"'

Kind = Literal["timeseries", "stat", "table", "heatmap", "state-timeline", "bargauge"]


@dataclass(frozen=True)
class Query:
    """One PromQL expression, what its series are called, and whether only now is asked for."""

    expression: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: short, of its own.
        description: what a person should know to read it.
        kind: of Grafana's visualisations.
        queries: what is asked.
        unit: Grafana's name of the unit, e.g. ``s``, ``percentunit``, ``currencyUSD``.
        width: of the dashboard's 24 columns.
        steps: colours by the value from which on they hold, the first one's value being none.
        mappings: words for values.
    """

    title: str
    description: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    mappings: tuple[tuple[str, str, str], ...] = ()

    def json(self, number: int, place: Mapping[str, int]) -> dict[str, Any]:
        """The panel as Grafana stores it, under a number of its own and at a place."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": dict(place),
            "targets": [self._target(each, n) for n, each in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": _OPTIONS[self.kind],
        }

    def _defaults(self) -> dict[str, Any]:
        words = {
            value: {"text": text, "color": colour, "index": place}
            for place, (value, text, colour) in enumerate(self.mappings)
        }
        return {
            "unit": self.unit,
            "thresholds": {
                "mode": "absolute",
                "steps": [{"value": value, "color": colour} for value, colour in self.steps],
            },
            "mappings": [{"type": "value", "options": words}] if words else [],
        }

    def _target(self, query: Query, place: int) -> dict[str, Any]:
        return {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "expr": query.expression,
            "legendFormat": query.legend or "__auto",
            "instant": query.instant,
            "range": not query.instant,
            # Rows of a table are not called by the legend, series of all other kinds are.
            "format": "table" if self.kind == "table" else "time_series",
        }


_REDUCED = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
_OPTIONS: Mapping[Kind, Mapping[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {**_REDUCED, "colorMode": "background", "graphMode": "none", "textMode": "auto"},
    "bargauge": {**_REDUCED, "displayMode": "basic", "orientation": "horizontal"},
    "table": {"showHeader": True},
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "RdYlGn", "reverse": True, "min": 0, "max": 0.5},
        "yAxis": {"axisPlacement": "left"},
        "cellGap": 1,
    },
    "state-timeline": {"showValue": "never", "mergeValues": True, "rowHeight": 0.9},
}
_HEALTH = (
    ("-1", "UNKNOWN", "text"),
    ("0", "HEALTHY", "green"),
    ("1", "WARNING", "orange"),
    ("2", "CRITICAL", "red"),
)
#: Share of the 90 % intervals' coverage below which they are too narrow, and above too wide.
_COVERAGE = ((None, "orange"), (0.85, "green"), (0.95, "orange"))


def _quantile(share: str) -> str:
    buckets = f"rate(prediction_latency_seconds_bucket{{{_MODEL}}}[$window])"
    return f"histogram_quantile({share}, sum by (le) ({buckets}))"


def _rate(title: str, description: str, metric: str, *, by: Sequence[str]) -> Panel:
    """How often something happens per second, a series for each value of the labels ``by``."""
    summed = f"sum by ({', '.join(by)}) (rate({metric}[$window]))"
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return Panel(title, description, "timeseries", (Query(summed, legend),), unit="reqps")


MODEL_PANELS = (
    Panel(
        "Quality",
        "What the newest quality report adds up to",
        "stat",
        (Query('quality_state{metric="overall"}', "quality"),),
        width=4,
        mappings=_HEALTH,
    ),
    Panel(
        "Model",
        "The versions that may serve, by the newest signed decision, and what each may do",
        "table",
        (Query(f"deployed_model_info{{{_MODEL}}}", instant=True),),
        width=12,
    ),
    Panel(
        "Version served",
        "The version that the inference service has loaded",
        "table",
        (Query(f"model_info{{{_MODEL}}}", instant=True),),
    ),
    Panel(
        "Accuracy by window",
        "Share of the directions that came true, beside what was promised at approval",
        "timeseries",
        (
            Query(f"model_accuracy{{{_MODEL}}}", "{{time_window}}"),
            Query(f"model_promised_accuracy{{{_MODEL}}}", "promised {{time_window}}"),
        ),
        unit="percentunit",
    ),
    Panel(
        "Log loss by window",
        "Mean log loss of the probabilities; ln 2 = 0.693 is a coin's",
        "timeseries",
        (Query(f"model_log_loss{{{_MODEL}}}", "{{time_window}}"),),
    ),
    Panel(
        "Coverage of the 90 % interval",
        "Share of the outcomes inside the interval; near 0.90 when calibrated",
        "timeseries",
        (Query(f"model_coverage{{{_MODEL}}}", "{{time_window}}"),),
        unit="percentunit",
        steps=_COVERAGE,
    ),
    Panel(
        "Profit and loss",
        "After costs, of following the predictions of each role; on paper",
        "timeseries",
        (Query("sum by (strategy, symbol) (trading_pnl_usd)", "{{strategy}} {{symbol}}"),),
        unit="currencyUSD",
        width=12,
    ),
    Panel(
        "Gate verdicts",
        "Candidates approved and rejected, and the criteria they did not pass",
        "bargauge",
        (
            Query(f"sum by (verdict) (gate_verdicts_total{{{_MODEL}}})", "{{verdict}}"),
            Query(f"sum by (criterion) (gate_failures_total{{{_MODEL}}})", "failed {{criterion}}"),
        ),
        width=12,
    ),
)
SERVICE_PANELS = (
    Panel(
        "Latency",
        "From the parsed request to the answer",
        "timeseries",
        tuple(
            Query(_quantile(share), name)
            for share, name in (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))
        ),
        unit="s",
    ),
    _rate(
        "Requests",
        "Requests for a prediction of a served symbol, per second",
        f"prediction_requests_total{{{_MODEL}}}",
        by=("symbol",),
    ),
    _rate(
        "Errors",
        "Answers with an error, per second, by type; the callers' own mistakes among them",
        "prediction_errors_total",
        by=("error_type",),
    ),
    _rate(
        "Answers by version",
        "Requests answered, per second, by the version that made the prediction and its role",
        "prediction_answers_total",
        by=("model_version", "role"),
    ),
    Panel(
        "Time of models",
        "95th percentile of the time a version takes for all symbols; challengers beside the "
        "champion",
        "timeseries",
        (
            Query(
                "histogram_quantile(0.95, sum by (le, model_version, role) "
                "(rate(model_predict_seconds_bucket[$window])))",
                "{{model_version}} {{role}}",
            ),
        ),
        unit="s",
    ),
    Panel(
        "Predictions to be kept",
        "Served predictions that wait for the lake, and those lost because queue and disk were "
        "full",
        "timeseries",
        (
            Query("prediction_log_pending", "waiting"),
            Query("prediction_log_dropped_total", "lost"),
        ),
    ),
    Panel(
        "CPU",
        "Cores that each process uses",
        "timeseries",
        (Query("rate(process_cpu_seconds_total[$window])", "{{job}} {{instance}}"),),
        unit="cores",
    ),
    Panel(
        "Memory",
        "Resident memory of each process",
        "timeseries",
        (Query("process_resident_memory_bytes", "{{job}} {{instance}}"),),
        unit="bytes",
    ),
    Panel(
        "Champion",
        "Whether the version that answers is the champion of the newest signed decision",
        "stat",
        (Query("max(champion_not_served)", "champion"),),
        mappings=(("0", "SERVED", "green"), ("1", "NOT SERVED", "red")),
    ),
)
DATA_PANELS = (
    Panel(
        "Feature drift",
        "Population stability index of each model input, the worst of its symbols",
        "heatmap",
        (Query("max by (feature_name) (feature_drift_score)", "{{feature_name}}"),),
        width=12,
    ),
    Panel(
        "Drift by feature and symbol",
        "The same, as of now, for each symbol",
        "table",
        (Query("sort_desc(feature_drift_score)", instant=True),),
        width=6,
        steps=((None, "green"), (0.1, "orange"), (0.25, "red")),
    ),
    Panel(
        "Prediction drift",
        "Population stability index of each output",
        "timeseries",
        (Query("prediction_drift_score", "{{output_name}} {{symbol}}"),),
        width=6,
    ),
    Panel(
        "Freshness",
        "Time since the newest partition of each asset was materialised",
        "bargauge",
        (Query("sort_desc(asset_age_seconds)", "{{asset}}", instant=True),),
        unit="s",
    ),
    Panel(
        "Age of served features",
        "Time since the instant of the features that predictions are made from",
        "timeseries",
        (Query("feature_age_seconds", "{{symbol}}"),),
        unit="s",
    ),
    Panel(
        "Quality by figure",
        "State of each figure of the quality report",
        "state-timeline",
        (Query('quality_state{metric!="overall"}', "{{metric}}"),),
        mappings=_HEALTH,
    ),
    Panel(
        "Runs",
        "Runs that ended since Dagster's home was made",
        "bargauge",
        (Query("sum by (pipeline, status) (pipeline_runs_total) > 0", "{{pipeline}} {{status}}"),),
        width=6,
    ),
    Panel(
        "Time of runs",
        "How long the newest finished run of each pipeline took",
        "bargauge",
        (Query("pipeline_run_seconds", "{{pipeline}}"),),
        unit="s",
        width=6,
    ),
    Panel(
        "Failures",
        "Failed runs by the class of the error, and sources of metrics that could not be read",
        "bargauge",
        (
            Query("sum by (error_type) (pipeline_errors_total)", "{{error_type}}"),
            Query("sum by (source) (exporter_errors_total)", "metrics of {{source}}"),
        ),
        width=6,
    ),
    Panel(
        "Notices",
        "Tries to tell people, by channel and how they ended: sent, failed, refused or expired",
        "bargauge",
        (Query("sum by (channel, outcome) (notices_total)", "{{channel}} {{outcome}}"),),
        width=6,
    ),
)
#: The rows of the dashboard: a title and its panels.
ROWS: Sequence[tuple[str, tuple[Panel, ...]]] = (
    ("Model", MODEL_PANELS),
    ("Inference service", SERVICE_PANELS),
    ("Data and pipelines", DATA_PANELS),
)
