from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cryptoml_assets.deployment import history, standing
from cryptoml_assets.monitoring import stale
from cryptoml_assets.monitoring.exporter import _MOST_SAMPLES as MOST_SAMPLES
from cryptoml_assets.monitoring.exporter import (
    METRICS,
    GraphCollector,
    Sample,
    Source,
    lake_sources,
    of_notices,
)
from cryptoml_assets.notices.notice import Notice
from cryptoml_assets.notices.outbox import Outbox
from cryptoml_assets.operations.exporter import dagster_source
from cryptoml_assets.resources import runs
from cryptoml_assets.resources.lake import Lake
from tests.deployment_world import KEY, MODEL, decided, decision
from tests.monitored_lake import NOW, fill, performance_row, write_performance

Samples = dict[tuple[str, tuple[str, ...]], float]


def scraped(collector: GraphCollector) -> tuple[Samples, set[str]]:
    """Every sample by name and label values in the order of METRICS, and the metrics announced."""
    registry = CollectorRegistry()
    registry.register(collector)
    samples, names = {}, set()
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        name = family.name if family.name in METRICS else f"{family.name}_total"
        names.add(name)
        for sample in family.samples:
            labels = tuple(sample.labels[label] for label in METRICS[name].labels)
            assert (name, labels) not in samples
            samples[name, labels] = sample.value
    return samples, names


def of_lake(lake: Lake, now: datetime = NOW) -> GraphCollector:
    def stands() -> standing.Standing:
        return standing.standing(history.read(lake, KEY.public_key()), MODEL)

    return GraphCollector(lake_sources(lake, stands, lambda: now))


