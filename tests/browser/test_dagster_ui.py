"""What a person does first: open the Dagster UI, look at the graph, materialise an asset."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.operations.processes import Children, free_port
from cryptoml_assets.resources.lake import Lake
from tests.sandbox_server import sandbox

REPOSITORY = Path(__file__).parents[2]
HOST = "127.0.0.1"
DAY = "2024-03-05"
NOW = datetime(2024, 3, 6, 12, tzinfo=UTC)
ASSETS = (
    "raw_prices",
    "onchain_blocks",
    "network_metrics",
    "price_features",
    "onchain_features",
    "online_features",
    "training_set",
    "candidate_models",
    "validated_deployment",
    "feature_drift",
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture
def dagster_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Lake]]:
    """A Dagster UI over a lake of its own, and that lake."""
    with sandbox(now=NOW) as world, Children(tmp_path / "logs") as children:
        home = tmp_path / "home"
        monkeypatch.setenv("CRYPTOML_HOME", str(home))
        monkeypatch.setenv("CRYPTOML_SANDBOX_URL", world.url)
        monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
        monkeypatch.setenv("CRYPTOML_SYMBOLS", "BTC/USDT,ETH/USDT")
        monkeypatch.setenv("DAGSTER_HOME", str(prepare_dagster_home(home / "simulated")))
        port = free_port(HOST)
        webserver = children.start(
            "dagster-webserver",
            [
                str(Path(sys.executable).with_name("dagster-webserver")),
                "--workspace",
                str(REPOSITORY / "workspace.yaml"),
                "--host",
                HOST,
                "--port",
                str(port),
            ],
            {},
        )
        address = f"http://{HOST}:{port}"
        children.wait_ready(webserver, f"{address}/server_info", 90.0)
        yield address, Lake(str(home / "simulated" / "lake"))


def test_graph_is_shown_and_an_asset_materialises(page: Page, dagster_ui: tuple[str, Lake]) -> None:
    address, lake = dagster_ui
    page.goto(f"{address}/asset-groups")
    for asset in ASSETS:
        expect(page.get_by_text(asset, exact=True).first).to_be_visible(timeout=60_000)

    page.goto(f"{address}/assets/raw_prices?partition={DAY}")
    page.get_by_role("button", name="Materialize").first.click(timeout=60_000)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible(timeout=30_000)
    partitions = dialog.get_by_role("textbox").first
    partitions.fill(DAY)
    partitions.press("Enter")
    dialog.get_by_role("button", name="Launch").click()

    run = _finished_run(address)
    assert run["status"] == "SUCCESS"
    bars = lake.scan("raw_prices").collect()
    assert bars["date"].cast(str).unique().to_list() == [DAY]
    assert bars.height == 2 * 24 * 12

    page.goto(f"{address}/runs/{run['runId']}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=30_000)


def _finished_run(address: str) -> dict[str, str]:
    """Wait for the one run the click launched to end."""
    query = {"query": "{ runsOrError(limit: 1) { ... on Runs { results { runId status } } } }"}
    for _ in range(120):
        answer = httpx.post(f"{address}/graphql", json=query, timeout=30.0).json()
        results = answer["data"]["runsOrError"]["results"]
        if results and results[0]["status"] in {"SUCCESS", "FAILURE", "CANCELED"}:
            return dict(results[0])
        time.sleep(1.0)
    message = "the run launched from the UI did not end within two minutes"
    raise AssertionError(message)
