"""The world's clock: real, frozen, running at a chosen speed, or moved by whoever writes a file."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from cryptoml_serving.contract.settings import read_clock

if TYPE_CHECKING:
    from pathlib import Path

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(instant: datetime) -> int:
    """Whole milliseconds of ``instant`` since 1970-01-01 UTC."""
    return (instant - _EPOCH) // _MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    """The UTC instant ``milliseconds`` after 1970-01-01."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


class Clock(Protocol):
    """Tells every part of the world what time it is."""

    def now(self) -> datetime:
        """The world's present instant, UTC."""
        ...

    def now_ms(self) -> int:
        """The same, in whole milliseconds since 1970-01-01."""
        ...


class RealClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The present instant, UTC."""
        return datetime.now(UTC)

    def now_ms(self) -> int:
        """The same, in whole milliseconds since 1970-01-01."""
        return to_ms(self.now())


class FrozenClock:
    """A clock that stands still until it is moved by hand."""

    def __init__(self, at: datetime) -> None:
        self._at = at.astimezone(UTC)

    def now(self) -> datetime:
        """The instant it stands at, UTC."""
        return self._at

    def now_ms(self) -> int:
        """The same, in whole milliseconds since 1970-01-01."""
        return to_ms(self._at)

    def move_to(self, at: datetime) -> None:
        """Stand at ``at`` from here on; the world answers as of then."""
        self._at = at.astimezone(UTC)


class FileClock:
    """A clock that shows the instant a file holds: one file for every process of a world."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> datetime:
        """The instant the file holds now, UTC.

        Raises:
            SettingsError: it holds none.
        """
        return read_clock(self._file)

    def now_ms(self) -> int:
        """The same, in whole milliseconds since 1970-01-01."""
        return to_ms(self.now())


class RunningClock:
    """A clock that was at ``start`` when made and has run ``speed`` times as fast since."""

    def __init__(self, start: datetime, speed: float) -> None:
        self._start = start.astimezone(UTC)
        self._speed = speed
        self._origin = time.monotonic()

    def now(self) -> datetime:
        """The present instant of this world, UTC."""
        elapsed = (time.monotonic() - self._origin) * self._speed
        return self._start + timedelta(seconds=elapsed)

    def now_ms(self) -> int:
        """The same, in whole milliseconds since 1970-01-01."""
        return to_ms(self.now())


def make_clock(
    *, now: datetime | None, start: datetime | None, speed: float, file: Path | None = None
) -> Clock:
    """The clock a world asks for.

    Args:
        now: stand still here; wins over start and speed.
        start: run from here; none with another speed than 1 means from the real present.
        speed: seconds of this world in one real second.
        file: holds the instant it is; wins over all others.

    Raises:
        SettingsError: the file holds no instant.
    """
    if file is not None:
        clock = FileClock(file)
        clock.now()
        return clock
    if now is not None:
        return FrozenClock(now)
    if start is None and speed == 1.0:
        return RealClock()
    return RunningClock(start or datetime.now(UTC), speed)
