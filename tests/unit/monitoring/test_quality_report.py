from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cryptoml_assets.monitoring import quality, quality_assets, stale
from cryptoml_assets.monitoring.quality import Figure, Report, State, overall
from cryptoml_assets.monitoring.quality_assets import last_look, quality_report
from cryptoml_assets.monitoring.quality_figures import (
    of_drift,
    of_performance,
    of_runs,
    of_service,
)
from cryptoml_assets.monitoring.revisions_assets import revision_impact
from cryptoml_assets.monitoring.scrape import counters_of, figures, parse
from cryptoml_assets.resources import runs as run_storage
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.runs import RunFigures, run_figures
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.approval import write_public_key
from tests.automation import minutes_asked
from tests.deployment_world import KEY, decided, decision
from tests.monitored_lake import FEATURES, NOW, performance_row, write_drift, write_performance
from tests.sandbox_server import serve

SERVICE = """\
# TYPE service_ready gauge
service_ready 1
# TYPE prediction_requests_total counter
prediction_requests_total{symbol="BTC/USDT"} 200
# TYPE prediction_answers_total counter
prediction_answers_total{model_version="1",role="champion"} 196
# TYPE prediction_latency_seconds histogram
prediction_latency_seconds_bucket{le="0.01"} 196
prediction_latency_seconds_bucket{le="+Inf"} 196
prediction_latency_seconds_count 196
"""

GOOD = {
    "success_rate": 0.95,
    "run_seconds": 3600.0,
    "accuracy": 0.5,
    "mse": 0.1,
    "accuracy_trend": -0.01,
    "drift": 0.1,
    "latency_ms": 100.0,
    "memory_mb": 2048.0,
    "error_rate": 0.01,
}
#: Just past each threshold, and just past what makes it critical.
WORSE = {
    "success_rate": (0.949, 0.899),
    "run_seconds": (3601.0, 7201.0),
    "accuracy": (0.499, None),
    "mse": (0.101, 0.201),
    "accuracy_trend": (-0.0101, -0.0201),
    "drift": (0.101, 0.201),
    "latency_ms": (101.0, 201.0),
    "memory_mb": (2049.0, 4097.0),
    "error_rate": (0.0101, 0.0201),
}


def report(**values: float | None) -> Report:
    """Of a platform at its very thresholds but for `values`."""
    given = {name: Figure(value) for name, value in {**GOOD, **values}.items()}
    return quality.judge(given, quality.rules(settings()), NOW, "simulated")


def test_a_platform_at_its_very_thresholds_is_healthy() -> None:
    made = report()
    assert [line.rule.metric for line in made.lines] != []
    assert {line.rule.metric: line.value for line in made.lines} == GOOD
    assert made.overall is State.HEALTHY


@pytest.mark.parametrize("metric", WORSE)
def test_each_figure_past_its_bounds(metric: str) -> None:
    miss, grave = WORSE[metric]
    assert report(**{metric: miss}).overall is State.WARNING
    assert report(**{metric: miss}).verdict == f"warning: {metric}"
    if grave is not None:
        assert report(**{metric: grave}).overall is State.CRITICAL


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_what_is_not_known_never_counts_as_healthy(nothing: float | None) -> None:
    made = report(mse=nothing)
    assert made.overall is State.WARNING
    assert made.verdict == "unknown: mse"
    assert quality.judge({}, quality.rules(settings()), NOW, "simulated").overall is State.WARNING
    assert overall([]) is State.WARNING
    assert overall([State.UNKNOWN, State.CRITICAL]) is State.CRITICAL


def test_thresholds_are_settings() -> None:
    configured = settings().model_copy(update={"quality_mse": 1.0, "quality_success_rate": 1.0})
    ruled = quality.rules(configured)
    given = {name: Figure(value) for name, value in {**GOOD, "mse": 0.9}.items()}
    made = quality.judge(given, ruled, NOW, "simulated")
    assert {line.rule.metric for line in made.lines if line.state is not State.HEALTHY} == {
        "success_rate"
    }


def test_the_report_is_the_same_as_table_json_and_markdown(tmp_path: Path) -> None:
    made = report(drift=0.15, memory_mb=None)
    table = quality.table(made)
    assert table.schema == quality.SCHEMA
    assert table["metric"].to_list() == [*(line.rule.metric for line in made.lines), "overall"]
    assert table.row(-1, named=True) | {"rule": ""} == {
        "metric": "overall",
        "value": None,
        "threshold": None,
        "rule": "",
        "state": "WARNING",
        "why": "warning: drift; unknown: memory_mb",
        "reported_at": NOW,
        "source": "simulated",
    }
    markdown, as_json = quality.write(made, tmp_path / "reports")
    read = json.loads(as_json.read_text())
    assert read["overall"] == "WARNING"
    states = dict(table.select("metric", "state").iter_rows())
    assert {each["metric"]: each["state"] for each in read["figures"]} | {
        "overall": "WARNING"
    } == states
    lines = markdown.read_text().splitlines()
    assert lines[0] == "# Quality: WARNING"
    for name, state in states.items():
        assert name == "overall" or any(f"| {name} | " in x and f" {state} " in x for x in lines)
    assert sorted(file.name for file in (tmp_path / "reports").iterdir()) == [
        "quality.json",
        "quality.md",
    ]