def test_every_table_of_the_lake_is_told(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    fill(lake)
    samples, names = scraped(of_lake(lake))
    assert names == set(METRICS)
    errors = {labels: value for (name, labels), value in samples.items() if "errors" in name}
    assert set(errors.values()) == {0.0}
    told = {key: value for key, value in samples.items() if "errors" not in key[0]}
    window = {
        "model_accuracy": 0.54,
        "model_log_loss": 0.69,
        "model_coverage": 0.9,
        "model_mean_squared_error": 1e-5,
        "model_outcomes": 100,
        "model_promised_accuracy": 0.55,
        "model_below_promise": 0,
    }
    assert told == {
        **{(n, (MODEL, w)): v for n, v in window.items() for w in ("1h", "24h", "7d")},
        ("trading_pnl_usd", ("champion", "BTC/USDT")): 3.0,
        ("trading_pnl_usd", ("champion", "ETH/USDT")): -1.0,
        ("feature_drift_score", ("rsi", "BTC/USDT")): 0.3,
        ("feature_drift_score", ("rsi", "ETH/USDT")): 0.3,
        ("feature_drift_score", ("sma_gap_5", "BTC/USDT")): 0.15,
        ("prediction_drift_score", ("expected_return", "BTC/USDT")): 0.1,
        ("prediction_drift_score", ("expected_return", "ETH/USDT")): 0.1,
        ("prediction_drift_score", ("probability_up", "BTC/USDT")): 0.05,
        ("drifted_pairs", ("feature",)): 2,
        ("drifted_pairs", ("output",)): 0,
        ("unjudged_pairs", ("feature",)): 1,
        ("unjudged_pairs", ("output",)): 1,
        ("gate_verdicts_total", (MODEL, "approved")): 1,
        ("gate_verdicts_total", (MODEL, "rejected")): 2,
        ("gate_failures_total", (MODEL, "coverage")): 2,
        ("gate_failures_total", (MODEL, "significance")): 1,
        ("deployed_model_info", (MODEL, "1", "champion", f"{1:064x}")): 1,
        ("deployed_model_info", (MODEL, "2", "shadow", f"{2:064x}")): 1,
        ("quality_state", ("drift",)): 1,
        ("quality_state", ("mse",)): -1,
        ("quality_state", ("overall",)): 1,
        ("quality_value", ("drift",)): 0.15,
    }


def test_an_empty_lake_has_no_samples_and_no_errors(tmp_path: Path) -> None:
    samples, names = scraped(of_lake(Lake(str(tmp_path / "none"))))
    assert names == set(METRICS)
    assert {name for name, _ in samples} == {"exporter_errors_total"}
    assert set(samples.values()) == {0.0}


def test_a_report_that_is_out_of_date_is_no_gauge_of_now(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    fill(lake)
    fresh, _ = scraped(of_lake(lake, NOW + stale.LONGEST))
    late, _ = scraped(of_lake(lake, NOW + stale.LONGEST + timedelta(seconds=1)))
    assert fresh == scraped(of_lake(lake))[0]
    assert late.items() < fresh.items()
    # What adds up, and what stands until it is decided anew, is as true as before.
    assert {name for name, _ in late} == {
        "trading_pnl_usd",
        "gate_verdicts_total",
        "gate_failures_total",
        "deployed_model_info",
        "exporter_errors_total",
    }


def test_only_the_standing_champion_is_told_and_only_what_was_judged(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write_performance(
        lake,
        performance_row(accuracy=0.5, model_version="2", below_promise=True),
        performance_row("7d", model_version="2", below_promise=True),
        performance_row(accuracy=0.6, predictions=30, promised_accuracy=None, p_value=None),
        performance_row(accuracy=0.1, role="shadow"),
        performance_row(accuracy=0.2, symbol="BTC/USDT"),
        performance_row("1h", accuracy=None, predictions=0, p_value=0.001, below_promise=True),
    )
    decided(lake, decision(1), decision(2), decision(1, "rollback"))
    samples, _ = scraped(of_lake(lake))
    told = {key: v for key, v in samples.items() if key[0] in {"model_accuracy", "model_outcomes"}}
    assert told == {
        ("model_accuracy", (MODEL, "24h")): 0.6,
        ("model_outcomes", (MODEL, "24h")): 30,
        ("model_outcomes", (MODEL, "1h")): 0,
    }
    below = {key[1]: v for key, v in samples.items() if key[0] == "model_below_promise"}
    assert below == {(MODEL, "1h"): 1}
    assert ("model_promised_accuracy", (MODEL, "24h")) not in samples


def test_notices_are_told_by_how_they_ended(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "notices.db")
    at = datetime(2024, 3, 1, tzinfo=UTC)
    outbox.post(Notice("k", "info", "t", "b", "key", at), ["slack"], quiet=timedelta(0), now=at)
    (due,) = outbox.undelivered(at)
    outbox.claim(due, at, timedelta(minutes=1))
    outbox.settle(due, "refused", at, detail="slack answered 404")
    samples, _ = scraped(GraphCollector({"notices": lambda: of_notices(outbox.counts())}))
    told = {labels: value for (name, labels), value in samples.items() if name == "notices_total"}
    assert told == {("slack", "refused"): 1}


def test_a_broken_table_is_counted_and_the_others_are_told(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    fill(lake)
    for file in (tmp_path / "feature_drift").glob("*.parquet"):
        file.write_bytes(b"no parquet")
    signature = lake.scan("deployments").collect().with_columns(signature="record")
    lake.overwrite("deployments", signature)
    samples, _ = scraped(of_lake(lake))
    counted = {labels[0] for (n, labels), v in samples.items() if "errors" in n and v == 1}
    # Which version is champion is not known, so nothing is told of how it does.
    assert counted == {"feature_drift", "deployments", "model_performance"}
    names = {name for name, _ in samples}
    assert "trading_pnl_usd" in names
    assert not {"feature_drift_score", "deployed_model_info", "model_accuracy"} & names


@pytest.mark.parametrize(
    ("source", "errors"),
    [
        (lambda: [Sample("quality_value", (str(n),), n) for n in range(MOST_SAMPLES + 1)], 1),
        (lambda: [Sample("quality_value", (str(n),), n) for n in range(3)], 0),
    ],
)
def test_labels_without_end_are_refused(source: Source, errors: int) -> None:
    samples, _ = scraped(GraphCollector({"some": source}))
    assert samples["exporter_errors_total", ("some",)] == errors
    assert len(samples) == (1 if errors else 4)


def test_what_was_read_is_told_again_for_a_while() -> None:
    reads, now = [0], [100.0]

    def source() -> Iterable[Sample]:
        reads[0] += 1
        return [Sample("quality_value", ("reads",), reads[0])]

    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    collector = GraphCollector({"some": source}, keep=5.0, clock=clock)
    told = []
    for at in (100.0, 104.9, 105.0, 109.0, 110.1):
        now[0] = at
        told.append(scraped(collector)[0]["quality_value", ("reads",)])
    assert told == [1, 1, 2, 2, 3]


def test_runs_errors_and_ages_come_from_dagster() -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01")

    @dg.asset(partitions_def=days)
    def daily() -> None: ...

    @dg.asset
    def broken() -> None:
        message = "no"
        raise KeyError(message)

    @dg.job
    def ingest() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        ingest.execute_in_process(instance=instance)
        for day in ("2024-01-02", "2024-01-01"):
            assert dg.materialize([daily], instance=instance, partition_key=day).success
        dg.materialize([broken], instance=instance, raise_on_error=False)
        newest = instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("daily"), asset_partitions=["2024-01-02"]), limit=1
        )
        assert runs.materialised_at(instance) == {"daily": newest.records[0].timestamp}
        samples, _ = scraped(GraphCollector({"dagster": dagster_source(instance)}))
        again, _ = scraped(GraphCollector({"dagster": dagster_source(instance)}))
    assert samples["exporter_errors_total", ("dagster",)] == 0
    assert samples["pipeline_errors_total", ("KeyError",)] == 1
    assert samples["pipeline_runs_total", ("other", "success")] == 2
    assert samples["pipeline_runs_total", ("other", "failure")] == 1
    assert samples["pipeline_runs_total", ("ingest", "success")] == 1
    assert samples["pipeline_runs_total", ("train", "success")] == 0
    assert {labels for name, labels in samples if name == "pipeline_run_seconds"} == {("ingest",)}
    assert samples["asset_age_seconds", ("daily",)] >= 0
    assert again.keys() == samples.keys()
