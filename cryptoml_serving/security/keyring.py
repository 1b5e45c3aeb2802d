"""The keys in force, followed as their file changes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptoml_serving.security.background import Repeated
from cryptoml_serving.security.keys import KeyFileError, KeyRecord, read_keys
from cryptoml_serving.security.rates import Bucket
from cryptoml_serving.security.roles import Caller, granted
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)
#: Time between two looks at the file: the longest that a revoked key goes on working.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """A caller and how fast it may ask; no bucket: as fast as it likes."""

    caller: Caller
    bucket: Bucket | None


class KeyRing:
    """Digest of each key to its caller.

    A file that cannot be read any more leaves the keys as they are: one bad edit does not lock
    everybody out. It is logged, and told as a trouble. To let nobody in, revoke the keys.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Read the file.

        Args:
            path: of the file.
            rate: requests a second of a key that has no rate of its own; 0: no limit.

        Raises:
            KeyFileError: it cannot be used.
        """
        self.trouble = ""
        self._path = path
        self._rate = rate
        #: Of the file as it was read; none after a failure, so that it is tried again.
        self._seen = self._stamp()
        #: Why it could not be, as it was logged.
        self._told = ""
        #: Replaced as a whole.
        self.known: Mapping[bytes, Known] = self._of(read_keys(path), {})
        self._follower = Repeated("keys", self._follow)

    def start(self) -> None:
        """Begin to follow the file."""
        self._follower.start()

    def stop(self) -> None:
        """Follow it no more."""
        self._follower.stop()

    def look(self) -> None:
        """Read the file, unless it is the one that was read last."""
        stamp = self._stamp()
        if self._seen is not None and stamp == self._seen:
            return
        try:
            self.known = self._of(read_keys(self._path), self.known)
        except Exception as error:  # noqa: BLE001 - whatever it is, the file is followed on
            self._fail(error)
            return
        # Taken before the file was read: a change meanwhile is seen at the next look.
        self._seen = stamp
        self._told = self.trouble = ""
        names = sorted(each.caller.name for each in self.known.values())
        event(_LOG, logging.INFO, "keys_read", f"{len(names)} keys are in force", names=names)

    def _fail(self, error: Exception) -> None:
        """Tell of a failed look; in the log once for each reason."""
        self._seen = None
        self.trouble = "the file of keys cannot be read; those read before are in force"
        if str(error) == self._told:
            return
        self._told = str(error)
        unforeseen = None if isinstance(error, KeyFileError) else error
        event(_LOG, logging.ERROR, "error", self._told, exc_info=unforeseen, error_type="keys")

    def _follow(self) -> float:
        self.look()
        return _LOOK_SECONDS

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            # Reading it says what is wrong.
            return None
        # The last changes with rights and owner, which decide whether the file is read at all.
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns

    def _of(
        self, records: tuple[KeyRecord, ...], before: Mapping[bytes, Known]
    ) -> Mapping[bytes, Known]:
        known = {}
        for record in records:
            digest = bytes.fromhex(record.sha256)
            rate = self._rate if record.rate is None else record.rate
            kept = before.get(digest)
            bucket = None if kept is None else kept.bucket
            if rate == 0:
                bucket = None
            elif bucket is None or bucket.rate != rate:
                # A key does not get a full bucket each time that the file changes.
                bucket = Bucket(rate)
            known[digest] = Known(Caller(record.name, granted(record.roles)), bucket)
        return known
