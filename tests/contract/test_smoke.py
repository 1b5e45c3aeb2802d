"""``cryptoml smoke`` against the real service: well where it is, and named where it is not."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cryptoml_assets.cli import app
from cryptoml_assets.operations.smoke import run as running
from cryptoml_assets.operations.smoke.budget import OWN_ERRORS, Tally, callers
from cryptoml_assets.operations.smoke.checks import Check, Look, Wanted, judge
from cryptoml_assets.operations.smoke.run import Watch, look, smoke
from cryptoml_assets.operations.smoke.service import Credential, Reply, Service
from cryptoml_serving.api.problems import ProblemType
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.security.keys import add_key
from cryptoml_serving.security.roles import Role
from tests.sandbox_server import free_port
from tests.serving_client import serving, write_usual_features
from tests.serving_world import SYMBOLS, Published, ServingWorld, build_templates
from tests.waiting import until

NO_TIME = Watch(timedelta(0), 0.01)


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A running service with keys, as it is deployed."""

    url: str
    key_file: Path
    champion: Published
    canary: Published


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("deployed")
    world = ServingWorld(folder, build_templates(tmp_path_factory.getbasetemp()))
    write_usual_features(world)
    champion = world.publish()
    canary = world.publish(role="canary", percent=50)
    keys, key_file = folder / "keys.json", folder / "key"
    made = add_key(keys, "smoke", roles=[Role.PREDICT], rate=None, now=datetime.now(UTC))
    key_file.write_text(f"{made}\n")
    with serving(world, serving_keys=keys) as client:
        client.headers["X-API-Key"] = made
        client.wait_ready()
        # The champion waits for no challenger; what is looked at here is to have both.
        until(lambda: client.get("/ready").json()["challengers"])
        yield Deployed(str(client.base_url).rstrip("/"), key_file, champion, canary)


@pytest.fixture(scope="module")
def seen(deployed: Deployed) -> Look:
    """What a look at a sound deployment brings; tests change one thing of it."""
    with Service(deployed.url, Credential.read(deployed.key_file, None)) as service:
        return look(service, Wanted())


def command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["smoke", *arguments])
    if isinstance(done.exception, SettingsError):
        raise done.exception
    return done.exit_code, done.stdout


def faults(checks: tuple[Check, ...]) -> dict[str, str]:
    return {each.name: each.seen for each in checks if not each.well}


def test_a_sound_deployment_is_well(deployed: Deployed) -> None:
    code, told = command("--url", deployed.url, "--key-file", str(deployed.key_file))
    assert code == 0, told
    assert "!!" not in told
    for symbol in SYMBOLS:
        assert f"predict {symbol}" in told
    assert f"cryptoml-return {deployed.champion.version}, approved by policy" in told
    assert "oldest features are 300 s old" in told
    # A stranger was asked for too.
    assert re.search(r"unknown caller +refused with 401", told)
    assert deployed.key_file.read_text().strip() not in told


def test_everything_asked_for_is_told_as_json(deployed: Deployed) -> None:
    code, told = command(
        *("--url", deployed.url, "--key-file", str(deployed.key_file), "--json", "--wait", "0s"),
        *("--symbol", "BTC/USDT", "--symbol", "PEPE/EUR"),
        *("--model-version", "99", "--release", "9.9.9", "--max-age", "1m"),
    )
    assert code == 1
    report = json.loads(told)
    wrong = {each["check"]: each["seen"] for each in report["checks"] if not each["well"]}
    assert not report["well"]
    assert set(wrong) == {
        "symbols",
        "predict PEPE/EUR",
        "model version",
        "release",
        "freshness",
    }
    assert "not served: PEPE/EUR; served: BTC/USDT" in wrong["symbols"]
    assert "'PEPE/EUR' is not served" in wrong["predict PEPE/EUR"]
    assert "wanted 99" in wrong["model version"]
    assert "wanted 9.9.9" in wrong["release"]
    assert "300 s old" in wrong["freshness"]


