"""The notifier: stores what people are to be told, and sends it when the channels answer."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptoml_assets.errors import NoticeNotSentError, WorldUnreachableError
from cryptoml_assets.notices.channels import Channel, channels
from cryptoml_assets.notices.errors import (
    ChannelBusyError,
    ChannelDownError,
    NoticeRefusedError,
)
from cryptoml_assets.notices.notice import Notice, one_line
from cryptoml_assets.notices.outbox import Delivery, Outbox, Outcome, Posted
from cryptoml_assets.retry import call_with_retries

if TYPE_CHECKING:
    from pathlib import Path

    from cryptoml_assets.settings import Settings

#: The record, below the home.
OUTBOX = "notices.db"
#: Seconds before each new try within one round; later ones are left to the next round.
_DELAYS = (0.5, 1.0)
#: Longest time that a sender may take for one notice before another may try.
_LEASE = timedelta(minutes=2)
#: Wait before the first round that tries again; doubled from round to round, up to the longest.
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=30), timedelta(minutes=15)
#: Age past which an undelivered notice is no news.
_EXPIRES = timedelta(days=1)
#: Time after which a round starts no further delivery: sensors have a minute.
_ROUND = 15.0
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivered:
    """What a round of sending came to.

    Attributes:
        sent: notices times channels that arrived.
        failed: channels that are down and tried again later.
        refused: notices times channels that will never arrive, as with a wrong address.
    """

    sent: int = 0
    failed: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Notifier:
    """Tells people. No method of it raises: what cannot be told is logged and tried again.

    Attributes:
        path: the record's file.
        channels: where notices go.
        quiet: time in which the same notice is sent once.
        clock: the present instant, UTC.
        sleep: waits so many seconds.
        log: where the lines go.
    """

    path: Path
    channels: Sequence[Channel]
    quiet: timedelta
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    sleep: Callable[[float], None] = time.sleep
    log: logging.Logger = _log

    @classmethod
    def of(cls, configured: Settings, log: logging.Logger = _log) -> Notifier:
        """The notifier that the settings describe."""
        path = configured.home_path / OUTBOX
        return cls(path, channels(configured), configured.notify_quiet, log=log)

    def post(self, notice: Notice) -> bool:
        """Store a notice for the next round, and write its line.

        Returns:
            Whether it is in the record; where not, it is to be posted again.
        """
        names = [channel.name for channel in self.channels]
        try:
            posted = self._outbox().post(notice, names, quiet=self.quiet, now=self.clock())
        except (sqlite3.Error, OSError) as error:
            self._tell(notice)
            self.log.exception("the record %s cannot be written", self.path, exc_info=error)
            return False
        if posted is Posted.STORED:
            self._tell(notice)
        return True

    def deliver(self) -> Delivered:
        """Send what is due, once over each channel; a channel that is down waits for its turn."""
        known = {channel.name: channel for channel in self.channels}
        ended, down = Counter[Outcome | None](), set[str]()
        try:
            due = self._outbox().undelivered(self.clock()) if self.path.exists() else []
            started = time.monotonic()
            for delivery in due:
                if time.monotonic() - started > _ROUND:
                    break
                channel = known.get(delivery.channel)
                if delivery.channel in down:
                    continue
                if channel is None or self.clock() - delivery.posted_at > _EXPIRES:
                    self._expire(delivery)
                else:
                    outcome = self._send(channel, delivery)
                    ended[outcome] += 1
                    if outcome == "failed":
                        down.add(delivery.channel)
        except (sqlite3.Error, OSError) as error:
            self.log.exception("the record %s cannot be used", self.path, exc_info=error)
        return Delivered(ended["sent"], len(down), ended["refused"])

    def notify(self, notice: Notice) -> bool:
        """Store a notice and send what is due at once; whether it is in the record."""
        stored = self.post(notice)
        self.deliver()
        return stored

    def _outbox(self) -> Outbox:
        return Outbox(self.path)

    def _tell(self, notice: Notice) -> None:
        level, mark = _LEVELS[notice.severity], "RESOLVED" if notice.resolved else "ALERT"
        title, body = one_line(notice.title), one_line(notice.body)
        self.log.log(level, "%s: %s: %s", mark, title, body)

    def _expire(self, delivery: Delivery) -> None:
        """Give up what is too old, or for a channel that is configured no more."""
        old = self.clock() - delivery.posted_at > _EXPIRES
        if old and self._outbox().claim(delivery, self.clock(), _LEASE) is not None:
            self._outbox().settle(delivery, "expired", self.clock(), detail="undelivered for a day")
            self.log.error("%s never got the notice %r", delivery.channel, delivery.notice.title)

    def _send(self, channel: Channel, delivery: Delivery) -> Outcome | None:
        """Try one delivery: how that ended; none where another process has it."""
        tried = self._outbox().claim(delivery, self.clock(), _LEASE)
        if tried is None:
            return None
        outcome, wait, detail = self._try(channel, delivery.notice, tried)
        now = self.clock()
        until = None if wait is None else now + wait
        self._outbox().settle(delivery, outcome, now, until=until, detail=detail)
        if outcome != "sent":
            self.log.error("notice %r %s: %s", delivery.notice.title, outcome, detail)
        return outcome

    def _try(
        self, channel: Channel, notice: Notice, tried: int
    ) -> tuple[Outcome, timedelta | None, str]:
        """How sending ends, how long to wait before the next round tries it, and why."""
        wait = min(_FIRST_WAIT * 2 ** min(tried, 10), _LONGEST_WAIT)
        try:
            call_with_retries(
                lambda: channel.send(notice),
                transient=(ChannelDownError,),
                delays=_DELAYS,
                what=f"notice to {channel.name}",
                sleep=self.sleep,
            )
        except NoticeRefusedError as error:
            return "refused", None, str(error)
        except ChannelBusyError as error:
            return "failed", timedelta(seconds=min(error.retry_after, 86400.0)), str(error)
        except (WorldUnreachableError, NoticeNotSentError) as error:
            return "failed", wait, str(error)
        except Exception as error:  # noqa: BLE001 - telling of a run must never fail it
            return "failed", wait, f"{channel.name}: {type(error).__name__}"
        return "sent", None, ""
