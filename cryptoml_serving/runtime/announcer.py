"""Tells whoever listens of each new snapshot, across threads, without ever waiting for them.

::

    refresher's thread ── publish ──> one slot per subscriber ──> its coroutine
                        (never waits)   (the newest replaces
                                         what was not taken)
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptoml_serving.runtime.errors import TooManySubscribersError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from cryptoml_serving.runtime.snapshot import Snapshot

#: Subscribers at once: each is an open connection.
MOST_SUBSCRIBERS = 256
#: The same of one caller, so that none takes all.
MOST_OF_ONE = 16


@dataclass(frozen=True, eq=False)
class Announcement:
    """One snapshot that was published.

    Attributes:
        number: counts the announcements of this process from 1.
        snapshot: the champion's.
    """

    number: int
    snapshot: Snapshot


class _Subscriber:
    """One slot that the loop it belongs to fills and empties."""

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.loop = asyncio.get_running_loop()
        self.newest: Announcement | None = None
        self.changed = asyncio.Event()

    def offer(self, announcement: Announcement) -> None:
        """Put the newest in the slot, in place of one that was not taken."""
        self.newest = announcement
        self.changed.set()

    def take(self) -> Announcement | None:
        """Empty the slot."""
        self.changed.clear()
        taken, self.newest = self.newest, None
        return taken


class Announcer:
    """Publishes snapshots of every model to listeners, and the champion's to subscribers."""

    def __init__(
        self, *listeners: Callable[[Snapshot], None], answers: Callable[[], Snapshot | None]
    ) -> None:
        """Nobody is subscribed yet.

        Args:
            listeners: called with every snapshot in the thread that publishes; they never wait.
            answers: the snapshot that is answered from, if one is; no other is told of.
        """
        self._answers = answers
        self._listeners = listeners
        self._subscribers: set[_Subscriber] = set()
        #: Held for moments only, and never while anything is called that may wait.
        self._lock = threading.Lock()
        self._last: Announcement | None = None
        self._closed = False

    @property
    def subscribers(self) -> int:
        """How many are subscribed now."""
        return len(self._subscribers)

    def require_room(self, caller: str = "") -> None:
        """Tell whether one more may subscribe.

        Args:
            caller: whose it would be; empty: callers are not told apart.

        Raises:
            TooManySubscribersError: as many are subscribed as may be, of all or of that caller.
        """
        with self._lock:
            self._require_room(caller)

    def publish(self, snapshot: Snapshot) -> None:
        """Tell of a new snapshot, of whichever model; safe from any thread, never waits."""
        for listener in self._listeners:
            listener(snapshot)
        if snapshot.model.placement.role != "champion":
            return
        with self._lock:
            number = 1 if self._last is None else self._last.number + 1
            last = self._last = Announcement(number, snapshot)
            told = tuple(self._subscribers)
        for each in told:
            try:
                each.loop.call_soon_threadsafe(each.offer, last)
            except RuntimeError:
                # Its loop has ended, and with it whoever waited there.
                self._remove(each)

    async def subscribe(
        self, heartbeat: float, caller: str = ""
    ) -> AsyncGenerator[Announcement | None, None]:
        """The newest snapshot at once, then each new one, until the announcer is closed.

        A subscriber that is slower than the snapshots come misses the ones between: it holds one,
        the newest. None is told of that is no longer answered from, as when its model was
        withdrawn.

        Args:
            heartbeat: seconds without a snapshot after which nothing is yielded in its place.
            caller: as ``require_room`` has it.

        Raises:
            TooManySubscribersError: as many are subscribed as may be, of all or of that caller.
        """
        mine = self._add(caller)
        try:
            while not self._closed:
                try:
                    async with asyncio.timeout(heartbeat):
                        await mine.changed.wait()
                except TimeoutError:
                    yield None
                    continue
                announcement = mine.take()
                if announcement is not None and announcement.snapshot is self._answers():
                    yield announcement
        finally:
            self._remove(mine)

    def close(self) -> None:
        """End every subscription; new ones end at once. Call it in the subscribers' loop."""
        self._closed = True
        with self._lock:
            told = tuple(self._subscribers)
        for each in told:
            each.changed.set()

    def _require_room(self, caller: str) -> None:
        if self.subscribers >= MOST_SUBSCRIBERS:
            message = f"{MOST_SUBSCRIBERS} listen for snapshots, and no more may"
            raise TooManySubscribersError(message)
        if caller and sum(each.caller == caller for each in self._subscribers) >= MOST_OF_ONE:
            message = f"{caller} listens for snapshots {MOST_OF_ONE} times, and may no more"
            raise TooManySubscribersError(message)

    def _add(self, caller: str) -> _Subscriber:
        """A new subscriber, with the last snapshot in its slot."""
        subscriber = _Subscriber(caller)
        with self._lock:
            self._require_room(caller)
            self._subscribers.add(subscriber)
            last = self._last
        if last is not None:
            subscriber.offer(last)
        return subscriber

    def _remove(self, subscriber: _Subscriber) -> None:
        with self._lock:
            self._subscribers.discard(subscriber)
