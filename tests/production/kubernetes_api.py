"""The part of Kubernetes that Dagster asks for Jobs: it keeps them, and runs them as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class KubernetesApi:
    """Jobs by name as they were posted; with ``runs`` each is a process of this machine."""

    def __init__(self, *, runs: bool = True) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self._runs = runs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.create(body)
                self._answer(201, body)

            def do_GET(self) -> None:
                name = self.path.split("?")[0].removesuffix("/status").rsplit("/", 1)[-1]
                found = api.jobs.get(name)
                self._answer(200 if found else 404, {**(found or {}), "status": api.status(name)})

            def _answer(self, code: int, body: dict[str, Any]) -> None:
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def create(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        assert name not in self.jobs, f"{name} is there already"
        self.jobs[name] = job
        if not self._runs:
            return
        (container,) = job["spec"]["template"]["spec"]["containers"]
        own = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        own["DAGSTER_HOME"] = os.environ["DAGSTER_HOME"]
        command = [sys.executable, "-m", *container["args"]]
        self._processes[name] = subprocess.Popen(command, env={**os.environ, **own})

    def status(self, name: str) -> dict[str, int]:
        process = self._processes.get(name)
        code = None if process is None else process.poll()
        return {"active": 1} if code is None else {"failed" if code else "succeeded": 1}
