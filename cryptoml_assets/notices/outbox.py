"""What is to be told, and what became of it: one SQLite file that rows are only ever added to.

A notice is stored before anything is sent, so that a crash loses none. The state of a delivery is
its newest row: due, claimed, sent, failed, refused or expired. Whoever sends claims first, in a
transaction, so that of several processes one sends. One that dies between the claim and its
outcome leaves a claim that ends; then the notice is sent again, perhaps a second time.
"""

from __future__ import annotations

import getpass
import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryptoml_assets.notices.notice import Notice, from_json, instant, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How a try ended.
Outcome = Literal["sent", "failed", "refused", "expired"]
#: Longest wait, in seconds, for another process's transaction.
_PATIENCE = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS notices (
    id INTEGER PRIMARY KEY,
    posted_at TEXT NOT NULL,
    posted_by TEXT NOT NULL,
    at TEXT NOT NULL,
    key TEXT NOT NULL,
    resolved INTEGER NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    content TEXT NOT NULL,
    repeats INTEGER REFERENCES notices (id),
    UNIQUE (key, at, resolved)
);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY,
    notice INTEGER NOT NULL REFERENCES notices (id),
    channel TEXT NOT NULL,
    at TEXT NOT NULL,
    by TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (
        outcome IN ('due', 'claimed', 'sent', 'failed', 'refused', 'expired')),
    until TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS newest ON deliveries (notice, channel, id);
CREATE INDEX IF NOT EXISTS repeated ON notices (repeats);
"""
_APPEND_ONLY = """
CREATE TRIGGER IF NOT EXISTS {table}_{action} BEFORE {action} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
"""
_OPEN = """
SELECT d.notice, d.channel, d.until, n.key, n.content, n.posted_at
FROM deliveries d JOIN notices n ON n.id = d.notice
WHERE d.id IN (SELECT max(id) FROM deliveries GROUP BY notice, channel)
  AND d.outcome IN ('due', 'claimed', 'failed')
