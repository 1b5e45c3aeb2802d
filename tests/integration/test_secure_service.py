"""The service as others reach it: TLS, keys and two workers, one of which is killed."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cryptoml_serving.security.keys import add_key, revoke_key
from cryptoml_serving.security.roles import Role
from tests.certificates import self_signed
from tests.sandbox_server import free_port
from tests.serving_world import NOW, ServingWorld, build_templates
from tests.waiting import until

COMMAND = [sys.executable, "-m", "cryptoml_serving"]
READY_SECONDS = 120.0
#: A call that fails had been begun so long ago at most.
ONE_CALL_SECONDS = 0.5
#: Calls, one after the other, in the moment in which a killed worker's sockets are closed.
MOST_LOST = 5


@dataclass
class Asking:
    """Asks for predictions, each time over a new connection, until told to stop.

    Attributes:
        statuses: of the answers.
        failures: when no answer came, on the monotonic clock, and why.
    """

    url: str
    key: str
    trust: ssl.SSLContext
    statuses: list[int] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                answer = httpx.post(
                    f"{self.url}/predict",
                    json={"symbol": "BTC/USDT"},
                    headers={"X-API-Key": self.key},
                    verify=self.trust,
                    timeout=10,
                )
                self.statuses.append(answer.status_code)
            except httpx.TransportError as error:
                self.failures.append((time.monotonic(), repr(error)))

    @contextmanager
    def going(self) -> Iterator[Asking]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            thread.join(20)


def test_two_workers_behind_tls_and_keys(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    world.write_features({"BTC/USDT": (0.1, 0.2, 0.3)}, at=NOW - timedelta(minutes=1))
    world.publish()
    certificate, private = self_signed(tmp_path)
    keys, made = tmp_path / "keys.json", datetime.now(UTC)
    desk = add_key(keys, "desk", roles=[Role.PREDICT], rate=0.0, now=made)
    ops = add_key(keys, "ops", roles=[Role.ADMIN], rate=None, now=made)
    port, admin = free_port(), free_port()
    environment = {
        **world.environment(port),
        "CRYPTOML_SERVING_WORKERS": "2",
        "CRYPTOML_SERVING_ADMIN_PORT": str(admin),
        "CRYPTOML_SERVING_KEYS": str(keys),
        "CRYPTOML_SERVING_TLS_CERTIFICATE": str(certificate),
        "CRYPTOML_SERVING_TLS_KEY": str(private),
    }
    trust = ssl.create_default_context(cafile=certificate)
    url = f"https://127.0.0.1:{port}"
    with started(environment, tmp_path / "log") as server:
        until(lambda: status(f"{url}/ready", trust) == 200, READY_SECONDS)
        log = tmp_path / "log"
        until(lambda: log.read_text().count("Started worker") == 2, READY_SECONDS)
        workers = psutil.Process(server.pid).children()
        assert len(workers) == 2
        _speaks_new_tls_alone(port, certificate)
        ask = {"json": {"symbol": "BTC/USDT"}, "verify": trust}
        assert httpx.post(f"{url}/predict", **ask).status_code == 401
        assert httpx.post(f"{url}/predict", headers=_key(desk), **ask).status_code == 200
        assert httpx.post(f"{url}/admin/reload", headers=_key(ops), verify=trust).status_code == 404
        for worker in (admin, admin + 1):
            reload = f"https://127.0.0.1:{worker}/admin/reload"
            asked = [httpx.post(reload, headers=_key(k), verify=trust) for k in (desk, ops)]
            assert [answer.status_code for answer in asked] == [403, 202]
        with Asking(url, desk, trust).going() as asking:
            until(lambda: len(asking.statuses) > 5)
            workers[0].kill()
            until(lambda: workers[0] not in psutil.Process(server.pid).children())
            gone = time.monotonic()
            # The new one takes connections once it can answer them.
            until(lambda: "Started worker" in _since(log, "Respawning"), READY_SECONDS)
            seen = len(asking.statuses)
            until(lambda: len(asking.statuses) > seen + 20)
        assert set(asking.statuses) == {200}
        # What the killed one was answering is lost, and what the kernel had queued for it until it
        # had closed its sockets; nothing any more once it is gone.
        assert [why for at, why in asking.failures if at > gone + ONE_CALL_SECONDS] == []
        assert len(asking.failures) <= MOST_LOST, asking.failures
        revoke_key(keys, "desk")
        until(lambda: httpx.post(f"{url}/predict", headers=_key(desk), **ask).status_code == 401)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


@contextmanager
def started(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stderr:
        server = subprocess.Popen(COMMAND, env=environment, stderr=stderr)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def status(url: str, trust: ssl.SSLContext) -> int:
    try:
        return httpx.get(url, verify=trust, timeout=10).status_code
    except httpx.TransportError:
        return 0


def _key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _since(log: Path, mark: str) -> str:
    return log.read_text().partition(mark)[2]


def _speaks_new_tls_alone(port: int, certificate: Path) -> None:
    import socket  # noqa: PLC0415

    def version(most: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=certificate)
        context.maximum_version = most
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
        ):
            return wrapped.version()

    assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        version(ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"HOST": "0.0.0.0"}, "CRYPTOML_SERVING_HOST=0.0.0.0: other machines"),  # noqa: S104
        ({"KEYS": "{tmp}/none.json"}, "none.json: no such file of keys"),
        ({"TLS_CERTIFICATE": "{tmp}/tls.crt"}, "CRYPTOML_SERVING_TLS_KEY is empty"),
        (
            {"TLS_CERTIFICATE": "{tmp}/tls.crt", "TLS_KEY": "{tmp}/other.key"},
            "CRYPTOML_SERVING_TLS_CERTIFICATE=.*not usable with the key.*MISMATCH",
        ),
        (
            {"TLS_CERTIFICATE": "{tmp}/tls.crt", "TLS_KEY": "{tmp}/none.key"},
            "CRYPTOML_SERVING_TLS_KEY=.*none.key: no such file",
        ),
        ({"ADMIN_PORT": "{port}"}, "CRYPTOML_SERVING_ADMIN_PORT={port}: .* already has"),
        ({"ADMIN_PORT": "65535", "WORKERS": "2"}, "ADMIN_PORT=65535: 2 workers"),
        ({"WORKERS": "0"}, "CRYPTOML_SERVING_WORKERS='0'"),
    ],
)
def test_what_cannot_be_served_safely_is_not_started(
    tmp_path: Path, variables: dict[str, str], told: str
) -> None:
    self_signed(tmp_path)
    self_signed(tmp_path, "other")
    port = free_port()
    names: dict[str, Any] = {"tmp": tmp_path, "port": port}
    environment = {
        **os.environ,
        "CRYPTOML_SERVING_PORT": str(port),
        "CRYPTOML_SERVING_ADMIN_PORT": "0",
        **{f"CRYPTOML_SERVING_{k}": v.format(**names) for k, v in variables.items()},
    }
    done = subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert re.search(told.format(**names), done.stderr), done.stderr
