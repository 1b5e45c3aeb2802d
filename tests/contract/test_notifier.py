"""The notifier against real servers: HTTP and SMTP on this machine, up, slow, down and rude."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cryptoml_assets.notices import channels as http
from cryptoml_assets.notices import templates
from cryptoml_assets.notices.channels import Channel, HttpChannel
from cryptoml_assets.notices.errors import ChannelDownError
from cryptoml_assets.notices.mail import MailChannel
from cryptoml_assets.notices.notice import Notice
from cryptoml_assets.notices.outbox import Outbox
from cryptoml_assets.resources.notifier import Delivered, Notifier
from cryptoml_assets.settings import settings
from tests.mail_server import Mailbox, mail_server

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
SECRET = "hooks-T000-B000-s3cr3t"  # noqa: S105 - of no server
PASSWORD = "p%40ss-w0rd"  # noqa: S105 - the same, as an address spells it
NOTICE = Notice("run_failed", "critical", "A run\nfailed", "because <it> & more", "run:a", AT)

Answer = tuple[int, dict[str, str]]


@dataclass
class World:
    """An HTTP server that gives the answers it is told to, the last of them for good."""

    answers: list[Answer] = field(default_factory=lambda: [(200, {})])
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.got]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                made.got.append((self.path, dict(self.headers), body))
                answer = made.answers.pop(0) if len(made.answers) > 1 else made.answers[0]
            if answer[0] == 0:
                made.hold.wait(20)
                return
            self.send_response(answer[0])
            for name, value in answer[1].items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/services/{SECRET}"
    yield made
    made.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Clock:
    def __init__(self) -> None:
        self.now = AT

    def __call__(self) -> datetime:
        return self.now

    def wait(self, **span: float) -> None:
        self.now += timedelta(**span)


def notifier(
    tmp_path: Path, clock: Clock, *where: Channel, slept: list[float] | None = None
) -> Notifier:
    sleep = (slept if slept is not None else []).append
    return Notifier(tmp_path / "notices.db", where, timedelta(hours=1), clock, sleep)


def outcomes(told: Notifier) -> list[str]:
    return [row["outcome"] for row in reversed(Outbox(told.path).history(1000))]


def a_notice(number: int, **changes: Any) -> Notice:
    values: dict[str, Any] = {"kind": "drift", "severity": "warning", "title": "t", "body": "b"}
    values |= {"key": "drift", "at": AT + timedelta(minutes=number), **changes}
    return Notice(**values)


def test_each_channel_of_the_settings_gets_its_own_form(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLACK", "TEAMS", "PAGERDUTY", "WEBHOOK"):
        monkeypatch.setenv(f"CRYPTOML_NOTIFY_{name}_URL", f"{world.url}/{name.lower()}")
    monkeypatch.setenv("CRYPTOML_NOTIFY_PAGERDUTY_KEY", "routing")
    monkeypatch.setenv("CRYPTOML_NOTIFY_WEBHOOK_SECRET", "hmac-key")
    settings.cache_clear()
    assert Notifier.of(settings()).notify(NOTICE)
    got = {path.rsplit("/", 1)[-1]: (head, body) for path, head, body in world.got}
    forms = {name: json.loads(body) for name, (_, body) in got.items()}
    assert forms == {
        "slack": templates.slack(NOTICE),
        "teams": templates.teams(NOTICE),
        "pagerduty": templates.pagerduty(NOTICE, "routing"),
        "webhook": templates.webhook(NOTICE),
    }
    head, body = got["webhook"]
    signed = hmac.new(b"hmac-key", body, hashlib.sha256).hexdigest()
    assert head[http.SIGNATURE_HEADER] == f"sha256={signed}"
    assert http.SIGNATURE_HEADER not in got["slack"][0]


def test_the_same_is_sent_once_in_the_quiet_time_then_with_a_count(
    world: World, tmp_path: Path
) -> None:
    clock = Clock()
    told = notifier(tmp_path, clock, HttpChannel("webhook", world.url, templates.webhook))
    for number in (0, 1, 1, 2):  # the second event comes twice, as after a restart
        told.notify(a_notice(number))
    assert [body["at"][14:16] for body in world.bodies()] == ["00"]
    clock.wait(minutes=61)
    told.notify(a_notice(61))
    assert world.bodies()[-1]["facts"] == {
        "kept back": "2 more of the same since 2024-03-01T12:00 UTC"
    }
    told.notify(a_notice(62, key="another"))
    assert len(world.got) == 3


def test_the_end_of_a_trouble_is_told_once_and_a_new_one_is_news(
    world: World, tmp_path: Path
) -> None:
    told = notifier(
        tmp_path,
        Clock(),
        HttpChannel("pagerduty", world.url, lambda n: templates.pagerduty(n, "k")),
    )
    told.notify(a_notice(0, resolved=True))  # nothing had begun
    told.notify(a_notice(1))
    told.notify(a_notice(2, resolved=True))
    told.notify(a_notice(3, resolved=True))
    told.notify(a_notice(1))  # read again after a lost cursor
    told.notify(a_notice(4))
    assert [body["event_action"] for body in world.bodies()] == ["trigger", "resolve", "trigger"]
    assert {body["dedup_key"] for body in world.bodies()} == {"drift"}


def test_an_error_of_the_server_is_tried_again_at_once(world: World, tmp_path: Path) -> None:
    world.answers = [(500, {}), (503, {}), (200, {})]
    slept: list[float] = []
    told = notifier(
        tmp_path, Clock(), HttpChannel("slack", world.url, templates.slack), slept=slept
    )
    told.notify(NOTICE)
    assert (len(world.got), slept, outcomes(told)) == (3, [0.5, 1.0], ["due", "claimed", "sent"])


def test_a_channel_that_stays_down_waits_longer_each_time_and_stops_no_other(
    world: World, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/{SECRET}"
    clock = Clock()
    told = notifier(
        tmp_path,
        clock,
        HttpChannel("slack", nobody, templates.slack),
        HttpChannel("webhook", world.url, templates.webhook),
    )
    told.notify(NOTICE)
    assert len(world.got) == 1
    clock.wait(seconds=29)
    assert told.deliver().failed == 0
    clock.wait(seconds=1)
    assert told.deliver().failed == 1
    clock.wait(seconds=59)
    assert told.deliver().failed == 0
    clock.wait(seconds=1)
    revived = notifier(tmp_path, clock, HttpChannel("slack", world.url, templates.slack))
    assert revived.deliver().sent == 1
    assert len(world.got) == 2
    assert outcomes(told).count("failed") == 2


def test_retry_after_is_waited_out_without_sleeping(world: World, tmp_path: Path) -> None:
    world.answers = [(429, {"Retry-After": "3600"}), (200, {})]
    clock, slept = Clock(), list[float]()
    told = notifier(tmp_path, clock, HttpChannel("slack", world.url, templates.slack), slept=slept)
    told.notify(NOTICE)
    clock.wait(seconds=3599)
    told.deliver()
    assert (len(world.got), slept) == (1, [])
    clock.wait(seconds=1)
    assert told.deliver().sent == 1


@pytest.mark.parametrize("status", [301, 400, 403, 404])
def test_a_refusal_is_never_tried_again(world: World, tmp_path: Path, status: int) -> None:
    world.answers = [(status, {"Location": world.url})]
    clock = Clock()
    told = notifier(tmp_path, clock, HttpChannel("slack", world.url, templates.slack))
    told.post(NOTICE)
    assert told.deliver() == Delivered(sent=0, failed=0, refused=1)
    clock.wait(hours=12)
    assert told.deliver() == Delivered()
    assert (len(world.got), outcomes(told)) == (1, ["due", "claimed", "refused"])
    assert Outbox(told.path).counts() == {("slack", "refused"): 1}


def test_a_slow_server_is_given_up(world: World) -> None:
    world.answers = [(0, {})]
    slow = HttpChannel("slack", world.url, templates.slack, timeout=0.05)
    with pytest.raises(ChannelDownError, match="slack does not answer: ReadTimeout"):
        slow.send(NOTICE)


def test_what_nobody_took_for_a_day_is_no_news(world: World, tmp_path: Path) -> None:
    world.answers = [(500, {})]
    clock = Clock()
    told = notifier(tmp_path, clock, HttpChannel("slack", world.url, templates.slack))
    told.notify(NOTICE)
    clock.wait(days=1, seconds=1)
    world.answers = [(200, {})]
    assert told.deliver().sent == 0
    told.deliver()
    assert outcomes(told)[-1] == "expired"
    assert outcomes(told).count("expired") == 1


def test_no_secret_is_logged_or_recorded(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world.answers = [(200, {}), (404, {}), (500, {})]
    clock = Clock()
    told = notifier(
        tmp_path,
        clock,
        HttpChannel("slack", world.url, templates.slack, secret=SECRET),
        HttpChannel("bad", f"no-scheme://{SECRET}:x", templates.slack),
        MailChannel(f"smtp://user:{PASSWORD}@127.0.0.1:1", "a@b.c", ("d@e.f",)),
    )
    for number in range(4):
        told.notify(a_notice(number, key=str(number)))
    text = caplog.text + (tmp_path / "notices.db").read_bytes().decode(errors="replace")
    assert "slack answered 404" in text
    assert SECRET not in text + repr(told)
    assert PASSWORD not in text + repr(told)
    assert "p@ss-w0rd" not in text


def test_without_channels_each_trouble_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told = notifier(tmp_path, Clock())
    assert told.notify(NOTICE)
    assert told.notify(NOTICE)
    assert [record.getMessage() for record in caplog.records] == [
        "ALERT: A run failed: because <it> & more"
    ]


def test_a_record_that_cannot_be_written_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "notices.db").mkdir()
    told = notifier(tmp_path, Clock())
    assert not told.notify(NOTICE)
    assert "ALERT: A run failed" in caplog.text


def _race(path: Path, url: str, start: Any, name: str) -> None:
    told = Notifier(
        path,
        (HttpChannel("one", url, templates.webhook), HttpChannel("two", url, templates.webhook)),
        timedelta(hours=1),
    )
    start.wait(20)
    for number in range(4):
        told.notify(a_notice(number, key=f"shared-{number}"))
        told.notify(a_notice(number, key=f"{name}-{number}"))


def test_several_processes_lose_nothing_and_send_nothing_twice(
    world: World, tmp_path: Path
) -> None:
    # Not by fork: other tests of this process have left threads that would not follow.
    context = multiprocessing.get_context("forkserver")
    start = context.Barrier(3)
    path = tmp_path / "notices.db"
    racers = [context.Process(target=_race, args=(path, world.url, start, name)) for name in "abc"]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    told = Notifier(path, (), timedelta(hours=1))
    keys = [body["key"] for body in world.bodies()]
    expected = {f"{name}-{n}" for name in ("shared", *"abc") for n in range(4)}
    assert sorted(keys) == sorted([*expected, *expected])
    assert outcomes(told).count("sent") == len(keys)


def test_a_mail_server_that_is_down_is_tried_again_later(tmp_path: Path) -> None:
    with mail_server(Mailbox()) as box:
        pass
    told = notifier(
        tmp_path, Clock(), MailChannel(f"smtp://127.0.0.1:{box.port}", "a@b.c", ("d@e.f",))
    )
    told.notify(NOTICE)
    assert outcomes(told)[-1] == "failed"
