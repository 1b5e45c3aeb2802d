"""Every panel of the dashboard on a real Prometheus that scraped the real services.

The exporter tells a lake made by hand and a Dagster instance with runs; the inference service has a
champion and answers requests; Prometheus scrapes both each second with the repository's own
configuration. Rates are taken over a few seconds, which is what the dashboard's ``$window`` is for.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml

from cryptoml_assets.monitoring.dashboard import dashboard
from cryptoml_assets.monitoring.exporter import METRICS
from cryptoml_assets.monitoring.scrape import scrape
from cryptoml_assets.notices.notice import Notice
from cryptoml_assets.notices.outbox import Outbox
from cryptoml_assets.operations import exporter
from cryptoml_assets.operations.smoke import budget
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.resources.notifier import OUTBOX
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.approval import write_public_key
from cryptoml_serving.contract.settings import SettingsError
from tests.deployment_world import KEY
from tests.monitored_lake import NOW, fill
from tests.sandbox_server import free_port
from tests.serving_client import Client, serving, write_usual_features
from tests.serving_world import SYMBOLS, ServingWorld, build_templates

CONFIGURATION = Path(__file__).parents[2] / "monitoring" / "prometheus.yml"
WINDOW = "4s"
_SECONDS = 60.0
PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the PATH: install the package prometheus")
    return found


def is_number(sample: dict[str, Any]) -> bool:
    """0 / 0 of a rate over nothing is a sample that says nothing."""
    return not math.isnan(float(sample["value"][1]))


@dataclass(frozen=True)
class Prometheus:
    """A running server, and the service that it watches."""

    api: httpx.Client
    service: Client

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = self.api.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait_for(self, query: str) -> list[dict[str, Any]]:
        """Ask, with a request and an error in between so that rates have something to tell."""
        deadline = time.monotonic() + _SECONDS
        while not any(map(is_number, found := self.ask(query))):
            assert time.monotonic() < deadline, f"no number: {query}"
            self.use_service()
            time.sleep(0.2)
        return found

    def use_service(self) -> None:
        for symbol in (*SYMBOLS, "PEPE/EUR"):
            self.service.ask(symbol)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    world = ServingWorld(
        tmp_path_factory.mktemp("serving"), build_templates(tmp_path_factory.getbasetemp())
    )
    write_usual_features(world)
    world.publish()
    with serving(world) as client:
        yield client.wait_ready()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the exporter over a hand-made lake and runs of every kind."""
    configured = Settings(home=tmp_path_factory.mktemp("graph"), now=NOW)
    fill(Lake(configured.lake_uri))
    configured.public_key_path.parent.mkdir(parents=True)
    write_public_key(KEY, configured.public_key_path)
    tell_something(Outbox(configured.home_path / OUTBOX))
    with dg.DagsterInstance.ephemeral() as instance:
        run_something(instance)
        server, thread = exporter.start(configured, instance, port=0)
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()


def tell_something(outbox: Outbox) -> None:
    notice = Notice("drift", "warning", "Feature drift", "", "drift", NOW)
    outbox.post(notice, ["slack"], quiet=timedelta(0), now=NOW)
    for delivery in outbox.undelivered(NOW):
        outbox.claim(delivery, NOW, timedelta(minutes=1))
        outbox.settle(delivery, "refused", NOW, detail="slack answered 404")


def run_something(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fails() -> None:
        message = "no"
        raise KeyError(message)

    @dg.job
    def ingest() -> None: ...

    @dg.job
    def train() -> None:
        fails()

    @dg.asset
    def raw_prices() -> None: ...

    ingest.execute_in_process(instance=instance)
    train.execute_in_process(instance=instance, raise_on_error=False)
    dg.materialize([raw_prices], instance=instance)


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, service: Client, graph: str
) -> Iterator[Prometheus]:
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    asked = yaml.safe_load(CONFIGURATION.read_text())
    asked["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    targets = {
        "inference": f"{service.base_url.host}:{service.base_url.port}",
        "asset-graph": graph,
    }
    for job in asked["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets.pop(job["job_name"])]}]
    assert targets == {}
    asked["rule_files"] = [str(CONFIGURATION.parent / name) for name in asked["rule_files"]]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(asked))
    command = [program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder}/data",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as api:
            wait_ready(api, process, folder / "log")
            yield Prometheus(api, service)
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_ready(api: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if api.get("/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def concrete(query: str) -> str:
    """What Grafana sends once the dashboard's variables have their values."""
    return query.replace("$window", WINDOW).replace("$model", ".*")


def test_the_configuration_is_valid() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "config", str(CONFIGURATION)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_every_panel_finds_something(prometheus: Prometheus) -> None:
    assert len(QUERIES) > len(PANELS) > 20
    found = {}
    for title, query in QUERIES:
        assert "$" not in concrete(query), title
        found[query] = prometheus.wait_for(concrete(query))
    # The names that legends are made of are labels of what comes back.
    for panel in PANELS:
        for target in panel["targets"]:
            labels = set(found[target["expr"]][0]["metric"])
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= labels, (panel["title"], labels)


def test_both_services_are_scraped_and_nothing_of_them_is_lost(prometheus: Prometheus) -> None:
    prometheus.wait_for("asset_age_seconds")
    prometheus.wait_for("service_ready")
    up = {each["metric"]["job"]: each["value"][1] for each in prometheus.ask("up")}
    assert up == {"inference": "1", "asset-graph": "1"}
    assert prometheus.ask('{__name__=~".+",exported_job!=""}') == []
    assert prometheus.ask("sum(exporter_errors_total)")[0]["value"][1] == "0"
    told = {each["metric"]["__name__"] for each in prometheus.ask('{job="asset-graph"}')}
    assert set(METRICS) <= told


def test_our_quantile_is_that_of_prometheus(prometheus: Prometheus) -> None:
    prometheus.use_service()
    # Nothing is asked from here on: what is scraped later is what we read.
    ours = scrape(str(prometheus.service.base_url))
    requests = f"sum(prediction_requests_total) >= {ours.requests}"
    deadline = time.monotonic() + _SECONDS
    while not prometheus.ask(requests):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    query = "histogram_quantile({}, sum by (le) (prediction_latency_seconds_bucket))"
    for percent, ms in ours.latency_ms.items():
        theirs = float(prometheus.ask(query.format(percent / 100))[0]["value"][1])
        assert ms == pytest.approx(1e3 * theirs, rel=1e-9)
    assert ours.error_rate == 0
    assert ours.memory_mb is not None
    assert ours.errors["unknown-symbol"] >= 1


def test_a_deployments_error_budget_is_that_of_all_callers(
    prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = budget.Prometheus(str(prometheus.api.base_url), 'job="inference"')
    prometheus.wait_for('prediction_errors_total{error_type="unknown-symbol"}')
    sound = counts.check(0.0, 60)
    assert sound.well, sound.seen
    assert sound.seen.startswith("0 of ")
    # What only a caller gets wrong is there to be counted; here as if the service had.
    monkeypatch.setattr(budget, "OWN_ERRORS", ("unknown-symbol",))
    spent = counts.check(0.1, 60)
    assert not spent.well, spent.seen
    assert counts.check(0.5, 60).well
    assert not budget.Prometheus(counts.url, 'job="other"').check(1.0, 60).well
    with pytest.raises(SettingsError, match="parse error"):
        budget.Prometheus(counts.url, "job=").check(1.0, 60)
    with pytest.raises(SettingsError, match="ConnectError"):
        budget.Prometheus(f"http://127.0.0.1:{free_port()}").check(1.0, 60)