def test_without_its_key_nothing_is_well(deployed: Deployed, tmp_path: Path) -> None:
    code, told = command("--url", deployed.url, "--wait", "0s")
    assert code == 1
    assert "the credential is missing or refused" in told
    assert "no symbol to ask for" in told
    assert "unknown caller" not in told
    wrong = tmp_path / "wrong"
    wrong.write_text("somebody-elses")
    code, told = command("--url", deployed.url, "--key-file", str(wrong), "--wait", "0s")
    assert code == 1
    assert "HTTP 401" in told


def test_nobody_there_is_an_answer_too() -> None:
    code, told = command("--url", f"http://127.0.0.1:{free_port()}", "--wait", "0s")
    assert code == 1
    assert "no answer: ConnectError" in told


def test_it_looks_again_until_all_is_well(
    seen: Look, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([dataclasses.replace(seen, health=Reply(503)), seen])
    monkeypatch.setattr(running, "look", lambda *_: next(looks))
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.01)
    with Service(deployed.url, Credential()) as service:
        found = smoke(service, Wanted(), wait=timedelta(seconds=5), watch=NO_TIME)
    assert faults(found) == {}


def ready(change: Callable[[dict[str, Any]], None]) -> Callable[[Look], Look]:
    def altered(look: Look) -> Look:
        body = json.loads(json.dumps(look.ready.body))
        change(body)
        return dataclasses.replace(look, ready=Reply(200, body))

    return altered


def bitcoin(**changes: object) -> Callable[[Look], Look]:
    def altered(look: Look) -> Look:
        reply = Reply(200, look.predictions["BTC/USDT"].body | changes)
        return dataclasses.replace(look, predictions={**look.predictions, "BTC/USDT": reply})

    return altered


def replaced(**replies: Any) -> Callable[[Look], Look]:
    return lambda look: dataclasses.replace(look, **replies)


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (replaced(health=Reply(200, {"status": "dead"})), "live", "HTTP 200"),
        (replaced(health=Reply(0, said="no answer: refused")), "live", "refused"),
        (replaced(ready=Reply(503, {"detail": "no model is approved"})), "ready", "no model is"),
        (replaced(ready=Reply(200, {"status": "ready"})), "ready", "credential"),
        (ready(lambda told: told["problems"].update(registry="refused")), "ready", "registry: ref"),
        (ready(lambda told: told.pop("model_version")), "ready", "model_version: Field required"),
        (replaced(unknown_caller=Reply(404, {})), "unknown caller", "not refused"),
        (replaced(strange=Reply(200, {"served_symbols": ["A"]})), "unknown symbol", "no 404"),
        (replaced(strange=Reply(404, {"served_symbols": []})), "unknown symbol", "no 404"),
        (replaced(predictions={}), "symbols", "no symbol to ask for"),
        (bitcoin(prediction=None), "predict BTC/USDT", "prediction: Input"),
        (bitcoin(symbol="ETH/USDT"), "predict BTC/USDT", "answered for ETH/USDT"),
        (bitcoin(prediction=9.0), "predict BTC/USDT", "is not in"),
        (bitcoin(confidence=0.01), "predict BTC/USDT", "is not that of the prediction's sign"),
        (bitcoin(role="shadow"), "predict BTC/USDT", "role"),
        (bitcoin(prediction_id="7"), "predict BTC/USDT", "prediction_id"),
        (bitcoin(timestamp="2024-03-01T12:00:00"), "predict BTC/USDT", "timestamp"),
        (bitcoin(model_version="99"), "versions", "BTC/USDT by"),
        (bitcoin(feature_age_seconds=1801.0), "freshness", "1801 s old"),
        (bitcoin(feature_age_seconds=-5.0), "freshness", "5 s in the future"),
    ],
)
def test_what_is_wrong_is_named_alone(
    seen: Look, change: Callable[[Look], Look], check: str, words: str
) -> None:
    assert faults(judge(seen, Wanted())) == {}
    wrong = faults(judge(change(seen), Wanted()))
    assert list(wrong) == [check]
    assert words in wrong[check]


