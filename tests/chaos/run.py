"""Runs of a schedule: here or in a child that is shot, watched by a reader or not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cryptoml_assets.errors import CryptomlError
from tests.chaos.content import Difference
from tests.chaos.crash import SHOT, Shot, ingest_until_shot
from tests.chaos.watch import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.rooms import Job
    from tests.chaos.stage import Stage


def disturbed_run(
    job: Job, lake: str, stage: Stage, shot: Shot | None, look: Callable[[], Difference] | None
) -> tuple[bool, Difference]:
    """Run ``job``, which may fail as the package fails on purpose, and in no other way.

    Returns whether it was shot, and what ``look``, called all the while, saw.
    """
    reader = Reader(look) if look else contextlib.nullcontext()
    with reader:
        if shot is not None:
            ended = ingest_until_shot(job, lake, lambda: stage.world.faults.requests, shot)
        else:
            ended = ""
            with contextlib.suppress(CryptomlError):
                job.run()
    return ended == SHOT, reader.found if isinstance(reader, Reader) else Difference()
