"""The service as a process: ``python -m cryptoml_serving`` from start to SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.served import SERVED_PREDICTIONS
from tests.images.locked import only_locked
from tests.sandbox_server import free_port
from tests.serving_client import wait
from tests.serving_world import NOW, ServingWorld, build_templates

COMMAND = [sys.executable, "-m", "cryptoml_serving"]


def test_serves_until_told_to_stop(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    world.write_features({"BTC/USDT": (0.1, 0.2, 0.3)}, at=NOW - timedelta(minutes=1))
    version = world.publish().version
    port = free_port()
    log = tmp_path / "log"
    # Predictions reach the lake by the last commit alone, the one after SIGTERM.
    environment = {**world.environment(port), "CRYPTOML_SERVING_LOG_INTERVAL": "1d"}
    # What the image lacks is lacking here too.
    environment |= only_locked("serving", tmp_path)
    with log.open("w") as stderr:
        server = subprocess.Popen(
            COMMAND, env=environment, stdout=subprocess.DEVNULL, stderr=stderr
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            _wait_ready(server, client)
            second = subprocess.run(
                COMMAND, env=world.environment(port), capture_output=True, text=True, check=False
            )
            assert second.returncode == 2
            assert f"CRYPTOML_SERVING_PORT={port}" in second.stderr
            answer = client.post("/predict", json={"symbol": "BTC/USDT"}).json()
        outcomes, asking = _ask_in_background(port)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        asking.join(20)
    finally:
        server.kill()
        server.wait()
    assert set(outcomes) <= {200, None}
    kept = Lake(world.settings().lake_uri).scan(SERVED_PREDICTIONS).collect()
    assert kept["prediction_id"].to_list() == [answer["prediction_id"]]
    assert not list(world.settings().outbox_path.iterdir())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    predictions = [line for line in lines if line["event"] == "prediction"]
    assert predictions[0]["model_version"] == version
    assert not [line for line in lines if line["level"] == "error"]
    assert all({"time", "level", "message", "request_id"} <= line.keys() for line in predictions)


def _wait_ready(server: subprocess.Popen[bytes], client: httpx.Client) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None, "the service ended by itself"
        assert time.monotonic() < deadline, "it never got ready"
        try:
            if client.get("/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def _ask_in_background(port: int) -> tuple[list[int | None], threading.Thread]:
    """Ask until the service is gone; each answer's status, none where there was no service."""
    outcomes: list[int | None] = []

    def ask() -> None:
        while None not in outcomes:
            try:
                answer = httpx.post(
                    f"http://127.0.0.1:{port}/predict", json={"symbol": "BTC/USDT"}, timeout=10
                )
                outcomes.append(answer.status_code)
            except httpx.ConnectError:
                outcomes.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    while not outcomes:
        time.sleep(0.001)
    return outcomes, thread


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_killed_server_leaves_no_worker(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "CRYPTOML_HOME": str(tmp_path),
        "CRYPTOML_SERVING_PORT": str(port),
        "CRYPTOML_SERVING_ADMIN_PORT": "0",
    }
    server = subprocess.Popen(COMMAND, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: _answers(port))
    finally:
        server.kill()
        server.wait()
    wait(lambda: not _answers(port))


def test_head_is_answered_as_get_without_the_body(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    environment = {
        **os.environ,
        "CRYPTOML_HOME": str(tmp_path),
        "CRYPTOML_SERVING_PORT": str(port),
        "CRYPTOML_SERVING_ADMIN_PORT": str(admin),
    }
    server = subprocess.Popen(COMMAND, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: _answers(port) and _answers(admin), 60)
        paths = ("/health", "/ready", "/metrics", "/", "/docs", "/v2/health/ready", "/nothing")
        _answers_head(port, *paths)
        _answers_head(admin, "/health", "/metrics")
        stream = httpx.head(f"http://127.0.0.1:{port}/predictions/stream")
        assert (stream.status_code, stream.content) == (200, b"")
    finally:
        server.kill()
        server.wait()


def _answers_head(port: int, *paths: str) -> None:
    # One connection: a body that was sent would be taken for the next answer.
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path in paths:
            asked, answer = client.get(path), client.head(path)
            assert (answer.status_code, answer.content) == (asked.status_code, b"")
            assert answer.headers.keys() == asked.headers.keys()
            assert int(answer.headers["content-length"]) > 0


def test_a_wrong_setting_stops_at_start() -> None:
    environment = {**os.environ, "CRYPTOML_SERVING_PORT": "http"}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("CRYPTOML_SERVING_PORT='http'")


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx.TransportError:
        return False
