"""The service's page in a real Chromium: live, on a desk and on a phone, with no internet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.lake_tables import write_drift, write_history
from tests.paged_service import paged
from tests.serving_client import FEATURE_TIME, Client, write_usual_features
from tests.serving_world import FEATURES, NOW, SYMBOLS, ServingWorld, build_templates

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
DESK = {"width": 1400, "height": 1000}
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    made = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    write_usual_features(made)
    published = made.publish()
    lake = made.settings().lake_uri
    write_history(lake, [published.approval.read_bytes()])
    pairs = [(each.name, symbol) for each in FEATURES for symbol in SYMBOLS]
    write_drift(lake, NOW, {pair: 0.1 * place for place, pair in enumerate(pairs)})
    return made


@pytest.fixture
def client(world: ServingWorld) -> Iterator[Client]:
    with paged(world, serving_log=False) as (client, _):
        yield client.wait_ready()


class Watched:
    """A page that may ask its own service alone, and what it complained of."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        page.on("console", lambda told: self.complaints.append(told.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

        def only_here(route: Route, request: Request) -> None:
            if request.url.startswith((address, "data:")):
                route.continue_()
            else:
                self.elsewhere.append(request.url)
                route.abort()

        page.route("**/*", only_here)

    def check(self) -> None:
        assert self.complaints == []
        assert self.elsewhere == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_readable(
    browser: Browser, client: Client, tmp_path: Path, size: dict[str, int], scheme: str
) -> None:
    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    watched = Watched(page, str(client.base_url))
    page.goto(str(client.base_url))
    expect(page.locator("#light")).to_have_text("live")
    expect(page.get_by_text("chain and signatures verified")).to_be_visible(timeout=30_000)
    for symbol in SYMBOLS:
        expect(page.get_by_role("rowheader", name=symbol)).to_be_visible()
    assert page.locator("svg.interval").count() == len(SYMBOLS)
    # Nothing is wider than the window, and nothing is drawn beyond it.
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    boxes = [each.bounding_box() for each in page.locator("section").all()]
    assert all(box and box["x"] + box["width"] <= size["width"] for box in boxes)
    picture = page.screenshot(full_page=True, path=tmp_path / "page.png")
    assert len(picture) > 20_000
    page.close()
    watched.check()


def test_it_shows_a_new_snapshot_by_itself(
    browser: Browser, client: Client, world: ServingWorld
) -> None:
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    watched = Watched(page, str(client.base_url))
    page.goto(str(client.base_url))
    shown = page.locator("td.expected").first
    expect(shown).to_have_text("+6000.0")
    expect(page.locator("#light")).to_have_text("live")
    # What is open stays open.
    page.locator("#features summary").click()
    later = FEATURE_TIME + timedelta(minutes=5)
    world.write_features({"BTC/USDT": (-0.1, -0.2, -0.3)}, at=later)
    expect(shown).to_have_text("\u22126000.0", timeout=10_000)
    expect(page.locator("#features")).to_have_attribute("open", "")
    page.close()
    watched.check()


def test_a_service_that_is_gone_shows(browser: Browser, world: ServingWorld) -> None:
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    with paged(world, serving_log=False) as (client, _):
        page.goto(str(client.wait_ready().base_url))
        expect(page.locator("#light")).to_have_text("live")
    expect(page.locator("#light")).to_have_attribute("data-state", "lost", timeout=10_000)
    page.close()


def test_the_interface_is_documented_with_no_internet(browser: Browser, client: Client) -> None:
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    watched = Watched(page, str(client.base_url))
    page.goto(f"{client.base_url}/docs")
    expect(page.get_by_text("/models/champion").first).to_be_visible(timeout=20_000)
    page.get_by_text("/models/champion").first.click()
    expect(page.get_by_role("button", name="Try it out").first).to_be_visible()
    page.close()
    watched.check()
