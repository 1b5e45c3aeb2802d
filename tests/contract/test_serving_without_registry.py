"""A start without the registry: the last approved deployment, verified again, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from cryptoml_serving.contract.registry import DEPLOYMENT_TAG
from cryptoml_serving.runtime.cache import Cache
from tests.serving_client import Client, problem, serving, wait, write_usual_features
from tests.serving_world import MODEL, NOW, Published, ServingWorld, build_templates

SYMBOL = "BTC/USDT"
FROM_DISK = "the model registry does not answer; what it said last, kept on this machine, is served"


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    made = ServingWorld(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    write_usual_features(made)
    return made


@pytest.fixture
def served(world: ServingWorld) -> Published:
    """A version that the service has served with the registry at hand."""
    published = world.publish()
    with serving(world) as client:
        client.wait_ready()
    return published


def without_registry(world: ServingWorld) -> Path:
    """Take registry and artifacts away; where the registry is then."""
    away = world.home / "away"
    (world.home / "artifacts").rename(world.home / "artifacts-away")
    return (world.home / "mlflow.db").rename(away)


def bring_back(world: ServingWorld) -> None:
    (world.home / "artifacts-away").rename(world.home / "artifacts")
    (world.home / "away").rename(world.home / "mlflow.db")


def test_the_last_approved_serves_until_the_registry_is_back(
    world: ServingWorld, served: Published
) -> None:
    shadow = world.publish(role="shadow")
    with serving(world) as client:
        wait(lambda: len(client.get("/ready").json().get("challengers", ())) == 1)
    without_registry(world)
    with serving(world) as client:
        client.wait_ready()
        assert client.ask(SYMBOL).json()["model_version"] == served.version
        assert client.get("/ready").json()["problems"]["model"] == FROM_DISK
        assert client.metric("registry_from_disk") == 1
        labels = {"model_version": shadow.version, "role": "shadow"}
        wait(lambda: client.metric("challenger_predictions_total", **labels) >= 3)
        world.write_features({SYMBOL: (0.1, 0.2, 0.3)}, at=NOW)
        wait(lambda: client.ask(SYMBOL).json()["feature_age_seconds"] == 0)
        bring_back(world)
        successor = world.publish()
        wait(lambda: client.ask(SYMBOL).json()["model_version"] == successor.version)
        assert client.get("/ready").json()["problems"] == {}
        assert client.metric("registry_from_disk") == 0


def test_a_registry_that_answers_is_asked_first(world: ServingWorld, served: Published) -> None:
    world.withdraw(served)
    with serving(world) as client:
        wait(lambda: client.metric("refresh_errors_total", error_type="no_champion") >= 2)
        problem(client.ask(SYMBOL), 503, "not-ready")
    # And what it said is what is kept: nothing may serve.
    without_registry(world)
    with serving(world) as client:
        wait(lambda: client.metric("refresh_errors_total", error_type="no_champion") >= 2)
        assert client.metric("registry_from_disk") == 1
        problem(client.ask(SYMBOL), 503, "not-ready")


def _kept(world: ServingWorld, pattern: str) -> Path:
    (found,) = world.settings().model_cache_path.glob(pattern)
    return found


def _alter(file: Path) -> None:
    signed = json.loads(file.read_text())
    signed["record_json"] = signed["record_json"].replace(
        '"model_version":"1"', '"model_version":"2"'
    )
    file.write_text(json.dumps(signed))


def _alter_deployment(world: ServingWorld) -> None:
    _alter(_kept(world, "deployment-*"))


def _alter_approval(world: ServingWorld) -> None:
    _alter(_kept(world, "approval-*"))


def _half_write_bundle(world: ServingWorld) -> None:
    program = _kept(world, "*/model.stablehlo")
    program.write_bytes(program.read_bytes()[:100])


def _lose_bundle(world: ServingWorld) -> None:
    shutil.rmtree(_kept(world, "*/model.stablehlo").parent)


def _half_write_deployment(world: ServingWorld) -> None:
    file = _kept(world, "deployment-*")
    file.write_bytes(file.read_bytes()[:100])


def _open_to_others(world: ServingWorld) -> None:
    world.settings().model_cache_path.chmod(0o777)


@pytest.mark.parametrize(
    "spoil",
    [
        _alter_deployment,
        _alter_approval,
        _half_write_bundle,
        _lose_bundle,
        _half_write_deployment,
        _open_to_others,
    ],
)
@pytest.mark.usefixtures("served")
def test_what_is_kept_serves_only_as_it_was_signed(
    world: ServingWorld, spoil: Callable[[ServingWorld], None]
) -> None:
    spoil(world)
    without_registry(world)
    with serving(world) as client:
        wait(lambda: _failed(client) >= 2)
        problem(client.ask(SYMBOL), 503, "not-ready")
        assert client.metric("service_ready") == 0
        # With the registry it is mended, or done without.
        bring_back(world)
        client.wait_ready()


def _failed(client: Client) -> float:
    kinds = ("registry_unavailable", "model_refused")
    return sum(client.metric("refresh_errors_total", error_type=kind) for kind in kinds)


def test_an_old_deployment_on_disk_is_refused(world: ServingWorld, served: Published) -> None:
    file = _kept(world, "deployment-*")
    old = file.read_bytes()
    world.withdraw(served)
    with serving(world) as client:
        wait(lambda: client.metric("refresh_errors_total", error_type="no_champion") >= 1)
    file.write_bytes(old)
    without_registry(world)
    with serving(world) as client:
        wait(lambda: _failed(client) >= 2)
        problem(client.ask(SYMBOL), 503, "not-ready")


def _lose_tag(world: ServingWorld) -> None:
    world.client.delete_registered_model_tag(MODEL, DEPLOYMENT_TAG)


def _empty_registry(world: ServingWorld) -> None:
    (world.home / "mlflow.db").unlink()
    shutil.copy(world.templates.mlflow, world.home / "mlflow.db")


def _forge_tag(world: ServingWorld) -> None:
    world.write_tag("{}")


@pytest.mark.parametrize("spoil", [_lose_tag, _empty_registry, _forge_tag])
def test_a_registry_that_lost_its_deployment_does_not_stop_a_restart(
    world: ServingWorld, served: Published, spoil: Callable[[ServingWorld], None]
) -> None:
    spoil(world)
    with serving(world) as client:
        client.wait_ready()
        assert client.ask(SYMBOL).json()["model_version"] == served.version
        told = client.get("/ready").json()["problems"]["model"]
        assert told.startswith("the registry holds no valid deployment any more")
        assert client.metric("registry_from_disk") == 1
        assert client.metric("refresh_errors_total", error_type="deployment_refused") >= 1


def _deployed_and_never_loaded(world: ServingWorld) -> Published:
    """A version that this machine knows of, and has no files of."""
    successor = world.publish()
    (world.home / "artifacts").rename(world.home / "artifacts-away")
    before = _kept(world, "deployment-*.json").read_bytes()
    with serving(world) as client:
        wait(lambda: _kept(world, "deployment-*.json").read_bytes() != before)
        client.wait_ready()
        assert client.metric("champion_not_served") == 1
    return successor


def test_the_champion_before_stands_in_until_the_deployed_one_is_loaded(
    world: ServingWorld, served: Published
) -> None:
    successor = _deployed_and_never_loaded(world)
    away = (world.home / "mlflow.db").rename(world.home / "away")
    with serving(world) as client:
        client.wait_ready()
        assert client.ask(SYMBOL).json()["model_version"] == served.version
        assert client.get("/ready").json()["problems"]["champion"] == (
            "the version that answers is not the deployed champion"
        )
        assert away.exists()
        bring_back(world)
        wait(lambda: client.ask(SYMBOL).json()["model_version"] == successor.version)
        wait(lambda: client.get("/ready").json()["problems"] == {})


def test_a_champion_that_was_withdrawn_stands_in_for_nobody(
    world: ServingWorld, served: Published
) -> None:
    _deployed_and_never_loaded(world)
    world.withdrawn.append(served.version)
    world.decisions.append("e" * 64)
    world.write_tag(world.deployment())
    for _ in range(2):
        with serving(world) as client:
            wait(lambda: _failed(client) >= 2)
            assert {client.ask(SYMBOL).status_code for _ in range(200)} == {503}
        if (world.home / "mlflow.db").exists():
            (world.home / "mlflow.db").rename(world.home / "away")


def test_what_was_not_kept_while_others_could_write_is_kept_later(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MODEL)
    cache.folder()
    (tmp_path / "cache").chmod(0o770)
    assert not cache.keep_deployment("signed", ())
    assert not cache.write("a", b"")
    (tmp_path / "cache").chmod(0o700)
    assert cache.deployment() is None
    assert cache.keep_deployment("signed", ())
    assert cache.deployment() == "signed"


def test_a_bundle_goes_that_nobody_used_for_long_and_no_deployment_names(
    world: ServingWorld, served: Published
) -> None:
    """What is named stays however old it is, and so does what a way back may need soon."""
    folder = world.settings().model_cache_path
    other = Cache(folder, "another-model")
    assert other.keep_deployment(json.dumps({"digest": "1" * 64}), ())
    other.keep_champion(json.dumps({"digest": "2" * 64}))
    digests = [str(number) * 64 for number in range(5)]
    for name in (*digests, "compiled"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "one").write_bytes(b"some")
    month = time.time() - 31 * 86400
    for name in (served.digest, *digests[:4], "compiled"):
        os.utime(folder / name, (month, month))
    # Used, so it is as good as new.
    assert other.bundle(digests[3]) == folder / digests[3]
    successor = world.publish()
    with serving(world) as client:
        wait(lambda: client.ask(SYMBOL).json().get("model_version") == successor.version)
    gone = {digest for digest in digests if not (folder / digest).exists()}
    assert gone == {digests[0]}
    assert {served.digest, successor.digest, "compiled"} <= {each.name for each in folder.iterdir()}


@pytest.mark.usefixtures("served")
def test_nothing_of_a_folder_that_others_can_write_to_is_used(
    world: ServingWorld, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.settings().model_cache_path
    cache.chmod(0o770)
    before = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    newest = world.publish()
    with serving(world) as client:
        client.wait_ready()
        assert "cache" in client.get("/ready").json()["problems"]
        assert f"chmod 700 {cache}" in caplog.text
        assert {file.name: file.stat().st_mtime_ns for file in cache.iterdir()} == before
        cache.chmod(0o700)
        wait(lambda: client.get("/ready").json()["problems"] == {})
        # And is written again, though nothing new was decided.
        wait(lambda: _kept(world, "deployment-*.json").stat().st_mtime_ns > max(before.values()))
        wait(lambda: _kept(world, "champion-*.json").stat().st_mtime_ns > max(before.values()))
    without_registry(world)
    with serving(world) as client:
        client.wait_ready()
        assert client.ask(SYMBOL).json()["model_version"] == newest.version
        assert client.metric("registry_from_disk") == 1


def test_an_artifact_store_that_is_down_is_done_without(
    world: ServingWorld, served: Published
) -> None:
    (world.home / "artifacts").rename(world.home / "artifacts-away")
    with serving(world) as client:
        client.wait_ready()
        assert client.ask(SYMBOL).json()["model_version"] == served.version
        assert client.get("/ready").json()["problems"] == {}


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes every connection, and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for connection in taken:
            connection.close()


def test_a_registry_that_hangs_delays_a_start_by_its_time_limit_and_answers_by_nothing(
    world: ServingWorld, served: Published
) -> None:
    poll = {"serving_registry_poll": timedelta(milliseconds=10)}
    with silent_server() as url, serving(world, tracking_uri=url, **poll) as client:
        client.wait_ready()
        assert client.get("/ready").json()["problems"]["model"] == FROM_DISK
        for minutes in (3, 2, 1):
            # The next look hangs meanwhile.
            world.write_features({SYMBOL: (0.1, 0.2, 0.3)}, at=NOW - timedelta(minutes=minutes))
            wait(lambda age=60 * minutes: client.ask(SYMBOL).json()["feature_age_seconds"] == age)  # type: ignore[misc]
        assert client.ask(SYMBOL).json()["model_version"] == served.version
        assert client.metric("refresh_age_seconds", part="features") < 1