def test_a_canary_may_answer_and_a_shadow_may_not(seen: Look, deployed: Deployed) -> None:
    answered = bitcoin(role="canary", model_version=deployed.canary.version)(seen)
    assert faults(judge(answered, Wanted())) == {}
    shadow = ready(lambda told: told["challengers"][0].update(role="shadow"))(answered)
    assert list(faults(judge(shadow, Wanted()))) == ["versions"]


def test_it_goes_on_asking_and_counts(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "ASK_SECONDS", 0.01)
    code, told = command(
        *("--url", deployed.url, "--key-file", str(deployed.key_file)),
        *("--watch", "300ms", "--error-budget", "0"),
    )
    assert code == 0, told
    assert "requests failed, 0.00% of at most 0.00%; 95 of 100 answered within" in told


def test_a_spent_budget_ends_the_watch_at_once(
    deployed: Deployed, seen: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "look", lambda *_: seen)
    monkeypatch.setattr(running, "ASK_SECONDS", 0.01)
    watch = Watch(timedelta(hours=1), 0.0)
    with Service(deployed.url, Credential()) as service:  # without the key: each request fails
        found = smoke(service, Wanted(symbols=SYMBOLS), wait=timedelta(0), watch=watch)
    (wrong,) = faults(found).values()
    assert wrong.startswith(
        "1 of 1 requests failed, 100.00% of at most 0.00%; most often: HTTP 401"
    )


def test_what_is_not_well_is_not_watched(deployed: Deployed) -> None:
    watch = Watch(timedelta(hours=1), 0.01)
    with Service(deployed.url, Credential()) as service:
        found = smoke(service, Wanted(), wait=timedelta(0), watch=watch)
    assert "error budget" not in [each.name for each in found]


def test_a_share_of_failures_is_within_the_budget_or_not() -> None:
    tally = Tally()
    for number in range(100):
        tally.add("HTTP 503" if number == 50 else None, 0.001 * number)
    assert tally.check(0.01).well
    assert not tally.check(0.009).well
    assert "within 95 ms" in tally.check(0.01).seen
    assert not tally.spent(0.01, planned=100)
    assert tally.spent(0.009, planned=100)
    assert not tally.spent(0.009, planned=200)
    assert not Tally().check(0.5).well


def test_callers_are_counted_closed() -> None:
    assert callers(99, 1, 0.01).well
    assert not callers(99, 1, 0.009).well
    assert not callers(0, 0, 0.5).well


def test_errors_of_the_services_own_are_all_counted() -> None:
    own = {each.slug for each in ProblemType if each.status >= HTTPStatus.INTERNAL_SERVER_ERROR}
    assert own == {each for each in OWN_ERRORS if not each.startswith("http-")}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--url", "example.com"), "--url example.com: accepted is an address"),
        (("--url", "http://127.0.0.1:1", "--key-file", "no/such"), "--key-file no/such: No such"),
        (("--url", "http://127.0.0.1:1", "--key-file", "a", "--token-file", "b"), "one of them"),
        (("--url", "http://127.0.0.1:1", "--ca-file", "no/such"), "--ca-file no/such"),
        (("--url", "http://127.0.0.1:1", "--wait", "soon"), "--wait 'soon': a duration is"),
        (("--url", "http://127.0.0.1:1", "--error-budget", "1"), "--error-budget 1: accepted"),
        (("--url", "http://127.0.0.1:1", "--error-budget", "nan"), "--error-budget nan: accep"),
    ],
)
def test_what_cannot_be_asked_is_named(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        command(*arguments)


def test_a_key_file_of_several_words_is_refused_and_not_told(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for text in ("", "two words", "pässword"):
        file.write_text(text)
        with pytest.raises(SettingsError) as raised:
            Credential.read(file, None)
        assert "word" not in str(raised.value)
    assert "word" not in repr(Credential("password", "sword"))
