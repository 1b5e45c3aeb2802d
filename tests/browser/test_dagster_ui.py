"""What a person does first: open the Dagster UI, look at the graph, materialise an asset."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.operations.processes import Children, free_port
from cryptoml_assets.operations.up import start_dagster
from cryptoml_assets.resources.lake import Lake
from tests.sandbox_server import sandbox

HOST = "127.0.0.1"
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
NOW = MIDNIGHT + timedelta(minutes=30)
DAY = (MIDNIGHT - timedelta(days=1)).date().isoformat()
GROUPS = {
    "prices": ("raw_prices",),
    "onchain": ("onchain_blocks", "network_metrics"),
    "features": ("price_features", "onchain_features", "online_features"),
    "models": ("training_set", "candidate_models"),
    "deployment": ("validated_deployment",),
    "monitoring": ("feature_drift",),
}

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
        monkeypatch.setenv("DAGSTER_HOME", "")  # so that what the next line sets is undone
        prepare_dagster_home(home / "simulated")
        yield start_dagster(children, free_port(HOST)), Lake(str(home / "simulated" / "lake"))


def test_graph_is_shown_and_an_asset_materialises(page: Page, dagster_ui: tuple[str, Lake]) -> None:
    address, lake = dagster_ui
    page.goto(f"{address}/asset-groups")
    for group in GROUPS:
        expect(page.locator("svg").get_by_text(group, exact=True)).to_be_visible(timeout=60_000)
    for group, assets in GROUPS.items():
        page.goto(f"{address}/locations/cryptoml/asset-groups/{group}/lineage")
        for asset in assets:
            expect(page.get_by_text(asset, exact=True).first).to_be_visible(timeout=30_000)

    page.goto(f"{address}/assets/raw_prices?view=partitions&partition={DAY}")
    page.get_by_role("button", name="Materialize").first.click(timeout=30_000)
    dialog = page.get_by_role("dialog")
    partitions = dialog.get_by_role("textbox").first
    expect(partitions).to_have_value(DAY, timeout=30_000)
    dialog.get_by_role("button", name="Launch 1 run").click()

    run = _finished_run(address)
    assert run["status"] == "SUCCESS"
    bars = lake.scan("raw_prices").collect()
    assert bars["date"].cast(str).unique().to_list() == [DAY]
    assert bars.height == 2 * 24 * 12

    page.goto(f"{address}/runs/{run['runId']}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=30_000)


def _finished_run(address: str) -> dict[str, Any]:
    """Wait for the run the click launched to end; runs of the sensors are not it."""
    wanted = "runId status tags { key value }"
    query = {
        "query": f"{{ runsOrError(limit: 20) {{ ... on Runs {{ results {{ {wanted} }} }} }} }}"
    }
    for _ in range(150):
        answer = httpx.post(f"{address}/graphql", json=query, timeout=30.0).json()
        for run in answer["data"]["runsOrError"]["results"]:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            if "dagster/from_ui" in tags and run["status"] in {"SUCCESS", "FAILURE", "CANCELED"}:
                return dict(run)
        time.sleep(1.0)
    message = f"the run launched from the UI did not end: {answer}"
    raise AssertionError(message)
