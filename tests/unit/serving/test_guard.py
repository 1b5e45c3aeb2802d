from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.security import keyring
from cryptoml_serving.security.errors import (
    ForbiddenError,
    RefusedError,
    TooManyError,
    UnauthorizedError,
)
from cryptoml_serving.security.exposure import warn_of_plain_text
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.security.keyring import KeyRing
from cryptoml_serving.security.keys import KeyFileError, add_key, read_keys, revoke_key
from cryptoml_serving.security.rates import Bucket
from cryptoml_serving.security.roles import Role, granted
from cryptoml_serving.settings import ServingSettings
from tests.waiting import until

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def key_of(path: Path, name: str, role: Role = Role.PREDICT, rate: float | None = None) -> str:
    return add_key(path, name, roles=[role], rate=rate, now=NOW)


def bearer(credential: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"here"), (b"authorization", b"Bearer " + credential.encode())]


def guard_of(path: Path, **settings: Any) -> Guard:
    return Guard.of(ServingSettings(serving_keys=path, **settings))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "serving.json"


def test_where_nothing_is_configured_everybody_on_this_machine_may_do_all() -> None:
    guard = Guard.of(ServingSettings())
    assert guard.still_admits([], Role.ADMIN)
    assert guard.admit([], Role.ADMIN).name == "anonymous"


def test_a_key_is_known_by_either_header(path: Path) -> None:
    key = key_of(path, "desk")
    guard = guard_of(path)
    for headers in (
        bearer(key),
        [(b"authorization", b"bearer  " + key.encode())],
        [(b"x-api-key", key.encode())],
        # A proxy's own credential is none of ours.
        [(b"authorization", b"Basic dTpw"), (b"x-api-key", key.encode())],
    ):
        assert guard.admit(headers, Role.PREDICT).name == "desk"


@pytest.mark.parametrize(
    ("headers", "presented"),
    [
        ([], False),
        ([(b"authorization", b"Basic dTpw")], False),
        (bearer(""), True),
        (bearer("cml_" + "A" * 43), True),
        (bearer("a.b.c"), True),
        (bearer("x" * 10_000), True),
    ],
)
def test_a_stranger_is_told_which_scheme_to_use(
    path: Path, headers: list[tuple[bytes, bytes]], presented: bool
) -> None:
    key_of(path, "desk")
    with pytest.raises(UnauthorizedError) as raised:
        guard_of(path).admit(headers, Role.PREDICT)
    challenge = raised.value.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="cryptoml"')
    assert ("invalid_token" in challenge) == presented


def test_the_hash_of_a_key_is_no_key(path: Path) -> None:
    key_of(path, "desk")
    (record,) = read_keys(path)
    with pytest.raises(UnauthorizedError):
        guard_of(path).admit(bearer(record.sha256), Role.PREDICT)


def test_an_admin_may_predict_and_not_the_other_way_round(path: Path) -> None:
    predict, admin = key_of(path, "desk"), key_of(path, "ops", Role.ADMIN)
    guard = guard_of(path)
    assert guard.admit(bearer(admin), Role.PREDICT).name == "ops"
    assert guard.admit(bearer(admin), Role.ADMIN).name == "ops"
    with pytest.raises(ForbiddenError, match="desk does not have the role admin"):
        guard.admit(bearer(predict), Role.ADMIN)
    assert granted(["predict", "owner"]) == {Role.PREDICT}


def test_the_file_keeps_no_key_and_nobody_else_may_touch_it(path: Path) -> None:
    key = key_of(path, "desk")
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o620)
    with pytest.raises(KeyFileError, match="writable by others"):
        guard_of(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such file"),
        ("", "no file of keys"),
        ('{"version": 2, "keys": []}', "version"),
        ('{"keys": [{"name": "a"}]}', "sha256"),
    ],
)
def test_an_unusable_file_stops_the_start(tmp_path: Path, content: str | None, why: str) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    with pytest.raises(SettingsError, match=why) as raised:
        guard_of(path)
    assert str(path) in str(raised.value)


