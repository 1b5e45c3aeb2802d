"""``kill -9`` of an ingestion: a child of a fork server, shot at a moment drawn from the seed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoml_assets.errors import CryptomlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from tests.chaos.rooms import Job

FINISHED, FAILED, SHOT = "finished", "failed", "shot"
_EXPECTED_ERROR, _OTHER_ERROR = 3, 4
_LONGEST_SECONDS = 60.0


@dataclass(frozen=True)
class Shot:
    """When a child is shot: ``moment`` counts what ``after`` names.

    Attributes:
        after: ``requests`` the world has answered, ``files`` that the lake gained, or
            ``milliseconds``.
        moment: how many of them.
        delay: seconds more.
    """

    after: str
    moment: int
    delay: float


def ingest_until_shot(job: Job, lake: str, requests: Callable[[], int], shot: Shot) -> str:
    """Run ``job`` in a child and shoot it; what became of the child.

    Raises:
        AssertionError: the child ended with an error the package does not raise on purpose.
    """
    context = _context()
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_ingest, args=(job, there))
    child.start()
    there.close()
    try:
        here.recv()  # its imports are done
        _wait_for(shot, Path(lake), requests, child)
        child.kill()
        child.join(_LONGEST_SECONDS)
        told = here.recv() if child.exitcode == _OTHER_ERROR else ""
        assert child.exitcode != _OTHER_ERROR, told
        outcomes = {0: FINISHED, _EXPECTED_ERROR: FAILED, -signal.SIGKILL: SHOT}
        return outcomes[child.exitcode]
    finally:
        here.close()
        child.kill()
        child.join()
        child.close()


def _wait_for(shot: Shot, lake: Path, requests: Callable[[], int], child: Any) -> None:
    counts = {
        "requests": requests,
        "files": lambda: sum(len(names) for _, _, names in os.walk(lake)),
        "milliseconds": lambda: time.perf_counter_ns() // 1_000_000,
    }
    count = counts[shot.after]
    began, until = count(), time.monotonic() + _LONGEST_SECONDS
    while count() - began < shot.moment and child.is_alive():
        assert time.monotonic() < until, "the child does nothing"
        time.sleep(0.0005)
    time.sleep(shot.delay)


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    # Loaded once in the server, so that a child costs a fork and no imports.
    context.set_forkserver_preload(["tests.chaos.rooms"])
    return context


def _ingest(job: Job, told: Connection) -> None:
    """What the child does; it leaves without the clean-up a killed process has not either."""
    told.send("started")
    status = 0
    try:
        job.run()
    except CryptomlError:
        status = _EXPECTED_ERROR
    except BaseException:  # noqa: BLE001 - told to the parent, which fails
        told.send(traceback.format_exc())
        status = _OTHER_ERROR
    os._exit(status)
