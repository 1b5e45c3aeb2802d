"""``cryptoml up``: everything comes up, and a crash of one part is told and ends the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from cryptoml_assets.operations.processes import free_port, port_is_free

REPOSITORY = Path(__file__).parents[2]
HOST = "127.0.0.1"
UP_SECONDS = 180.0
PORTS = ("DAGSTER", "SERVING", "ADMIN", "MLFLOW", "SANDBOX", "EXPORTER")

pytestmark = [pytest.mark.long, pytest.mark.timeout(280)]


def test_everything_comes_up_and_a_crash_ends_it(tmp_path: Path) -> None:
    ports = {name: free_port(HOST) for name in PORTS}
    log = tmp_path / "up.log"
    with log.open("w") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "cryptoml_assets.cli", "up"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("CRYPTOML_")},
                "CRYPTOML_HOME": str(tmp_path / "home"),
                "CRYPTOML_DAYS": "4",
                "CRYPTOML_SYMBOLS": "BTC/USDT,ETH/USDT",
                "CRYPTOML_ENSEMBLE_SIZE": "1",
                "CRYPTOML_FAMILIES": "linear,mlp",
                "CRYPTOML_SANDBOX_BLOCK_SECONDS": "3600",
                "CRYPTOML_DAGSTER_PORT": str(ports["DAGSTER"]),
                "CRYPTOML_SERVING_PORT": str(ports["SERVING"]),
                "CRYPTOML_SERVING_ADMIN_PORT": str(ports["ADMIN"]),
                "CRYPTOML_MLFLOW_PORT": str(ports["MLFLOW"]),
                "CRYPTOML_EXPORTER_PORT": str(ports["EXPORTER"]),
                "CRYPTOML_SANDBOX_URL": f"http://{HOST}:{ports['SANDBOX']}",
            },
        )
    try:
        _wait_up(up, log)
        paths = {
            "DAGSTER": "server_info",
            "SERVING": "health",
            "ADMIN": "health",
            "MLFLOW": "health",
            "EXPORTER": "metrics",
        }
        for name, path in paths.items():
            address = f"http://{HOST}:{ports[name]}"
            assert address in log.read_text()
            assert httpx.get(f"{address}/{path}", timeout=30.0).is_success
        started = psutil.Process(up.pid).children(recursive=True)
        (serving,) = (p for p in started if "cryptoml_serving" in p.cmdline() and _leads(p))
        serving.kill()
        assert up.wait(60) == 1
    finally:
        up.terminate()
        up.wait(60)
    assert "serving ended with exit code -9" in log.read_text()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
    assert all(port_is_free(HOST, port) for port in ports.values())


def _leads(process: psutil.Process) -> bool:
    """Whether a process leads its group, as each child of ours does; its workers do not."""
    return os.getpgid(process.pid) == process.pid


def _wait_up(up: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while "Ctrl-C stops everything." not in log.read_text():
        assert up.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
