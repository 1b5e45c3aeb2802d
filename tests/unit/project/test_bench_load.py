"""The bench of the inference service: what its open-loop client and its judgement count."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.serving import open_loop, swap, wrk
from bench.serving.open_loop import Records
from bench.serving.servers import Side

STALL_SECONDS = 0.5
RATE = 200.0


@contextmanager
def stalling_server(stall_at: int, *, status: int = 200) -> Iterator[int]:
    """Answers at once, but for one request, at which everything waits; the port."""
    loop, up, ports = asyncio.new_event_loop(), threading.Event(), []
    answered = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while True:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                writer.close()
                return
            answered += 1
            if answered == stall_at:
                threading.Event().wait(STALL_SECONDS)
            body = b'{"model_version":"7"}'
            head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        stopping = asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        up.set()
        await stopping.wait()
        server.close()

    stop: list[object] = []
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    try:
        yield ports[0]
    finally:
        stop[0]()  # type: ignore[operator]
        thread.join(10)
        loop.close()


def records(folder: Path, port: int) -> Records:
    side = Side("server", port, "/", bodies=("{}",))
    return open_loop.load(side, folder, rate=RATE, seconds=1.5, connections=4)


def test_a_stall_counts_for_all_who_would_have_come_meanwhile(tmp_path: Path) -> None:
    with stalling_server(stall_at=60) as port:
        found = records(tmp_path, port)
    assert found.failed == 0
    assert set(found.version) == {"7"}
    assert len(found.due) == RATE * 1.5
    assert np.allclose(np.diff(found.due), 1 / RATE)
    # With the next request only sent after the answer, four requests at most would be slow.
    slow = int((found.seconds > STALL_SECONDS / 4).sum())
    assert slow >= 0.6 * STALL_SECONDS * RATE
    assert found.quantile(0.99) > 0.8 * STALL_SECONDS


def test_errors_are_failed_requests(tmp_path: Path) -> None:
    with stalling_server(stall_at=0, status=503) as port:
        found = records(tmp_path, port)
    assert found.failed == len(found.due) == RATE * 1.5


def test_a_version_that_comes_back_is_a_wrong_one() -> None:
    due = np.arange(8.0)
    version = np.array(["1", "1", "1", "1", "2", "1", "3", "2"])
    seconds = np.full(8, 0.25)
    status = np.full(8, 200)
    status[2] = 503
    found = Records(due=due, sent=due, seconds=seconds, status=status, version=version)
    judged = swap._judged(found, 3.0, "1", "2")
    assert (judged.requests, judged.failed) == (8, 1)
    assert judged.wrong == 2
    assert judged.took == pytest.approx(1.25)


def test_says_how_to_install_wrk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(wrk.NoWrkError, match="apt install wrk"):
        wrk.find()