ORDER BY d.notice
"""


class Posted(Enum):
    """What became of a notice that was handed in."""

    STORED = "stored: it is to be sent"
    REPEATED = "stored: the same was sent within the quiet time"
    KNOWN = "known: this very notice was stored before"
    IDLE = "not stored: there is nothing that could be over"


@dataclass(frozen=True)
class Delivery:
    """One notice that one channel has not got yet.

    Attributes:
        notice_id: its number in the outbox.
        channel: the channel's name.
        notice: what to send.
        key: of the notice.
        posted_at: when it was stored.
        until: nobody else is to try before then, where somebody tries or has tried.
    """

    notice_id: int
    channel: str
    notice: Notice
    key: str
    posted_at: datetime
    until: datetime | None

    def is_due(self, now: datetime) -> bool:
        """Whether it may be tried."""
        return self.until is None or self.until <= now


@dataclass(frozen=True)
class Outbox:
    """The file at ``path``, made where there is none; safe to use from several processes."""

    path: Path

    def post(
        self, notice: Notice, channels: Sequence[str], *, quiet: timedelta, now: datetime
    ) -> Posted:
        """Store a notice, to be sent over ``channels`` unless the same was within ``quiet``.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        with self._transaction() as database:
            values = (notice.key, instant(notice.at), notice.resolved)
            known = "SELECT 1 FROM notices WHERE key = ? AND at = ? AND resolved = ?"
            if database.execute(known, values).fetchone():
                return Posted.KNOWN
            last = _last(database, notice.key)
            standing = last is not None and not last["resolved"]
            if notice.resolved and not (standing and last["at"] < instant(notice.at)):
                return Posted.IDLE
            repeats = None
            if standing and not notice.resolved:
                if last["posted_at"] > instant(now - quiet):
                    repeats = last["id"]
                else:
                    notice = _with_count(database, notice, last)
            number = _insert(database, notice, now, repeats)
            if repeats is not None:
                return Posted.REPEATED
            for channel in channels:
                _record(database, number, channel, now, "due")
            return Posted.STORED

    def undelivered(self, now: datetime) -> list[Delivery]:
        """What may be tried now, oldest first: of one key and channel only the oldest."""
        with self._transaction() as database:
            rows = database.execute(_OPEN).fetchall()
        seen: set[tuple[str, str]] = set()
        found = []
        for row in rows:
            delivery = _delivery(row)
            # What ends a trouble is never told before the trouble.
            if (delivery.channel, delivery.key) not in seen and delivery.is_due(now):
                found.append(delivery)
            seen.add((delivery.channel, delivery.key))
        return found

    def claim(self, delivery: Delivery, now: datetime, lease: timedelta) -> int | None:
        """Take a delivery for ``lease``: how often it was tried before, or none if not to be had.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        with self._transaction() as database:
            newest = database.execute(
                "SELECT outcome, until FROM deliveries WHERE notice = ? AND channel = ? "
                "ORDER BY id DESC LIMIT 1",
                (delivery.notice_id, delivery.channel),
            ).fetchone()
            held = newest["until"] is not None and newest["until"] > instant(now)
            if newest["outcome"] not in {"due", "claimed", "failed"} or held:
                return None
            count = "SELECT count(*) FROM deliveries WHERE notice = ? AND channel = ? AND outcome "
            values = (delivery.notice_id, delivery.channel)
            (tried,) = database.execute(f"{count} = 'claimed'", values).fetchone()
            _record(database, *values, now, "claimed", until=now + lease)
            return int(tried)

    def settle(
        self,
        delivery: Delivery,
        outcome: Outcome,
        now: datetime,
        *,
        until: datetime | None = None,
        detail: str = "",
    ) -> None:
        """Record how a try ended, and when the next may be."""
        with self._transaction() as database:
            place = (delivery.notice_id, delivery.channel)
            _record(database, *place, now, outcome, until=until, detail=detail)

    def history(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest rows of the record: what, on which channel, when, by whom, and the outcome."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT d.at, n.kind, n.severity, n.title, n.key, n.resolved, d.channel, "
                "d.outcome, d.detail, d.by FROM deliveries d JOIN notices n ON n.id = d.notice "
                "ORDER BY d.id DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [dict(row) for row in rows]

    def counts(self) -> dict[tuple[str, str], int]:
        """How many tries ended how, by (channel, outcome); claims and what is due are no ends.

        The file is only read, and need not be there.
        """
        if not self.path.exists():
            return {}
        with closing(
            sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", timeout=_PATIENCE, uri=True)
        ) as database:
            rows = database.execute(
                "SELECT channel, outcome, count(*) FROM deliveries "
                "WHERE outcome NOT IN ('due', 'claimed') GROUP BY channel, outcome"
            ).fetchall()
        return {(channel, outcome): count for channel, outcome, count in rows}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            database.row_factory = sqlite3.Row
            database.execute("BEGIN IMMEDIATE")
            _create(database)
            yield database
            database.execute("COMMIT")
        finally:
            # Without the COMMIT nothing of it stays.
            database.close()


def _create(database: sqlite3.Connection) -> None:
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'deliveries'").fetchone():
        return
    for statement in filter(str.strip, _SCHEMA.split(";")):
        database.execute(statement)
    for table in ("notices", "deliveries"):
        for action in ("UPDATE", "DELETE"):
            database.execute(_APPEND_ONLY.format(table=table, action=action))


def _last(database: sqlite3.Connection, key: str) -> Any:
    """The newest notice of ``key`` that was to be sent."""
    newest = "SELECT * FROM notices WHERE key = ? AND repeats IS NULL ORDER BY id DESC LIMIT 1"
    return database.execute(newest, (key,)).fetchone()


def _with_count(database: sqlite3.Connection, notice: Notice, last: Any) -> Notice:
    """The notice, with how often the same was kept back since it was last sent."""
    count = "SELECT count(*) FROM notices WHERE repeats = ?"
    (kept,) = database.execute(count, (last["id"],)).fetchone()
    if not kept:
        return notice
    more = {"kept back": f"{kept} more of the same since {last['posted_at'][:16]} UTC"}
    return replace(notice, facts={**notice.facts, **more})


def _insert(
    database: sqlite3.Connection, notice: Notice, now: datetime, repeats: int | None
) -> int:
    told = (notice.key, notice.resolved, notice.kind, notice.severity, notice.title)
    values = (instant(now), _who(), instant(notice.at), *told, to_json(notice), repeats)
    columns = "posted_at, posted_by, at, key, resolved, kind, severity, title, content, repeats"
    places = ", ".join("?" * len(values))
    statement = f"INSERT INTO notices ({columns}) VALUES ({places})"  # noqa: S608 - fixed names
    return int(database.execute(statement, values).lastrowid or 0)


def _record(
    database: sqlite3.Connection,
    number: int,
    channel: str,
    now: datetime,
    outcome: str,
    *,
    until: datetime | None = None,
    detail: str = "",
) -> None:
    end = None if until is None else instant(until)
    database.execute(
        "INSERT INTO deliveries (notice, channel, at, by, outcome, until, detail) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, channel, instant(now), _who(), outcome, end, detail),
    )


def _delivery(row: Any) -> Delivery:
    until = None if row["until"] is None else datetime.fromisoformat(row["until"])
    posted = datetime.fromisoformat(row["posted_at"])
    content = from_json(row["content"])
    return Delivery(row["notice"], row["channel"], content, row["key"], posted, until)


def _who() -> str:
    """User, process and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}:{os.getpid()}@{platform.node()}"
