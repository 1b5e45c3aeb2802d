"""Open-loop load in a process of its own, and what became of each request."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.serving.servers import Side

_WORKER = Path(__file__).parent / "workers" / "open_loop_client.py"


@dataclass(frozen=True)
class Records:
    """Requests in the order in which they were due.

    Attributes:
        due: instant of the monotonic clock at which it was to be sent.
        sent: at which it was; 0 where it never was.
        seconds: from ``due`` to the whole answer; infinite where none came.
        status: of HTTP; 0 where none came.
        version: of the model, as the answer says.
    """

    due: NDArray[np.float64]
    sent: NDArray[np.float64]
    seconds: NDArray[np.float64]
    status: NDArray[np.int64]
    version: NDArray[np.str_]

    @property
    def failed(self) -> int:
        """Requests without an answer, or with an error."""
        return int((self.status != 200).sum())

    def quantile(self, share: float, chosen: NDArray[np.bool_] | None = None) -> float:
        """Seconds within which this share of the requests, or of the chosen, was answered."""
        seconds = self.seconds if chosen is None else self.seconds[chosen]
        return float(np.quantile(seconds, share, method="higher"))


class Load:
    """A load under way."""

    def __init__(
        self, side: Side, folder: Path, *, rate: float, seconds: float, connections: int
    ) -> None:
        """Begin."""
        plan, self._records = folder / "plan.json", folder / "records.json"
        requests = [_request(side, each) for each in side.bodies]
        plan.write_text(
            json.dumps(
                {
                    "port": side.port,
                    "rate": rate,
                    "seconds": seconds,
                    "connections": connections,
                    "requests": requests,
                }
            )
        )
        command = [sys.executable, str(_WORKER), str(plan), str(self._records)]
        self._process = subprocess.Popen(command)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Have no more requests sent; those under way are waited for."""
        self._process.terminate()

    def records(self) -> Records:
        """Wait for its end.

        Raises:
            RuntimeError: it failed.
        """
        if status := self._process.wait():
            message = f"the client of the open-loop load ended with {status}"
            raise RuntimeError(message)
        said = json.loads(self._records.read_text())
        due, ended = np.array(said["due"]), np.array(said["ended"])
        return Records(
            due=due,
            sent=np.array(said["sent"]),
            seconds=np.where(ended > 0, ended - due, np.inf),
            status=np.array(said["status"]),
            version=np.array(said["version"]),
        )


def load(side: Side, folder: Path, *, rate: float, seconds: float, connections: int) -> Records:
    """Run a load from its begin to its end."""
    with Load(side, folder, rate=rate, seconds=seconds, connections=connections) as running:
        return running.records()


def _request(side: Side, body: str) -> str:
    headers = {
        "Host": f"127.0.0.1:{side.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body.encode())),
        **side.headers,
    }
    lines = [f"{side.method} {side.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines) + "\r\n\r\n" + body