def test_two_keys_of_one_name_would_be_told_apart_by_nobody(path: Path) -> None:
    key_of(path, "desk")
    with pytest.raises(KeyFileError, match="already has a key named 'desk'"):
        key_of(path, "desk")
    with pytest.raises(KeyFileError, match="no name of a key"):
        key_of(path, "two words")
    with pytest.raises(KeyFileError, match="no key named 'other'; there are: desk"):
        revoke_key(path, "other")


def test_the_file_is_followed(path: Path) -> None:
    old = key_of(path, "old")
    guard = guard_of(path)
    guard.start()
    try:
        new = key_of(path, "new")
        revoke_key(path, "old")
        until(lambda: admitted(guard, new) and not admitted(guard, old))
    finally:
        guard.stop()


def test_a_file_that_cannot_be_read_changes_nothing_and_is_told(path: Path) -> None:
    key = key_of(path, "desk")
    ring = KeyRing(path, 1000.0)
    guard = Guard(ring, None)
    path.write_text("{")
    ring.look()
    assert "keys" in guard.troubles
    assert admitted(guard, key)
    path.unlink()
    ring.look()
    assert admitted(guard, key)
    key_of(path, "newest")
    ring.look()
    assert guard.troubles == {}
    assert not admitted(guard, key)


@pytest.mark.parametrize(
    "error",
    [KeyFileError("not now"), RuntimeError("nobody foresaw it")],
    ids=lambda x: type(x).__name__,
)
def test_a_revoked_key_ends_though_the_file_could_not_be_read_at_first(
    path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = key_of(path, "desk")
    ring = KeyRing(path, 1000.0)
    guard = Guard(ring, None)
    revoke_key(path, "desk")

    def fail(_: Path) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(keyring, "read_keys", fail)
        for _ in range(3):
            ring.look()
        assert "keys" in guard.troubles
        assert admitted(guard, key)
    # Told once, however often it is tried.
    assert [record.getMessage() for record in caplog.records] == [str(error)]
    # The file is as it was.
    ring.look()
    assert guard.troubles == {}
    assert not admitted(guard, key)


def test_an_edit_that_hides_its_time_is_seen(path: Path) -> None:
    key = key_of(path, "desk")
    ring, before = KeyRing(path, 1000.0), path.stat()
    content = path.read_text()
    digest = read_keys(path)[0].sha256
    path.write_text(content.replace(digest, "0" * 64))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    ring.look()
    assert not admitted(Guard(ring, None), key)


def test_to_ask_again_takes_nothing_and_ends_with_the_key(path: Path) -> None:
    key = key_of(path, "slow", rate=0.001)
    ring = KeyRing(path, 1000.0)
    guard = Guard(ring, None)
    assert all(guard.still_admits(bearer(key), Role.PREDICT) for _ in range(5))
    assert not guard.still_admits(bearer(key), Role.ADMIN)
    assert not guard.still_admits([], Role.PREDICT)
    guard.admit(bearer(key), Role.PREDICT)
    revoke_key(path, "slow")
    ring.look()
    assert not guard.still_admits(bearer(key), Role.PREDICT)


def admitted(guard: Guard, key: str) -> bool:
    try:
        guard.admit(bearer(key), Role.PREDICT)
    except UnauthorizedError:
        return False
    return True


def test_a_change_of_the_file_fills_no_bucket(path: Path) -> None:
    slow = key_of(path, "slow", rate=0.001)
    ring = KeyRing(path, 1000.0)
    guard = Guard(ring, None)
    guard.admit(bearer(slow), Role.PREDICT)
    key_of(path, "other")
    ring.look()
    assert len(ring.known) == 2
    with pytest.raises(TooManyError):
        guard.admit(bearer(slow), Role.PREDICT)


def test_each_key_has_its_own_rate(path: Path) -> None:
    usual, own, free = (
        key_of(path, "usual"),
        key_of(path, "own", rate=5.0),
        key_of(path, "free", rate=0.0),
    )
    guard, waits = guard_of(path, serving_rate_limit=2.0), list[int]()

    def burst(key: str) -> int:
        for count in range(50):
            try:
                guard.admit(bearer(key), Role.PREDICT)
            except TooManyError as error:
                waits.append(int(error.headers["Retry-After"]))
                return count
        return 50

    assert [burst(key) for key in (usual, own, free)] == [2, 5, 50]
    assert waits == [1, 1]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300), st.floats(0.1, 100))
