from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cryptoml_assets.notices.notice import Notice
from cryptoml_assets.notices.outbox import Outbox, Posted

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
QUIET, LEASE = timedelta(hours=1), timedelta(minutes=2)


def notice(minute: int, *, key: str = "drift", resolved: bool = False) -> Notice:
    at = AT + timedelta(minutes=minute)
    return Notice("drift", "warning", "t", "b", key, at, resolved=resolved)


def test_nothing_in_the_record_can_be_changed_or_removed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "notices.db")
    outbox.post(notice(0), ["slack"], quiet=QUIET, now=AT)
    with sqlite3.connect(outbox.path) as database:
        for statement in (
            "DELETE FROM notices",
            "UPDATE notices SET title = 'x'",
            "DELETE FROM deliveries",
            "UPDATE deliveries SET outcome = 'sent'",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="is append-only"):
                database.execute(statement)
    database.close()
    (row,) = outbox.history()
    assert (row["kind"], row["channel"], row["outcome"]) == ("drift", "slack", "due")
    assert "@" in row["by"]


def test_a_sender_that_dies_leaves_the_notice_to_the_next(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "notices.db")
    outbox.post(notice(0), ["slack"], quiet=QUIET, now=AT)
    (delivery,) = outbox.undelivered(AT)
    assert outbox.claim(delivery, AT, LEASE) == 0
    assert outbox.claim(delivery, AT, LEASE) is None
    assert outbox.undelivered(AT + timedelta(seconds=119)) == []
    (again,) = outbox.undelivered(AT + LEASE)
    assert outbox.claim(again, AT + LEASE, LEASE) == 1
    outbox.settle(again, "sent", AT + LEASE)
    assert outbox.undelivered(AT + timedelta(days=9)) == []
    assert outbox.claim(again, AT + timedelta(days=9), LEASE) is None


def test_the_end_of_a_trouble_waits_for_its_beginning(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "notices.db")
    outbox.post(notice(0), ["slack", "mail"], quiet=QUIET, now=AT)
    outbox.post(notice(1, resolved=True), ["slack", "mail"], quiet=QUIET, now=AT)
    outbox.post(notice(1, key="other"), ["slack"], quiet=QUIET, now=AT)
    first = {(each.channel, each.key, each.notice.resolved) for each in outbox.undelivered(AT)}
    assert first == {
        ("slack", "drift", False),
        ("mail", "drift", False),
        ("slack", "other", False),
    }
    for each in outbox.undelivered(AT):
        assert outbox.claim(each, AT, LEASE) == 0
        later = AT + timedelta(hours=1) if each.channel == "slack" else None
        outbox.settle(each, "failed" if later else "sent", AT, until=later)
    (only,) = outbox.undelivered(AT)
    assert (only.channel, only.notice.resolved) == ("mail", True)


def test_what_is_kept_back_is_in_the_record_all_the_same(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "notices.db")

    def post(minute: int, *, resolved: bool = False) -> Posted:
        now = AT + timedelta(minutes=minute)
        return outbox.post(notice(minute, resolved=resolved), ["slack"], quiet=QUIET, now=now)

    assert post(0, resolved=True) is Posted.IDLE
    assert post(1) is Posted.STORED
    assert post(0, resolved=True) is Posted.IDLE
    assert post(2) is Posted.REPEATED
    assert post(2) is Posted.KNOWN
    assert post(3, resolved=True) is Posted.STORED
    assert post(0, resolved=True) is Posted.IDLE
    assert post(4) is Posted.STORED
    assert post(64) is Posted.STORED
    with sqlite3.connect(outbox.path) as database:
        stored = database.execute("SELECT count(*), count(repeats) FROM notices").fetchone()
    database.close()
    assert stored == (5, 1)


def test_every_end_of_a_try_is_counted_and_reading_makes_no_file(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "notices.db")
    assert outbox.counts() == {}
    assert not outbox.path.exists()
    for number, outcome in enumerate(("sent", "refused", "failed", "refused")):
        outbox.post(notice(number, key=str(number)), ["slack", "mail"], quiet=QUIET, now=AT)
        (due,) = [d for d in outbox.undelivered(AT) if (d.channel, d.key) == ("slack", str(number))]
        outbox.claim(due, AT, LEASE)
        outbox.settle(due, outcome, AT)  # type: ignore[arg-type]
    assert outbox.counts() == {
        ("slack", "sent"): 1,
        ("slack", "refused"): 2,
        ("slack", "failed"): 1,
    }
