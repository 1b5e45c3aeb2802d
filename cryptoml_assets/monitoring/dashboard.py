"""The Grafana dashboard as code, and bringing Grafana to it: the same dashboard is stored once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptoml_assets.errors import GrafanaError
from cryptoml_assets.monitoring.panels import DATASOURCE, ROWS

if TYPE_CHECKING:
    from grafana_client import GrafanaApi

#: What the dashboard and its folder are found by in Grafana, whatever their titles.
UID = "cryptoml"
FOLDER_UID = "cryptoml"
FOLDER_TITLE = "cryptoml"
#: Schema of dashboards that Grafana 12 writes; it brings older ones up by itself.
SCHEMA_VERSION = 41
_COLUMNS = 24
_PANEL_HEIGHT = 8
#: What Grafana itself counts, so what says nothing about the content.
_COUNTED = ("id", "version", "schemaVersion")
_NOT_FOUND = 404
_REFUSED = (401, 403)
_EXISTS = (409, 412)
#: What Grafana answers a version that is not the newest with, among other conflicts of status 412.
_CHANGED_MEANWHILE = "version-mismatch"
#: Times that a dashboard somebody else saved in between is read again.
_TRIES = 3
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Pushed:
    """What became of a dashboard: its address, its version there, and whether that is new."""

    url: str
    version: int
    changed: bool


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's API takes it; the same one at each call."""
    return {
        "uid": UID,
        "title": "cryptoml",
        "description": "From market data to approved, served, monitored predictions",
        "tags": ["cryptoml"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "model",
            "label": "Model",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": "label_values(model_name)", "refId": "model"},
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
            "refresh": 2,
            "sort": 1,
        },
        {
            "name": "window",
            "label": "Rates over",
            "type": "custom",
            "query": "1m,5m,15m,1h",
            "options": [
                {"text": span, "value": span, "selected": span == "5m"}
                for span in ("1m", "5m", "15m", "1h")
            ],
            "current": {"text": "5m", "value": "5m"},
        },
    ]


def _panels() -> list[dict[str, Any]]:
    """All rows one below the other, panels from left to right."""
    placed: list[dict[str, Any]] = []
    top = 0
    for title, panels in ROWS:
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        row = {"id": len(placed) + 1, "type": "row", "title": title, "gridPos": place}
        placed.append({**row, "collapsed": False, "panels": []})
        top += 1
        left = 0
        for panel in panels:
            if left + panel.width > _COLUMNS:
                left, top = 0, top + _PANEL_HEIGHT
            spot = {"x": left, "y": top, "w": panel.width, "h": _PANEL_HEIGHT}
            placed.append(panel.json(len(placed) + 1, spot))
            left += panel.width
        top += _PANEL_HEIGHT
    return placed


def holds(stored: object, wanted: object) -> bool:
    """Whether ``stored`` says everything that ``wanted`` does; Grafana adds defaults of its own."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        return all(key in stored and holds(stored[key], value) for key, value in wanted.items())
    if isinstance(stored, list) and isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(holds, stored, wanted))
    return stored == wanted


def push(url: str, token: str, wanted: Mapping[str, Any]) -> Pushed:
    """Make ``wanted`` the dashboard of its uid in the folder of the platform.

    Nothing is stored where Grafana already has it. One that a person changed is replaced; the
    changed one stays in Grafana's history of versions.

    Raises:
        GrafanaError: Grafana cannot be reached, refuses the token or the dashboard, or somebody
            else saves it each time.
    """
    import requests  # noqa: PLC0415
    from grafana_client import GrafanaApi  # noqa: PLC0415
    from grafana_client.client import GrafanaException  # noqa: PLC0415

    told = f"CRYPTOML_GRAFANA_URL={_without_password(url)}"
    try:
        # The client joins what stands before its paths without a slash of its own.
        root = f"{url.rstrip('/')}/"
        api = GrafanaApi.from_url(root, token or None, timeout=_TIMEOUT_SECONDS)
        _require_folder(api)
        for _ in range(_TRIES):
            if (pushed := _push_once(api, url, wanted)) is not None:
                return pushed
    except GrafanaException as error:
        refused = error.status_code in _REFUSED
        hint = "; is CRYPTOML_GRAFANA_TOKEN the token of an editor?" if refused else ""
        message = f"{told}: Grafana answers {error.status_code} {_status(error)}{hint}"
        raise GrafanaError(message) from error
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        # What answers in other shapes than Grafana's is something else.
        message = f"{told}: no Grafana answers there: {type(error).__name__}"
        raise GrafanaError(message) from error
    message = f"{told}: somebody else saved the dashboard {_TRIES} times in between"
    raise GrafanaError(message)


def _status(error: Any) -> str:
    """The word that Grafana gives a failure, as ``version-mismatch``; empty where it gives none."""
    return str(error.response.get("status", "")) if isinstance(error.response, dict) else ""


def _require_folder(api: GrafanaApi) -> None:
    from grafana_client.client import GrafanaClientError  # noqa: PLC0415

    try:
        api.folder.get_folder(FOLDER_UID)
    except GrafanaClientError as error:
        if error.status_code != _NOT_FOUND:
            raise
        try:
            api.folder.create_folder(FOLDER_TITLE, uid=FOLDER_UID)
        except GrafanaClientError as late:
            if late.status_code not in _EXISTS:
                raise


def _push_once(api: GrafanaApi, url: str, wanted: Mapping[str, Any]) -> Pushed | None:
    """Compare and store; none where somebody else stored another version in between."""
    from grafana_client.client import GrafanaClientError  # noqa: PLC0415

    stored, version = _stored(api, wanted["uid"])
    content = {name: value for name, value in wanted.items() if name not in _COUNTED}
    if stored is not None and holds(stored["dashboard"], content) and _in_folder(stored):
        return Pushed(_address(url, stored["meta"]["url"]), version, changed=False)
    body = {**copy.deepcopy(dict(wanted)), "id": None, "version": version}
    asked = {
        "dashboard": body,
        "folderUid": FOLDER_UID,
        "message": "as the code has it",
        # The version that was read must be the newest one still.
        "overwrite": False,
    }
    try:
        answer = api.dashboard.update_dashboard(asked)
    except GrafanaClientError as error:
        if _status(error) == _CHANGED_MEANWHILE:
            return None
        raise
    return Pushed(_address(url, answer["url"]), int(answer["version"]), changed=True)


def _stored(api: GrafanaApi, uid: str) -> tuple[dict[str, Any] | None, int]:
    from grafana_client.client import GrafanaClientError  # noqa: PLC0415

    try:
        found: dict[str, Any] = api.dashboard.get_dashboard(uid)
    except GrafanaClientError as error:
        if error.status_code == _NOT_FOUND:
            return None, 0
        raise
    return found, int(found["dashboard"]["version"])


def _in_folder(stored: Mapping[str, Any]) -> bool:
    return bool(stored["meta"].get("folderUid") == FOLDER_UID)


def _address(url: str, path: str) -> str:
    """The dashboard's address for a person; Grafana's ``path`` has any prefix of its own."""
    parts = urlsplit(_without_password(url))
    return f"{parts.scheme}://{parts.netloc}{path}"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
