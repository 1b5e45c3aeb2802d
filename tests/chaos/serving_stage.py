"""A service of its own process, faults for it, and callers that notice everything.

Every version published here predicts its number times the sum of the features, so that an answer
shows which model made it, whatever it says.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos.serving_load import ROWS
from tests.sandbox_server import free_port
from tests.serving_world import (
    FEATURES,
    MODEL,
    NOW,
    Published,
    ServingWorld,
    Templates,
    scaled_program,
)
from tests.waiting import until

#: Seconds between two looks of the service at the registry.
POLL = 0.2
#: Seconds after a decision in which the service may still follow the one before: a look, loading,
#: and what a loaded machine adds.
GRACE = 8.0
_READY_SECONDS = 120.0
_REPOSITORY = Path(__file__).parents[2]


@dataclass
class Counts:
    """What became of the requests of one scenario.

    Attributes:
        sent: requests that found a service.
        answered: with a prediction.
        told: answered with an error that this fault is to bring about, or that the version asked
            for is not served any more.
        failed: everything else: cut connections, 5xx that were not to be, no answer.
        wrong: answers of a version that was not to serve, or that no version gives.
        nobody: requests that found no service; only where it was stopped on purpose.
        p99_before: seconds in which 99 of 100 requests were answered before the fault.
        p99_during: the same from the fault on.
        faults: what else was not as it must be, in words.
    """

    name: str
    sent: int = 0
    answered: int = 0
    told: int = 0
    failed: int = 0
    wrong: int = 0
    nobody: int = 0
    p99_before: float = math.nan
    p99_during: float = math.nan
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return self.answered > 0 and not (self.failed or self.wrong or self.faults)

    def line(self) -> str:
        """One line of the table."""
        return (
            f"{self.name:34} {self.sent:6} {self.answered:8} {self.told:6} {self.failed:6} "
            f"{self.wrong:6} {self.nobody:7} {self.p99_before * 1e3:9.1f} "
            f"{self.p99_during * 1e3:9.1f}  {'sound' if self.sound else 'UNSOUND'}"
            + "".join(f"\n    {fault}" for fault in self.faults)
        )


HEADING = (
    f"{'fault':34} {'sent':>6} {'answered':>8} {'told':>6} {'failed':>6} {'wrong':>6} "
    f"{'nobody':>7} {'p99 ms':>9} {'after':>9}"
)


class Stage:
    """One world, its service and what may be answered."""

    def __init__(self, folder: Path, templates: Templates) -> None:
        self.folder = folder
        self.world = ServingWorld(folder, templates)
        self.clock = folder / "clock"
        self.set_clock(timedelta())
        self.world.write_features({**ROWS}, at=NOW - timedelta(minutes=5))
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.server: subprocess.Popen[bytes] | None = None
        self.published: list[Published] = []
        #: Version → second from which on it may answer, and until when.
        self.may: dict[str, tuple[float, float]] = {}
        self.publish()

    # -- decisions -------------------------------------------------------------------------------

    def publish(
        self, *, approved: bool = True, spoil: Callable[[Published], None] | None = None
    ) -> Published:
        """Log, register, approve and deploy the next version; ``spoil`` breaks it before that."""
        number = len(self.published) + 1
        published = self.world.publish(deployed=False, program=scaled_program(number))
        assert published.version == str(number)
        self.published.append(published)
        if spoil is not None:
            spoil(published)
        if approved:
            answering = [version for version, (_, until) in self.may.items() if until == math.inf]
            self.may[published.version] = (time.time(), math.inf)
            self.world.place(published)
            for version in answering if spoil is None else ():
                self.may[version] = (self.may[version][0], time.time() + GRACE)
        return published

    @property
    def champion(self) -> str | None:
        """The version that was placed last."""
        placed = [p for p in self.world.placements.values() if p.role == "champion"]
        return placed[0].model_version if placed else None

    # -- the process -----------------------------------------------------------------------------

    def start(self, **settings: str) -> None:
        """Start the service and wait until it is ready."""
        environment = {
            **self.world.environment(self.port),
            "CRYPTOML_CLOCK_FILE": str(self.clock),
            "CRYPTOML_SERVING_REGISTRY_POLL": f"{POLL * 1000:.0f}ms",
            "CRYPTOML_SERVING_REFRESH": "200ms",
            "CRYPTOML_SERVING_ADMIN_PORT": "0",
            **settings,
        }
        environment.pop("CRYPTOML_NOW")
        with (self.folder / "service.log").open("ab") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "cryptoml_serving"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=_REPOSITORY,
            )
        until(lambda: self.ready() == httpx.codes.OK, _READY_SECONDS, "it never got ready")

    def ready(self) -> int:
        """Status of ``GET /ready``; 0 where nobody answers."""
        try:
            return httpx.get(f"{self.address}/ready", trust_env=False, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def troubles(self) -> dict[str, str]:
        """What ``/ready`` says is not as it should be."""
        answer = httpx.get(f"{self.address}/ready", trust_env=False, timeout=20)
        return dict(answer.json().get("problems", {}))

    def kill(self) -> None:
        """``kill -9`` of the whole service."""
        if self.server is not None:
            for process in (*self.workers(), psutil.Process(self.server.pid)):
                process.kill()
            self.server.wait()
            self.server = None

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        assert self.server is not None
        children = psutil.Process(self.server.pid).children()
        return [each for each in children if _works(each)]

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.server is not None
        self.server.send_signal(signal.SIGTERM)
        status = self.server.wait(30)
        self.server = None
        return status

    def set_clock(self, by: timedelta) -> None:
        """Have the world's clock stand at its usual instant and this much more."""
        incoming = self.clock.with_suffix(".new")
        incoming.write_text((NOW + by).isoformat())
        incoming.replace(self.clock)

    def version(self) -> str:
        """The version that answers now; empty where none does."""
        try:
            answer = httpx.post(
                f"{self.address}/predict", json={"symbol": "BTC/USDT"}, trust_env=False, timeout=20
            )
        except httpx.TransportError:
            return ""
        return str(answer.json()["model_version"]) if answer.is_success else ""

    # -- callers ---------------------------------------------------------------------------------

    @contextmanager
    def load(
        self, name: str, *, rate: float = 100.0, fresh: bool = False, polite: bool = False
    ) -> Iterator[Scene]:
        """Callers, for as long as the block lasts; then their counts are in the scene."""
        file = self.folder / f"{name.replace(' ', '-')}.jsonl"
        command = [sys.executable, "-m", "tests.chaos.serving_load", self.address, str(file)]
        command += ["--model", MODEL, "--columns", ",".join(each.name for each in FEATURES)]
        command += ["--rate", str(rate), *(["--fresh"] if fresh else [])]
        command += ["--polite"] if polite else []
        callers = subprocess.Popen(command, cwd=_REPOSITORY)
        scene = Scene(Counts(name))
        try:
            until(lambda: file.exists() and file.stat().st_size > 0, 30, "nobody ever asked")
            yield scene
        finally:
            callers.terminate()
            callers.wait(30)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        self._count(lines, scene)

    def _count(self, lines: list[dict[str, Any]], scene: Scene) -> None:
        counts = scene.counts
        for line in lines:
            status = line["status"]
            if status == 0:
                counts.nobody += 1
                continue
            counts.sent += 1
            if status == httpx.codes.OK:
                counts.answered += 1
                counts.wrong += not self._right(line)
            elif (
                line.get("error") in scene.expected
                or (status < 0 and scene.cut)
                or self._replaced(line)
            ):
                counts.told += 1
            else:
                counts.failed += 1
                if counts.failed <= 3:
                    why = line.get("detail", line.get("error"))
                    counts.faults.append(f"{line['way']}: {status}: {why}")
        if counts.nobody and not (scene.may_be_gone or scene.cut):
            counts.faults.append("nobody was there for some requests")
        answered = [line for line in lines if line["status"] == httpx.codes.OK]
        before = [line["seconds"] for line in answered if line["due"] < scene.struck]
        during = [line["seconds"] for line in answered if line["due"] >= scene.struck]
        counts.p99_before, counts.p99_during = percentile(before), percentile(during)

    def _right(self, line: dict[str, Any]) -> bool:
        """Whether this version may have answered then, and the numbers are its own."""
        began, ended = self.may.get(line["model_version"], (math.inf, 0.0))
        served = began <= line["due"] + line["seconds"] and line["began"] <= ended
        served &= line["asked"] in {"", line["model_version"]}
        expected = int(line["model_version"]) * sum(ROWS[line["symbol"]])
        return served and math.isclose(line["prediction"], expected, rel_tol=1e-5, abs_tol=1e-6)

    def _replaced(self, line: dict[str, Any]) -> bool:
        """Whether this is a request for a version that had been replaced by then."""
        unknown = line.get("error") == "urn:cryptoml:problem:unknown-version"
        _, ended = self.may.get(line["asked"], (0.0, math.inf))
        return unknown and ended - GRACE <= line["due"] + line["seconds"]

    def close(self) -> None:
        """End what lives."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Scene:
    """What a scenario says about itself while callers ask.

    Attributes:
        counts: filled when the callers have gone.
        struck: second at which the fault came.
        expected: types of problems that the fault is to bring about.
        may_be_gone: whether the service is stopped on purpose.
        cut: whether a process is killed, and the requests that it held with it.
    """

    counts: Counts
    struck: float = math.inf
    expected: frozenset[str] = frozenset()
    may_be_gone: bool = False
    cut: bool = False

    def strike(self, *expected: str, may_be_gone: bool = False) -> None:
        """From here on the fault is there."""
        self.struck = time.time()
        self.expected = frozenset(f"urn:cryptoml:problem:{each}" for each in expected)
        self.may_be_gone = may_be_gone


def _works(process: psutil.Process) -> bool:
    """Whether it serves: it lives, and is not the helper that every such process has."""
    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # dead already, be it still listed
        return False


def percentile(seconds: list[float], share: float = 0.99) -> float:
    """Not a number where nothing was measured."""
    if not seconds:
        return math.nan
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def totals(all_counts: list[Counts]) -> str:
    """All counts, as one JSON line."""
    names = ("sent", "answered", "told", "failed", "wrong", "nobody")
    total: Counter[str] = Counter({n: sum(getattr(c, n) for c in all_counts) for n in names})
    sound = sum(counts.sound for counts in all_counts)
    return json.dumps({"faults": len(all_counts), **total, "unsound": len(all_counts) - sound})
