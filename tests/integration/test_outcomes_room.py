"""From served predictions to outcomes, live figures and the end of challengers, as assets."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from cryptoml_assets.deployment import history, promotion, signing
from cryptoml_assets.deployment.standing import standing
from cryptoml_assets.monitoring.challenger_assets import challenger_review
from cryptoml_assets.monitoring.outcomes_assets import (
    model_performance,
    prediction_outcomes,
    served_predictions,
)
from cryptoml_assets.prices import bars as price_bars
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.registry import CHAMPION_ALIAS
from cryptoml_serving.contract.served import SERVED_PREDICTIONS, ServedPrediction
from cryptoml_serving.runtime.served_table import append_new
from tests.deployment_world import MODEL, decision, subject
from tests.serving_world import build_templates

ASSETS = (prediction_outcomes, model_performance, challenger_review)
BEGAN = datetime(2024, 3, 1, 20, tzinfo=UTC)
BAR, HORIZON = timedelta(minutes=5), timedelta(minutes=15)
INSTANTS = 150
#: Version, role, and how often it tells the direction right.
VERSIONS = ((1, "champion", 0.4), (2, "shadow", 0.8), (3, "canary", 0.5))
#: What the service says of versions 2 and 3: the second fails half of the time.
TOLD = """\
# TYPE service_ready gauge
service_ready 1
# TYPE challenger_predictions counter
challenger_predictions_total{model_version="2",role="shadow"} 150
challenger_predictions_total{model_version="3",role="canary"} 5000
# TYPE model_predict_seconds histogram
model_predict_seconds_bucket{model_version="2",role="shadow",le="0.005"} 150
model_predict_seconds_bucket{model_version="2",role="shadow",le="+Inf"} 150
model_predict_seconds_count{model_version="2",role="shadow"} 150
# TYPE challenger_errors counter
challenger_errors_total{model_version="3",role="canary",error_type="no_prediction"} 5000
"""


class Handler(BaseHTTPRequestHandler):
    """Answers ``/metrics`` as the inference service does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(TOLD.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Room:
    """A lake with bars, a registry with three versions, and the settings that go with them."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        configured = settings()
        self.io = LakeIOManager(uri=configured.lake_uri)
        self.lake = self.io.lake
        self.tracker = Tracker(
            tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
            artifact_location=str(folder / "artifacts"),
        )
        self.instance = instance
        self.key = lambda: signing.signing_key(
            configured.private_key_path, configured.public_key_path
        )

    def materialise(self) -> dict[str, dict[str, Any]]:
        """Bring all three up to date; the metadata of each."""
        result = dg.materialize(
            [served_predictions, *ASSETS],
            instance=self.instance,
            resources={"lake": self.io, "tracker": self.tracker},
        )
        return {
            asset.key.to_user_string(): {
                name: value.value
                for name, value in result.asset_materializations_for_node(
                    asset.key.to_user_string()
                )[0].metadata.items()
            }
            for asset in ASSETS
        }

    def publish_bars(self) -> np.ndarray:
        """A random walk of one symbol; its closes."""
        closes = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.004, INSTANTS + 4)))
        rows = [
            {
                "venue": "binance",
                "symbol": "BTC/USDT",
                "timeframe": timeframe,
                "open_time": BEGAN + BAR * (place - 1),
                "close_time": BEGAN + BAR * place,
                "close": close,
                "source": "simulated",
                "date": (BEGAN + BAR * (place - 1)).date(),
            }
            for place, close in enumerate(closes)
            # Bars of another length are in the same table.
            for timeframe in ("5m", "1h")
        ]
        frame = pl.DataFrame(rows, schema_overrides=price_bars.SCHEMA)
        frame = frame.with_columns(pl.col("close") * (pl.col("timeframe") == "5m").cast(float))
        self.lake.replace_days("raw_prices", frame, frame["date"].unique().to_list())
        return closes

    def decide(self, client: Any) -> None:
        """Version 1 is champion, 2 a shadow and 3 a canary."""
        client.create_registered_model(MODEL)
        experiment = client.create_experiment("runs", self.tracker.artifact_location)
        for version, role in ((1, "champion"), (2, "shadow"), (3, "canary")):
            run = client.create_run(experiment).info.run_id
            for name, value in (("accuracy", 0.55), ("log_loss", 0.69), ("coverage", 0.9)):
                client.log_metric(run, name, value)
            client.log_metric(run, "test_rows", 500)
            client.create_model_version(MODEL, "bundle", run)
            made = decision(
                version,
                "approve",
                role,
                subject=subject(version, run_id=run),
                decided_at=BEGAN - timedelta(minutes=1),
            )
            promotion.decide(client, self.lake, self.key(), made)

    def serve(self, closes: np.ndarray) -> None:
        """Version 1 tells the direction wrong more often than not, version 2 mostly right."""
        rng = np.random.default_rng(2)
        rows = []
        for place in range(INSTANTS):
            up = closes[place + 3] > closes[place]
            for version, role, right in VERSIONS:
                leans_up = up == (rng.random() < right)
                rows.append(
                    ServedPrediction(
                        prediction_id=f"{version}-{place}",
                        model_name=MODEL,
                        model_version=str(version),
                        bundle_digest="d" * 64,
                        role=role,
                        symbol="BTC/USDT",
                        feature_timestamp=BEGAN + BAR * place,
                        horizon_seconds=int(HORIZON.total_seconds()),
                        expected_return=0.005 if leans_up else -0.005,
                        lower=-0.02,
                        upper=0.02,
                        probability_up=0.7 if leans_up else 0.3,
                        source="simulated",
                        computed_at=BEGAN + BAR * place,
                        sequence=2,
                    )
                )
        append_new(self.lake.uri, rows)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    end = BEGAN + BAR * (INSTANTS - 1) + HORIZON
    for name, value in {
        "NOW": end.isoformat(),
        "HORIZON": "15m",
        # Nobody listens there: the service is not up yet.
        "INFERENCE_ADMIN_URLS": "http://127.0.0.1:1",
        "CHALLENGER_MINIMUM": "80",
        "PERFORMANCE_MINIMUM": "100",
    }.items():
        monkeypatch.setenv(f"CRYPTOML_{name}", value)
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        yield Room(tmp_path, instance)


def test_before_anything_was_served_there_is_nothing_to_tell(room: Room) -> None:
    told = room.materialise()
    assert told["prediction_outcomes"]["dagster/row_count"] == 0
    live = told["model_performance"]
    assert (live["judged"], live["below_promise"]) == (False, False)
    assert told["challenger_review"]["challengers"] == 0
    # A review decides nothing, and makes no key to do so.
    assert not settings().private_key_path.exists()
    assert not room.lake.exists(history.TABLE)


def test_served_predictions_end_in_a_promotion_and_a_withdrawal(
    room: Room,
    service: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = build_templates(tmp_path_factory.getbasetemp()).mlflow
    shutil.copy(template, tmp_path / "mlflow.db")
    client = room.tracker.client()
    room.decide(client)
    room.serve(room.publish_bars())
    told = room.materialise()

    outcomes = told["prediction_outcomes"]
    assert (outcomes["outcomes"], outcomes["without_outcome"]) == (3 * INSTANTS, 0)
    assert outcomes["dagster/row_count"] == room.lake.row_count(SERVED_PREDICTIONS) == 3 * INSTANTS

    live = told["model_performance"]
    assert live["champion"] == "1"
    assert live["versions"] == ["1", "2", "3"]
    assert live["predictions_24h"] == INSTANTS
    assert live["accuracy_24h"] < 0.5
    assert live["below_promise"] is True
    report = room.lake.scan("model_performance").filter(symbol="all", time_window="7d").collect()
    assert report.sort("model_version")["below_promise"].to_list()[:2] == [True, False]
    assert report["promised_accuracy"].to_list() == [0.55] * 3

    # Before the service tells of errors and latency nobody is promoted.
    review = told["challenger_review"]
    assert (review["verdicts"]["2"], review["decided"]) == ("keep", 0)
    assert "not known" in review["review"]
    monkeypatch.setenv("CRYPTOML_INFERENCE_ADMIN_URLS", service)
    settings.cache_clear()
    client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, "3")
    review = room.materialise()["challenger_review"]
    with closing(sqlite3.connect(settings().home_path / "notices.db")) as database:
        told_of = database.execute("SELECT key FROM notices").fetchall()
    assert told_of == [(f"alias_moved:{MODEL}:3",)]
    assert review["verdicts"] == {"2": "promote", "3": "abort"}
    assert review["decided"] == 2
    entries = history.read(room.lake, room.key().public_key())
    withdrawn, promoted = entries[3:]
    assert (withdrawn.record.action, withdrawn.record.model_version) == ("withdraw", "3")
    assert "challenger_errors is 0.5" in withdrawn.record.reason
    assert (promoted.record.action, promoted.record.role) == ("promote", "champion")
    assert {entry.record.decided_by for entry in entries[3:]} == {"policy:challenger"}
    names = [criterion.name for criterion in promoted.record.criteria]
    assert names[0] == "significance"
    assert "challenger_better" in names
    assert str(client.get_registered_model(MODEL).aliases[CHAMPION_ALIAS]) == "2"

    again = room.materialise()
    assert (again["challenger_review"]["challengers"], len(entries)) == (
        0,
        room.lake.row_count(history.TABLE),
    )
    assert standing(entries, MODEL).challengers == ()
    # Settled days are not computed again: only those still open are.
    assert again["prediction_outcomes"]["days_changed"] == 0
    assert again["prediction_outcomes"]["brought_up_to"] == outcomes["brought_up_to"]


@pytest.mark.filterwarnings("ignore:Parameter .include_sources. of function .AssetSelection.all.")
def test_nobody_has_to_ask_for_the_first_outcomes() -> None:
    """A quarter of an hour after the start outcomes are asked for, and what follows follows."""
    resources = {"lake": LakeIOManager(uri="-"), "tracker": Tracker(tracking_uri="-")}
    defs = dg.Definitions([served_predictions, *ASSETS], resources=resources)
    followers = {"model_performance", "challenger_review"}
    start = datetime(2024, 3, 1, 12, 1, tzinfo=UTC)

    def requested(result: Any) -> set[str]:
        return {
            asset.key.to_user_string() for asset in ASSETS if result.get_num_requested(asset.key)
        }

    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None

        def evaluated(minutes: int) -> set[str]:
            nonlocal cursor
            result = dg.evaluate_automation_conditions(
                defs, instance, cursor=cursor, evaluation_time=start + timedelta(minutes=minutes)
            )
            cursor = result.cursor
            return requested(result)

        assert evaluated(0) == set()
        # In one run: what will be asked for counts as changed.
        assert evaluated(15) == {"prediction_outcomes", *followers}
        assert evaluated(16) == set()
        # Outcomes that somebody asked for are followed as well.
        instance.report_runless_asset_event(dg.AssetMaterialization("prediction_outcomes"))
        assert evaluated(17) == followers


def test_lineage_leads_through_the_service() -> None:
    keys = {dep.asset_key.to_user_string() for dep in served_predictions.deps}
    assert keys == {"validated_deployment", "online_features"}
    assert {"served_predictions", "raw_prices"} == {
        key.to_user_string() for key in prediction_outcomes.dependency_keys
    }
    (schema,) = served_predictions.metadata.values()
    assert [column.name for column in schema.columns] == [*ServedPrediction.model_fields, "date"]
