"""Open-loop load: requests at fixed instants, whether or not earlier ones were answered.

``open_loop_client.py PLAN RECORDS``; SIGTERM ends it before its time. A request's time counts from
the instant at which it was due, so that a server that stalls pays for all who would have come
meanwhile. One thread waits with ``select``, whose time limit is finer than a millisecond, unlike an
event loop's. Imports nothing of ours.
"""

from __future__ import annotations

import gc
import json
import re
import select
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_VERSION = re.compile(rb'"model_version": *"([^"]*)"')
_PATIENCE = 10.0


class Connection:
    """One connection, with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = self._connect()
        self.request = -1
        self.answer = b""

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self.port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: int, data: bytes) -> None:
        self.request, self.answer = request, b""
        try:
            self.socket.sendall(data)
        except OSError:
            # Told by reading, which finds the connection closed.
            return

    def receive(self) -> tuple[int, str] | None:
        """Status and model version once the answer is whole; status 0 where it broke off."""
        try:
            part = self.socket.recv(262_144)
        except OSError:
            part = b""
        if not part:
            self.socket.close()
            self.socket = self._connect()
            return 0, ""
        self.answer += part
        head = self.answer.find(b"\r\n\r\n")
        if head < 0:
            return None
        length = _LENGTH.search(self.answer, 0, head + 2)
        if length is None or len(self.answer) < head + 4 + int(length[1]):
            return None
        version = _VERSION.search(self.answer, head)
        return int(self.answer[9:12]), version[1].decode() if version else ""


def run(plan: dict[str, Any]) -> dict[str, list[Any]]:
    requests = [each.encode() for each in plan["requests"]]
    pause, total = 1.0 / plan["rate"], round(plan["rate"] * plan["seconds"])
    idle = [Connection(plan["port"]) for _ in range(plan["connections"])]
    busy: set[Connection] = set()
    waiting: deque[int] = deque()
    sent = [0.0] * total
    ended = [0.0] * total
    status, version = [0] * total, [""] * total
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    began = time.monotonic() + 0.05
    due = answered = 0
    last = began + total * pause + _PATIENCE
    while answered < total and (now := time.monotonic()) < last:
        while due < total and began + due * pause <= now:
            waiting.append(due)
            due += 1
        while waiting and idle:
            connection, request = idle.pop(), waiting.popleft()
            sent[request] = time.monotonic()
            connection.send(request, requests[request % len(requests)])
            busy.add(connection)
        if stopping and due < total:
            total, last = due, now + _PATIENCE
        until = began + due * pause if due < total else last
        ready, _, _ = select.select(list(busy), [], [], max(0.0, until - time.monotonic()))
        for connection in ready:
            if (answer := connection.receive()) is None:
                continue
            request = connection.request
            ended[request] = time.monotonic()
            status[request], version[request] = answer
            busy.discard(connection)
            idle.append(connection)
            answered += 1
    return {
        "due": [began + each * pause for each in range(total)],
        "sent": sent[:total],
        "ended": ended[:total],
        "status": status[:total],
        "version": version[:total],
    }


def main() -> None:
    plan, records = map(Path, sys.argv[1:])
    gc.disable()
    records.write_text(json.dumps(run(json.loads(plan.read_text()))))


if __name__ == "__main__":
    main()
