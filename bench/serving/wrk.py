"""Closed-loop load by ``wrk``: each connection sends its next request when it has its answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.serving.servers import Side

_SCRIPT = Path(__file__).parent / "workers" / "post.lua"


class NoWrkError(Exception):
    """``wrk`` is not installed; the message says how to get it."""


class FailedRequestsError(Exception):
    """Some requests of a run were not answered as they should: its rate means nothing."""


@dataclass(frozen=True)
class Run:
    """What one run measured.

    Attributes:
        rate: answers a second.
        p50: half of the answers took at most this, in seconds.
        p99: ninety-nine of a hundred did.
    """

    rate: float
    p50: float
    p99: float


def find() -> str:
    """The program.

    Raises:
        NoWrkError: there is none.
    """
    found = shutil.which("wrk")
    if found is None:
        message = (
            "wrk is not installed; on Debian or Ubuntu: apt install wrk, elsewhere see "
            "https://github.com/wg/wrk"
        )
        raise NoWrkError(message)
    return found


def load(side: Side, folder: Path, *, connections: int, seconds: float) -> Run:
    """Load one side for some seconds, from one thread.

    Raises:
        FailedRequestsError: an answer was an error, or never came.
    """
    bodies = folder / "bodies"
    bodies.write_text("\n".join(side.bodies) + "\n")
    headers = {"Content-Type": "application/json", **side.headers}
    command = [
        *(find(), "--threads", "1", "--connections", str(connections)),
        *("--duration", f"{seconds:.0f}s", "--timeout", "10s", "--script", str(_SCRIPT)),
        *(part for name, value in headers.items() for part in ("--header", f"{name}: {value}")),
        *(side.url, "--", side.method, str(bodies)),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout.splitlines()[-1])
    if said["failed"] or not said["requests"]:
        message = f"{side.name}: {said['failed']} of {said['requests']} requests failed"
        raise FailedRequestsError(message)
    return Run(said["requests"] / said["seconds"], said["p50"], said["p99"])