def test_live_figures_are_those_of_the_standing_champion(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write_performance(
        lake,
        performance_row(accuracy=0.575, mse=1.25e-4),
        performance_row(accuracy=0.1, model_version="2", below_promise=True),
        performance_row(accuracy=0.1, role="shadow", model_version="3", below_promise=True),
        performance_row("7d", accuracy=0.625),
        performance_row("1h", accuracy=0.0),
    )
    table = lake.scan("model_performance").collect()
    told = of_performance(table, "1", NOW)
    assert told["accuracy"] == Figure(pytest.approx(0.575), grave=False)
    assert told["accuracy_trend"].value == pytest.approx(-0.05)
    assert told["mse"].value == pytest.approx(1.25e-4)
    for nothing in (of_performance(None, "1", NOW), of_performance(table, None, NOW)):
        assert all(figure.value is None and figure.why for figure in nothing.values())
    assert of_performance(table, "3", NOW)["accuracy"].value is None


def test_figures_of_reports_that_no_longer_come_are_unknown(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write_performance(lake, *(performance_row(w, below_promise=True) for w in ("24h", "7d")))
    write_drift(lake, "feature_drift", FEATURES, 0.1)

    def states(now: datetime) -> dict[str, tuple[State, str]]:
        live = of_performance(lake.scan("model_performance").collect(), "1", now)
        drift = of_drift(lake.scan("feature_drift").collect(), now)
        given = {**live, "drift": drift}
        made = quality.judge(given, quality.rules(settings()), now, "simulated")
        return {each.rule.metric: (each.state, each.why) for each in made.lines}

    figures = ("accuracy", "accuracy_trend", "mse", "drift")
    fresh, late = states(NOW + stale.LONGEST), states(NOW + timedelta(hours=6, minutes=30))
    assert State.UNKNOWN not in {fresh[each][0] for each in figures}
    assert {late[each][0] for each in figures} == {State.UNKNOWN}
    assert "2024-03-01 12:00 UTC, 6.5 hours old" in late["drift"][1]


@pytest.mark.parametrize("window", ["24h", "7d"])
def test_a_broken_promise_is_critical_whatever_the_accuracy(tmp_path: Path, window: str) -> None:
    lake = Lake(str(tmp_path))
    rows = [performance_row(w, accuracy=0.51, below_promise=w == window) for w in ("24h", "7d")]
    write_performance(lake, *rows)
    told = of_performance(lake.scan("model_performance").collect(), "1", NOW)
    made = quality.judge(told, quality.rules(settings()), NOW, "simulated")
    states = {line.rule.metric: line.state for line in made.lines}
    assert (states["accuracy"], states["accuracy_trend"]) == (State.CRITICAL, State.HEALTHY)
    unknown = quality.judge(
        {"accuracy": Figure(None, grave=True)}, quality.rules(settings()), NOW, "simulated"
    )
    assert unknown.overall is State.WARNING


def test_drift_is_the_share_of_what_could_be_judged(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write_drift(lake, "feature_drift", FEATURES, 0.3)
    drift = lake.scan("feature_drift").collect()
    assert of_drift(drift, NOW).value == pytest.approx(2 / 3)
    assert of_drift(drift.with_columns(psi=pl.lit(None, pl.Float64)), NOW).value is None
    assert of_drift(None, NOW).value is None


@pytest.mark.parametrize(
    ("drifted", "unjudged", "state"),
    [
        (0, 45, State.UNKNOWN),
        (0, 20, State.HEALTHY),
        (5, 45, State.WARNING),
        (20, 45, State.CRITICAL),
    ],
)
def test_drift_of_features_nobody_judged_is_not_healthy(
    drifted: int, unjudged: int, state: State
) -> None:
    indices = [*([None] * unjudged), *([0.1] * (80 - unjudged))]
    marks = [n >= 80 - drifted for n in range(80)]
    rows = pl.DataFrame({"psi": indices, "drifted": marks, "window_end": [NOW] * 80})
    figure = of_drift(rows, NOW)
    made = quality.judge({"drift": figure}, quality.rules(settings()), NOW, "simulated")
    (line,) = [each for each in made.lines if each.rule.metric == "drift"]
    assert line.state is state
    assert ("could not be judged" in line.why) is (unjudged == 45)


def test_runs_and_service_say_why_they_have_no_figure() -> None:
    small, large = RunFigures(1000, 1000, 2.0), RunFigures(4, 3, 900.0)
    runs = {"train": large, "single assets": small, "ingest": RunFigures(0, 0, None)}
    assert of_runs(runs) == {
        "success_rate": Figure(0.75, "train"),
        "run_seconds": Figure(900.0, "train"),
    }
    idle = figures({"": parse("# TYPE service_ready gauge\nservice_ready 1\n")})
    for told in (of_runs({}), of_service("no route"), of_service(idle)):
        assert all(figure.value is None for figure in told.values())
        assert all(figure.why for name, figure in told.items() if name != "memory_mb")


def test_each_pipeline_counts_for_itself_and_only_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.op
    def fails() -> None:
        message = "no"
        raise KeyError(message)

    @dg.job
    def train() -> None:
        fails()

    @dg.asset
    def small() -> None: ...

    monkeypatch.setattr(run_storage, "_MOST_RUNS", 3)
    with dg.DagsterInstance.ephemeral() as instance:
        train.execute_in_process(instance=instance, raise_on_error=False)
        everything = dg.Definitions([small]).resolve_implicit_global_asset_job_def()
        for _ in range(4):  # which alone are more than are read
            everything.execute_in_process(instance=instance)
        told = run_figures(instance, datetime.now(UTC) - timedelta(days=1))
        assert {name for name, own in told.items() if own.finished} == {"train", "single assets"}
        assert (told["train"].success_rate, told["single assets"].success_rate) == (0.0, 1.0)
        assert told["train"].mean_seconds is not None
        later = run_figures(instance, datetime.now(UTC) + timedelta(days=1))
        assert set(later.values()) == {RunFigures(0, 0, None)}


@pytest.mark.filterwarnings("ignore:Parameter .include_sources. of function .AssetSelection.all.")
@pytest.mark.parametrize(
    "asset", [quality_report, revision_impact], ids=lambda each: each.key.path[0]
)
def test_reports_begin_by_themselves(asset: dg.AssetsDefinition) -> None:
    first = asset is quality_report
    given = ("validated_deployment", *(key.path[0] for key in asset.dependency_keys))
    minutes = (0, 50, 55, 110, 115, 170)
    asked = minutes_asked(asset, given, minutes, {110: "validated_deployment"})
    assert asked == ([50, 110, 170] if first else [110, 170])


def test_the_asset_reports_on_whatever_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOML_INFERENCE_ADMIN_URLS", "http://127.0.0.1:9")
    monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
    settings.cache_clear()
    uri = str(tmp_path / "lake")
    write_performance(Lake(uri), performance_row(), performance_row("7d"))
    decided(Lake(settings().lake_uri), decision(1))
    settings().public_key_path.parent.mkdir(parents=True, exist_ok=True)
    write_public_key(KEY, settings().public_key_path)
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [quality_report], resources={"lake": LakeIOManager(uri=uri)}, instance=instance
        )
    (event,) = done.asset_materializations_for_node("quality_report")
    assert event.metadata["overall"].value == "WARNING"
    assert "latency_ms" in str(event.metadata["verdict"].value)
    table = Lake(uri).scan("quality_report").collect()
    states = dict(table.select("metric", "state").iter_rows())
    assert states["accuracy"] == states["accuracy_trend"] == "HEALTHY"
    assert {states[name] for name in ("success_rate", "drift", "latency_ms")} == {"UNKNOWN"}
    assert (
        table.filter(pl.col("metric") == "latency_ms")["why"]
        .item()
        .startswith("CRYPTOML_INFERENCE_ADMIN_URLS: http://127.0.0.1:9")
    )
    stored = json.loads((settings().home_path / "reports" / "quality.json").read_text())
    assert stored == event.metadata["json"].value


def test_what_a_report_counts_begins_at_the_report_before() -> None:
    first, second = (
        {"": {"started": 1.0, "requests": n, "answered": n, "buckets": {"0.01": n, "+Inf": n}}}
        for n in (100.0, 200.0)
    )
    with dg.DagsterInstance.ephemeral() as instance:
        at = datetime.now(UTC)
        assert last_look(instance, at) == {}
        for counted in (first, second):
            metadata = {"counted": dg.MetadataValue.json(counted)}
            made = dg.AssetMaterialization("quality_report", metadata=metadata)
            instance.report_runless_asset_event(made)
        assert last_look(instance, at) == {}  # made this very minute
        newest = last_look(instance, at + timedelta(hours=1))
        instance.report_runless_asset_event(dg.AssetMaterialization("quality_report"))
        assert last_look(instance, at + timedelta(hours=1)) == newest == counters_of(second) != {}


def test_a_second_report_is_of_the_time_since_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def metrics(_: Request) -> Response:
        return PlainTextResponse(SERVICE)

    monkeypatch.setattr(quality_assets, "_LEAST", timedelta(0))
    lake = LakeIOManager(uri=str(tmp_path / "lake"))
    found = []
    with (
        dg.DagsterInstance.ephemeral() as instance,
        serve(Starlette(routes=[Route("/metrics", metrics)])) as url,
    ):
        monkeypatch.setenv("CRYPTOML_INFERENCE_ADMIN_URLS", url)
        settings.cache_clear()
        for _ in range(2):
            dg.materialize([quality_report], resources={"lake": lake}, instance=instance)
            rows = lake.lake.scan("quality_report").collect()
            found.append({each["metric"]: (each["value"], each["why"]) for each in rows.to_dicts()})
    first, second = found
    assert first["error_rate"] == (pytest.approx(0.02), "")
    assert second["error_rate"] == second["latency_ms"]
    assert second["error_rate"][0] is None
    assert "no request since the last look" in second["error_rate"][1]
