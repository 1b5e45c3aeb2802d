"""Predictions on their way to the lake, kept on disk: what is here survives the process.

A segment is a file of JSON lines that is complete once it has its name. Several services may share
one folder: each may commit and remove the segments of all, since the lake takes each id once.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import ValidationError

from cryptoml_serving.contract.served import ServedPrediction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SEGMENT = ".jsonl"
_INCOMING = ".incoming-"
_REFUSED = ".refused"
_PRIVATE = 0o700
#: Age at which a half written segment belongs to no living process any more.
_ABANDONED_SECONDS = 3600.0


class SegmentError(Exception):
    """A segment holds what no service writes; the message says which line of which file."""


class OutboxFullError(Exception):
    """The outbox holds as much as it may."""


class Outbox:
    """Segments in one folder, oldest first."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Touch nothing yet.

        Args:
            folder: made when first written to.
            most_bytes: size of all segments past which nothing is added.
        """
        self._folder = folder
        self._most_bytes = most_bytes
        #: Name of each segment → its rows and bytes, as of the last look at the folder and what was
        #: done here since. Asking how much waits costs no look: the folder may hold thousands.
        self._held: dict[str, tuple[int, int]] = {}
        self._rows = 0
        self._bytes = 0
        self._looked = False
        self._counting = threading.Lock()

    def add(self, predictions: Sequence[ServedPrediction]) -> None:
        """Keep ``predictions`` as one segment: on disk, whole, when this returns.

        Raises:
            OutboxFullError: there is no room for them; nothing was written.
            OSError: the disk does not take them.
        """
        data = b"".join(each.model_dump_json().encode() + b"\n" for each in predictions)
        if not self._looked or self._bytes + len(data) > self._most_bytes:
            # Another service may have brought some to the lake.
            self._look()
        if self._bytes + len(data) > self._most_bytes:
            message = f"the outbox {self._folder} holds its {self._most_bytes} bytes"
            raise OutboxFullError(message)
        self._folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        # Sorts by age; the number of rows in the name spares reading what waits.
        name = f"{time.time_ns():020d}-{uuid4().hex}-{len(predictions)}{_SEGMENT}"
        incoming = self._folder / f"{_INCOMING}{name}"
        try:
            with incoming.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            incoming.rename(self._folder / name)
            self._count(name, len(data))
            self._sync_folder()
        finally:
            incoming.unlink(missing_ok=True)

    def segments(self) -> tuple[Path, ...]:
        """The complete segments, oldest first, those of other services too.

        Raises:
            OSError: the folder cannot be read.
        """
        return tuple(self._folder / name for name in self._look())

    def rows(self) -> int:
        """Predictions that wait in all segments, as of the last look; looks only the first time."""
        if not self._looked:
            with suppress(OSError):
                self._look()
        return self._rows

    def read(self, segment: Path) -> tuple[ServedPrediction, ...]:
        """The predictions of a segment; none where another service removed it meanwhile.

        Raises:
            SegmentError: a line is no prediction.
        """
        try:
            lines = segment.read_bytes().splitlines()
        except FileNotFoundError:
            return ()
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                found.append(ServedPrediction.model_validate_json(line))
            except ValidationError as error:
                message = f"{segment}, line {number} is no served prediction: {error}"
                raise SegmentError(message) from error
        return tuple(found)

    def remove(self, segment: Path) -> None:
        """Forget a segment whose predictions are in the lake."""
        segment.unlink(missing_ok=True)
        self._forget(segment.name)

    def set_aside(self, segment: Path) -> None:
        """Keep a segment that cannot be read for a person to look at, out of the way."""
        with suppress(FileNotFoundError):
            segment.rename(segment.with_suffix(_REFUSED))
        self._forget(segment.name)

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        for left in self._folder.glob(f"{_INCOMING}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    left.unlink()

    def _look(self) -> list[str]:
        """Names of the segments in order, and have the counts agree with the folder."""
        known = set(self._held)
        names = []
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name[0].isdecimal() and entry.name.endswith(_SEGMENT)
            )
        for gone in known.difference(names):
            self._forget(gone)
        for new in set(names).difference(known):
            with suppress(FileNotFoundError):
                self._count(new, (self._folder / new).stat().st_size)
        self._looked = True
        return names

    def _count(self, name: str, size: int) -> None:
        rows = name.removesuffix(_SEGMENT).rpartition("-")[2]
        with self._counting:
            if name not in self._held:
                self._held[name] = (int(rows) if rows.isdecimal() else 0, size)
                self._rows += self._held[name][0]
                self._bytes += size

    def _forget(self, name: str) -> None:
        with self._counting:
            rows, size = self._held.pop(name, (0, 0))
            self._rows -= rows
            self._bytes -= size

    def _sync_folder(self) -> None:
        """Have the new name survive a power cut as the content does."""
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