def test_no_caller_gets_more_than_its_rate(instants: list[float], rate: float) -> None:
    bucket = Bucket(rate)
    let_in = [at for at in sorted(instants) if bucket.take(at) == 0.0]
    burst = max(1, -(-rate // 1))
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            span = let_in[last] - let_in[first]
            assert last - first + 1 <= burst + rate * span + 1e-6


@given(st.floats(0.1, 100), st.floats(0, 1e6))
def test_after_the_wait_there_is_room(rate: float, begin: float) -> None:
    bucket, at = Bucket(rate), begin
    while (wait_seconds := bucket.take(at)) == 0.0:
        pass
    assert wait_seconds <= 1 / rate + 1e-6
    assert bucket.take(at + wait_seconds + 1e-6) == 0.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-api-key", b"cookie"]),
            st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda x: b"Bearer " + x)),
        ),
        max_size=4,
    )
)
def test_whatever_is_sent_is_refused_in_order(headers: list[tuple[bytes, bytes]]) -> None:
    guard = Guard(NO_KEYS, None)
    with pytest.raises(RefusedError):
        guard.admit(headers, Role.PREDICT)


NO_KEYS: Any = SimpleNamespace(known={})


def test_a_known_key_costs_microseconds(path: Path) -> None:
    key = key_of(path, "desk", rate=0.0)
    guard, headers = guard_of(path), bearer(key)
    best = min(_seconds(guard, headers) for _ in range(5))
    # Measured 2.3 µs; the bound leaves room for a busy machine.
    assert best < 25e-6


def _seconds(guard: Guard, headers: list[tuple[bytes, bytes]]) -> float:
    began = time.perf_counter()
    for _ in range(2000):
        guard.admit(headers, Role.PREDICT)
    return (time.perf_counter() - began) / 2000


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "inference.example"])  # noqa: S104
def test_other_machines_get_in_only_where_callers_are_known(path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match=r"^CRYPTOML_SERVING_HOST="):
        Guard.of(ServingSettings(serving_host=host))
    with pytest.raises(SettingsError, match=r"^CRYPTOML_SERVING_ADMIN_HOST="):
        Guard.of(ServingSettings(serving_admin_host=host))
    # There is no such listener.
    Guard.of(ServingSettings(serving_admin_host=host, serving_admin_port=0))
    key_of(path, "desk")
    guard_of(path, serving_host=host, serving_admin_host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    guard = Guard.of(ServingSettings(serving_host=host, serving_admin_host=host))
    assert guard.admit([], Role.ADMIN)


@pytest.mark.parametrize(
    ("hosts", "named"),
    [
        (("127.0.0.1", "127.0.0.1"), []),
        (("192.0.2.7", "127.0.0.1"), ["CRYPTOML_SERVING_HOST=192.0.2.7"]),
        (("127.0.0.1", "192.0.2.7"), ["CRYPTOML_SERVING_ADMIN_HOST=192.0.2.7"]),
    ],
)
def test_keys_that_cross_a_network_for_all_to_read_are_told(
    hosts: tuple[str, str], named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    public, admin = hosts
    settings = ServingSettings(serving_host=public, serving_admin_host=admin)
    warn_of_plain_text(settings)
    assert [record.getMessage().split(" ")[0] for record in caplog.records] == named
    caplog.clear()
    # Nothing listens there, or nobody can read it.
    hidden = {"serving_admin_port": 0} if public == "127.0.0.1" else {}
    certificate = {} if hidden else {"serving_tls_certificate": Path("tls.crt")}
    warn_of_plain_text(settings.model_copy(update={**hidden, **certificate}))
    assert caplog.records == []


def test_commands_at_the_same_time_lose_no_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: key_of(path, f"key-{number}"), range(8)))
    assert len(read_keys(path)) == 8
