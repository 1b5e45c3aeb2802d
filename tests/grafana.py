"""The part of Grafana's HTTP API that keeps folders and dashboards, as its documentation has it.

A dashboard is found by its uid. Each save makes a new version, whether or not anything changed, and
needs the newest version's number or ``overwrite``. Answers carry what Grafana adds by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "a-service-account-token"  # noqa: S105


@dataclass
class Grafana:
    """What it keeps, and what it was asked."""

    folders: dict[str, str] = field(default_factory=dict)
    #: Every version of a dashboard, oldest first: its JSON and its folder.
    versions: dict[str, list[tuple[dict[str, Any], str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    #: Called before a save is looked at: somebody else's chance to be first.
    meanwhile: Callable[[], None] = lambda: None
    writable: bool = True

    def save(self, dashboard: dict[str, Any], folder: str = "") -> int:
        own = self.versions.setdefault(dashboard["uid"], [])
        own.append(({**dashboard, "id": 7, "version": len(own) + 1}, folder))
        return len(own)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/folders", self._guarded(self._create_folder), methods=["POST"]),
                Route("/api/folders/{uid}", self._guarded(self._folder)),
                Route("/api/dashboards/uid/{uid}", self._guarded(self._dashboard)),
                Route("/api/dashboards/db", self._guarded(self._save), methods=["POST"]),
            ]
        )

    def _guarded(self, answer: Callable[[Request, Any], Response]) -> Any:
        async def guarded(request: Request) -> Response:
            self.asked.append(f"{request.method} {request.url.path}")
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                return problem(401, "Invalid API key")
            if request.method == "POST" and not self.writable:
                return problem(403, "Access denied")
            return answer(request, json.loads(await request.body() or b"null"))

        return guarded

    def _folder(self, request: Request, _: Any) -> Response:
        uid = request.path_params["uid"]
        if uid not in self.folders:
            return problem(404, "folder not found", "not-found")
        return JSONResponse({"uid": uid, "title": self.folders[uid]})

    def _create_folder(self, _: Request, body: Any) -> Response:
        if body["uid"] in self.folders:
            return problem(412, "a folder with the same uid exists", "name-exists")
        self.folders[body["uid"]] = body["title"]
        return JSONResponse({"uid": body["uid"], "title": body["title"], "version": 1})

    def _dashboard(self, request: Request, _: Any) -> Response:
        uid = request.path_params["uid"]
        if uid not in self.versions:
            return problem(404, "Dashboard not found", "not-found")
        dashboard, folder = self.versions[uid][-1]
        # Defaults that Grafana writes into what it was given.
        panels = [{**panel, "pluginVersion": "12.0.0"} for panel in dashboard["panels"]]
        stored = {**dashboard, "panels": panels, "fiscalYearStartMonth": 0, "schemaVersion": 42}
        meta = {"url": f"/d/{uid}/cryptoml", "folderUid": folder, "version": dashboard["version"]}
        return JSONResponse({"dashboard": stored, "meta": meta})

    def _save(self, _: Request, body: Any) -> Response:
        self.meanwhile()
        dashboard, folder = body["dashboard"], body.get("folderUid", "")
        if folder and folder not in self.folders:
            return problem(400, "folder not found")
        own = self.versions.get(dashboard["uid"], [])
        if own and not body.get("overwrite") and dashboard.get("version") != len(own):
            told = "the dashboard has been changed by someone else"
            return problem(412, told, "version-mismatch")
        version = self.save(dashboard, folder)
        uid = dashboard["uid"]
        answer = {"id": 7, "uid": uid, "url": f"/d/{uid}/cryptoml", "version": version}
        return JSONResponse({**answer, "status": "success"})


def problem(status: int, message: str, word: str = "") -> Response:
    return JSONResponse({"message": message, **({"status": word} if word else {})}, status)
