"""The dashboard as code, and bringing Grafana to it.

No Grafana server can be had where these tests run: they speak to a local HTTP server that answers
the endpoints used (tests/grafana.py) as Grafana's documentation describes them, through the real
grafana-client. That every panel's query finds something is tested on a real Prometheus
(tests/contract/test_prometheus.py).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from cryptoml_assets.errors import GrafanaError
from cryptoml_assets.monitoring.dashboard import Pushed, dashboard, holds, push
from cryptoml_assets.monitoring.dashboard_assets import grafana_dashboard, when_pushed
from cryptoml_assets.settings import settings
from tests.grafana import TOKEN, Grafana
from tests.sandbox_server import free_port, serve


@pytest.fixture
def grafana() -> Grafana:
    return Grafana()


@pytest.fixture
def url(grafana: Grafana) -> Iterator[str]:
    with serve(grafana.app()) as address:
        yield address


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def test_what_row_o2_asks_for_is_there() -> None:
    asked = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    for metric in (
        "model_accuracy{",
        "histogram_quantile(0.5,",
        "histogram_quantile(0.95,",
        "histogram_quantile(0.99,",
        "prediction_requests_total{",
        "prediction_errors_total[",
        "trading_pnl_usd",
        "feature_drift_score",
        "process_cpu_seconds_total[",
        "process_resident_memory_bytes",
        "quality_state{",
        "asset_age_seconds",
        "gate_verdicts_total{",
        "deployed_model_info{",
    ):
        assert metric in asked
    assert [p["title"] for p in panels() if p["type"] == "heatmap"] == ["Feature drift"]


def test_the_dashboard_is_stable_and_whole() -> None:
    made = dashboard()
    assert json.dumps(made) == json.dumps(dashboard())
    assert made["uid"] == "cryptoml"
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    variables = {each["name"] for each in made["templating"]["list"]}
    assert variables == {"datasource", "model", "window"}
    for panel in panels():
        assert panel["description"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"]["uid"] == "${datasource}"
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEF"[: len(letters)])


def test_the_same_content_is_stored_once(grafana: Grafana, url: str) -> None:
    address = f"{url}/d/cryptoml/cryptoml"
    assert push(url, TOKEN, dashboard()) == Pushed(address, 1, changed=True)
    assert push(f"{url}/", TOKEN, dashboard()) == Pushed(address, 1, changed=False)
    assert grafana.folders == {"cryptoml": "cryptoml"}
    assert grafana.asked.count("POST /api/dashboards/db") == 1
    assert grafana.asked.count("POST /api/folders") == 1
    ((stored, folder),) = grafana.versions["cryptoml"]
    assert folder == "cryptoml"
    assert holds(stored, {name: each for name, each in dashboard().items() if name != "id"})


def test_what_a_person_changed_is_replaced_and_kept_as_a_version(
    grafana: Grafana, url: str
) -> None:
    push(url, TOKEN, dashboard())
    changed = copy.deepcopy(dashboard())
    changed["panels"][3]["targets"][0]["expr"] = "up"
    grafana.save(changed, "cryptoml")
    assert push(url, TOKEN, dashboard()) == Pushed(f"{url}/d/cryptoml/cryptoml", 3, changed=True)
    grafana.save(dashboard(), "elsewhere")
    assert push(url, TOKEN, dashboard()).version == 5
    grafana.save({**dashboard(), "panels": dashboard()["panels"][:-1]}, "cryptoml")
    assert push(url, TOKEN, dashboard()).version == 7
    assert [version["panels"][3]["targets"][0]["expr"] for version, _ in
            grafana.versions["cryptoml"]].count("up") == 1  # fmt: skip


def test_a_save_in_between_is_read_again_and_never_overwritten_unseen(
    grafana: Grafana, url: str
) -> None:
    saves = iter([{**dashboard(), "title": "by hand"}])

    def once() -> None:
        for each in saves:
            grafana.save(each, "cryptoml")

    grafana.meanwhile = once
    assert push(url, TOKEN, dashboard()).version == 2

    def again() -> None:
        grafana.save({**dashboard(), "title": "again"}, "cryptoml")

    grafana.meanwhile = again
    with pytest.raises(GrafanaError, match="somebody else saved the dashboard 3 times"):
        push(url, TOKEN, {**dashboard(), "title": "other"})
    assert grafana.versions["cryptoml"][-1][0]["title"] == "again"


def test_what_grafana_refuses_is_told_without_the_token(grafana: Grafana, url: str) -> None:
    secret = "wrong-token"  # noqa: S105
    with pytest.raises(GrafanaError, match=r"answers 401.*CRYPTOML_GRAFANA_TOKEN") as refused:
        push(url, secret, dashboard())
    grafana.writable = False
    with pytest.raises(GrafanaError, match=r"answers 403.*CRYPTOML_GRAFANA_TOKEN") as viewer:
        push(url, TOKEN, dashboard())
    with pytest.raises(GrafanaError, match="no Grafana answers there") as nobody:
        push(f"http://user:{secret}@127.0.0.1:{free_port()}", "", dashboard())
    with pytest.raises(GrafanaError, match=r"answers 404"):
        push(f"{url}/elsewhere", TOKEN, dashboard())
    for error in (refused, viewer, nobody):
        assert secret not in str(error.value)
        assert TOKEN not in str(error.value)
    assert grafana.versions == {}


def test_a_grafana_below_a_path_is_found(grafana: Grafana) -> None:
    below = Starlette(routes=[Mount("/grafana", grafana.app())])
    with serve(below) as address:
        for spelt in (f"{address}/grafana", f"{address}/grafana/"):
            assert push(spelt, TOKEN, dashboard()).version == 1


def test_the_asset_pushes_once_and_says_what_it_did(
    grafana: Grafana, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOML_GRAFANA_URL", url)
    monkeypatch.setenv("CRYPTOML_GRAFANA_TOKEN", TOKEN)
    settings.cache_clear()
    told = []
    for _ in range(2):
        done = dg.materialize([grafana_dashboard])
        (event,) = done.asset_materializations_for_node("grafana_dashboard")
        assert TOKEN not in json.dumps([str(value) for value in event.metadata.values()])
        told.append([event.metadata[name].value for name in ("changed", "grafana_version")])
    assert told == [[True, 1], [False, 1]]


def test_without_grafana_the_asset_shows_what_it_would_push() -> None:
    done = dg.materialize([grafana_dashboard])
    assert done.success
    assert done.asset_materializations_for_node("grafana_dashboard") == []
    (event,) = done.asset_observations_for_node("grafana_dashboard")
    assert event.metadata["dashboard"].value == dashboard()
    assert "CRYPTOML_GRAFANA_URL" in str(event.description)


@pytest.mark.filterwarnings("ignore:Parameter .include_sources. of function .AssetSelection.all.")
def test_the_dashboard_is_pushed_until_grafana_has_it_and_again_when_it_changes() -> None:
    assert grafana_dashboard.automation_conditions_by_key == {}  # there is no Grafana here
    assert when_pushed("") is None

    def graph(code: str) -> dg.Definitions:
        condition = when_pushed("http://grafana")
        made = dg.asset(
            name="grafana_dashboard", code_version=code, automation_condition=condition
        )(lambda: None)
        return dg.Definitions([made])

    asked, cursor = [], None
    pushed = {70, 130}  # else Grafana is down: a quarter of an hour later it is tried again
    with dg.DagsterInstance.ephemeral() as instance:
        for minutes in (0, 40, 45, 50, 70, 75, 100, 110, 112, 130, 135, 160):
            result = dg.evaluate_automation_conditions(
                graph("b" if minutes >= 110 else "a"),
                instance,
                cursor=cursor,
                evaluation_time=datetime(2024, 1, 1, 9, 5, tzinfo=UTC) + timedelta(minutes=minutes),
            )
            cursor = result.cursor
            if result.total_requested:
                asked.append(minutes)
                if minutes in pushed:
                    made = dg.AssetMaterialization("grafana_dashboard")
                    instance.report_runless_asset_event(made)
    assert asked == [40, 70, 110, 130]


def test_an_instant_query_has_named_series_but_in_tables() -> None:
    for panel in panels():
        table = panel["type"] == "table"
        for target in panel["targets"]:
            assert target["format"] == ("table" if table else "time_series")
            assert target["instant"] or "sort_desc" not in target["expr"]
