"""Tokens made up in numbers: who sends them is held up, and hardly anybody else."""

from __future__ import annotations

import pytest

from cryptoml_serving.security import refusals as refusals_module
from cryptoml_serving.security.errors import RefusedError, TooManyError, UnauthorizedError
from cryptoml_serving.security.guard import Guard
from cryptoml_serving.security.refusals import MOST_OF_ALL, MOST_OF_ONE, Refusals
from cryptoml_serving.security.roles import Role
from tests.token_issuer import CURVE, bearer, judge, made_up, token

ATTACKER, OTHER = ("192.0.2.1", 4000), ("192.0.2.2", 5000)


class Clock:
    """Stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(refusals_module, "time", clock)
    return clock


def outcome(guard: Guard, credential: str, client: tuple[str, int]) -> type[RefusedError] | None:
    try:
        guard.admit(bearer(credential), Role.PREDICT, client)
    except RefusedError as error:
        return type(error)
    return None


def newcomer(number: int) -> str:
    return token(CURVE, "ES256", "curve", sub=f"newcomer {number}")


def test_who_makes_tokens_up_holds_up_nobody_else(clock: Clock) -> None:
    guard, known = Guard(None, judge()), token(CURVE, "ES256", "curve")
    assert outcome(guard, known, OTHER) is None
    answers = []
    for number in range(300):
        answers.append(outcome(guard, made_up(), ATTACKER))
        # Each time: who is known already, from wherever, and who was never seen before.
        assert outcome(guard, known, ATTACKER) is None
        if number % 10 == 0:
            assert outcome(guard, newcomer(number), OTHER) is None
    assert answers == [UnauthorizedError] * 100 + [TooManyError] * 200
    # From the same address also who comes with a good one waits, and not for long.
    assert outcome(guard, newcomer(-1), ATTACKER) is TooManyError
    clock.now += 1 / MOST_OF_ONE
    assert outcome(guard, newcomer(-1), ATTACKER) is None


@pytest.mark.parametrize(
    "worthless",
    [
        "a.b.c",
        token(key_id="unknown"),
        token(CURVE, "ES256", "rsa"),
        token(iss="https://elsewhere.example"),
        token(iss=None),
    ],
)
def test_what_is_worthless_at_a_glance_uses_up_nothing(worthless: str, clock: Clock) -> None:
    guard = Guard(None, judge())
    outcomes = {outcome(guard, worthless, ATTACKER) for _ in range(300)}
    assert outcomes == {UnauthorizedError}
    assert outcome(guard, newcomer(0), ATTACKER) is None


def test_many_addresses_do_not_take_the_whole_processor(clock: Clock) -> None:
    refusals, looked_at = Refusals(), 0
    for number in range(3000):
        try:
            refusals.require_room(f"198.51.{number % 250}.1")
        except TooManyError:
            continue
        refusals.count(f"198.51.{number % 250}.1")
        looked_at += 1
    assert looked_at == MOST_OF_ALL
    # No one address comes near that.
    assert MOST_OF_ALL >= 10 * MOST_OF_ONE


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("testclient", "other", False),
    ],
)
def test_an_address_is_the_network_that_one_has(
    first: str, second: str, same: bool, clock: Clock
) -> None:
    refusals = Refusals()
    for _ in range(100):
        refusals.count(first)
    with pytest.raises(TooManyError) as raised:
        refusals.require_room(first)
    assert raised.value.headers["Retry-After"] == "1"
    if same:
        with pytest.raises(TooManyError):
            refusals.require_room(second)
    else:
        refusals.require_room(second)


def test_no_more_addresses_are_remembered_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals_module, "_MOST_ADDRESSES", 3)
    refusals = Refusals()
    for number in range(10):
        refusals.require_room(f"192.0.2.{number}")
        assert len(refusals) == min(number, 3)
        refusals.count(f"192.0.2.{number}")
