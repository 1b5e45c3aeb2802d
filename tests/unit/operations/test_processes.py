from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from cryptoml_assets.operations import processes
from cryptoml_assets.operations.processes import (
    ChildError,
    Children,
    PortInUseError,
    free_port,
    port_is_free,
    require_port,
)

HOST = "127.0.0.1"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_leaving_stops_children_and_their_own_children(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    with Children(tmp_path) as children:
        child = children.start("parent", python(program), {})
        while not child.log.read_text().strip():
            time.sleep(0.02)
        grandchild = int(child.log.read_text())
        assert alive(grandchild)
    assert child.process.returncode == -signal.SIGTERM
    deadline = time.monotonic() + 10
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.02)
    state = Path(f"/proc/{grandchild}/stat")
    assert not alive(grandchild) or " Z " in state.read_text()


def test_a_child_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        children.start("fine", python("import time; time.sleep(60)"), {})
        children.start("broken", python("print('no such model'); raise SystemExit(3)"), {})
        with pytest.raises(ChildError, match=r"broken ended with exit code 3[\s\S]*no such model"):
            children.watch()


def test_waiting_for_a_child_that_dies_says_so(tmp_path: Path) -> None:
    url = f"http://{HOST}:{free_port(HOST)}/"
    with Children(tmp_path) as children:
        child = children.start("broken", python("raise SystemExit('cannot bind')"), {})
        with pytest.raises(ChildError, match=r"ended with exit code 1[\s\S]*cannot bind"):
            children.wait_ready(child, url, 20.0)


def test_waiting_ends(tmp_path: Path) -> None:
    url = f"http://{HOST}:{free_port(HOST)}/"
    with Children(tmp_path) as children:
        child = children.start("mute", python("import time; time.sleep(60)"), {})
        with pytest.raises(ChildError, match="did not answer at"):
            children.wait_ready(child, url, 0.3)


def test_environment_reaches_the_child(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = children.start(
            "echo", python("import os; print(os.environ['ANSWER'])"), {"ANSWER": "42"}
        )
        child.process.wait(20)
    assert child.log.read_text().strip() == "42"


def test_a_taken_port_is_refused_by_its_setting() -> None:
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        assert not port_is_free(HOST, port)
        with pytest.raises(PortInUseError, match=f"CRYPTOML_DAGSTER_PORT={port}: another process"):
            require_port("CRYPTOML_DAGSTER_PORT", HOST, port)
    require_port("CRYPTOML_DAGSTER_PORT", HOST, free_port(HOST))


def test_a_port_is_none_that_the_system_gives_away() -> None:
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(given.read_text().split()[0]) if given.exists() else 32_768
    ports = [free_port(HOST) for _ in range(20)]
    assert all(1_024 <= port < lowest for port in ports)


def test_processes_started_together_choose_other_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    for pid in range(4_000, 4_016):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        monkeypatch.setattr(processes, "_GIVEN", itertools.count())
        chosen += [free_port(HOST) for _ in range(50)]
    assert len(set(chosen)) == 16 * 50


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(processes, "port_is_free", lambda _, port: looked.append(port))
    with pytest.raises(PortInUseError, match=f"^{HOST}: each of 200 ports looked at"):
        free_port(HOST)
    assert len(set(looked)) == 200
