"""What is done to the inference service while callers ask it, and what must hold then.

Each scenario takes a stage whose service runs and answers, and leaves one that does again.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptoml_serving.contract.bundle import MODEL_FILE
from tests.chaos.serving_stage import POLL
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.serving_stage import Counts, Stage
    from tests.serving_world import Published

#: Seconds in which callers ask before and after a fault.
_CALM = 3.0
_HELD = 2.0
_BACK_SECONDS = 60.0
_SLOW_CLIENTS = 40
#: Requests that a killed worker may take with it: those of a tenth of a second.
_MOST_CUT = 12
#: Seconds in which a withdrawn version is to have gone: a look, and the two it has to be replaced.
_GONE_SECONDS = 4.0


def swap(stage: Stage) -> Counts:
    """Two new versions are approved, one after the other."""
    with stage.load("swap under load") as scene:
        time.sleep(_CALM)
        scene.strike()
        for _ in range(2):
            stage.publish()
            until(lambda: stage.version() == stage.champion, _BACK_SECONDS, "it never took over")
        time.sleep(1.0)
    return scene.counts


def alias_moved(stage: Stage) -> Counts:
    """Somebody points the alias at a version that nobody approved."""
    with stage.load("alias moved without approval") as scene:
        time.sleep(1.0)
        before = stage.champion
        scene.strike()
        published = stage.publish(approved=False)
        stage.world.make_champion(published.version)
        time.sleep(max(_CALM, 10 * POLL))
        assert before is not None
        stage.world.make_champion(before)
    return scene.counts


def corrupt_bundle(stage: Stage) -> Counts:
    """A version is approved, and its program is another than was signed."""

    def spoil(published: Published) -> None:
        program = published.bundle / MODEL_FILE
        program.write_bytes(program.read_bytes()[:-8] + b"\0" * 8)

    with stage.load("corrupt bundle") as scene:
        time.sleep(1.0)
        scene.strike()
        before = stage.champion
        spoilt = stage.publish(spoil=spoil).version
        # It may never answer, however sound its approval is.
        stage.may.pop(spoilt)
        time.sleep(max(_CALM, 10 * POLL))
        if stage.version() != before:
            scene.counts.faults.append("the version before answers no more")
        stage.publish()
        until(lambda: stage.version() == stage.champion, _BACK_SECONDS, "no successor took over")
    return scene.counts


def half_written_cache(stage: Stage) -> Counts:
    """The machine stops while a bundle is written, and starts again."""
    with stage.load("half-written cache") as scene:
        time.sleep(1.0)
        scene.strike("not-ready", may_be_gone=True)
        scene.cut = True
        stage.kill()
        for kept in stage.world.settings().model_cache_path.glob(f"*/{MODEL_FILE}"):
            os.truncate(kept, kept.stat().st_size // 2)
        stage.start()
        time.sleep(1.0)
    return scene.counts


def registry_down(stage: Stage) -> Counts:
    """The registry goes, the service is started again without it, and it comes back."""
    database = stage.world.home / "mlflow.db"
    hidden = database.with_suffix(".away")
    with stage.load("registry down, and a restart") as scene:
        time.sleep(1.0)
        scene.strike("not-ready", may_be_gone=True)
        before = stage.version()
        database.rename(hidden)
        time.sleep(_HELD)
        if stage.version() != before:
            scene.counts.faults.append("without the registry another version, or none, answers")
        scene.cut = True
        stage.kill()
        stage.start()
        if stage.version() != before:
            scene.counts.faults.append("a restart without the registry serves another version")
        hidden.rename(database)
        stage.publish()
        until(lambda: stage.version() == stage.champion, _BACK_SECONDS, "it never came back")
    return scene.counts


def feature_store_down(stage: Stage) -> Counts:
    """The online store is gone for a while."""
    store = stage.world.home / "feast" / "online.db"
    hidden = store.with_suffix(".away")
    with stage.load("feature store down") as scene:
        time.sleep(1.0)
        scene.strike()
        store.rename(hidden)
        until(lambda: "features" in stage.troubles(), _BACK_SECONDS, "nobody noticed")
        time.sleep(_HELD)
        hidden.rename(store)
        until(lambda: "features" not in stage.troubles(), _BACK_SECONDS, "it is told for ever")
        time.sleep(1.0)
    return scene.counts


def feature_store_slow(stage: Stage) -> Counts:
    """The online store lets readers wait for two seconds, again and again."""
    store = stage.world.home / "feast" / "online.db"
    with stage.load("feature store slow (2 s)") as scene:
        time.sleep(1.0)
        scene.strike()
        for _ in range(2):
            with sqlite3.connect(store, isolation_level=None) as held:
                held.execute("BEGIN EXCLUSIVE")
                time.sleep(2.0)
                held.execute("ROLLBACK")
            held.close()
            time.sleep(0.3)
    return scene.counts


def clock_jumps(stage: Stage) -> Counts:
    """The clock jumps a day ahead, where all features are too old, an hour back, and home."""
    with stage.load("clock jumps") as scene:
        time.sleep(1.0)
        scene.strike("stale-features", "no-prediction", "not-ready")
        for by in (timedelta(days=1), timedelta(hours=-1), timedelta()):
            stage.set_clock(by)
            time.sleep(_HELD / 2)
        until(lambda: stage.version() == stage.champion, _BACK_SECONDS, "it never came back")
        time.sleep(1.0)
    return scene.counts


def terminated(stage: Stage) -> Counts:
    """SIGTERM: what was begun is answered, nothing is dropped, and the status is 0.

    Callers stop when ``/ready`` says so, as a load balancer has them do.
    """
    stage.kill()
    stage.start(CRYPTOML_SERVING_DRAIN="3s")
    with stage.load("SIGTERM under load", polite=True) as scene:
        time.sleep(_CALM)
        scene.strike()
        if status := stage.terminate():
            scene.counts.faults.append(f"it ended with status {status}")
    stage.start()
    return scene.counts


def worker_killed(stage: Stage) -> Counts:
    """One of two workers is killed; the other goes on, and a new one takes its place."""
    stage.kill()
    stage.start(CRYPTOML_SERVING_WORKERS="2")
    until(lambda: len(stage.workers()) == 2, _BACK_SECONDS, "there never were two workers")
    with stage.load("kill -9 of a worker", fresh=True) as scene:
        time.sleep(1.0)
        # Requests that it held are cut, and connections that the kernel gave it; no others.
        scene.strike()
        scene.cut = True
        victim = stage.workers()[0]
        victim.kill()
        until(
            lambda: len([each for each in stage.workers() if each.pid != victim.pid]) == 2,
            _BACK_SECONDS,
            "no worker took its place",
        )
        time.sleep(_CALM)
    if (cut := scene.counts.told + scene.counts.nobody) > _MOST_CUT:
        scene.counts.faults.append(f"{cut} requests were lost with one worker of two")
    stage.kill()
    stage.start()
    return scene.counts


def slow_clients(stage: Stage) -> Counts:
    """Forty callers send half a request and wait."""
    stage.kill()
    stage.start(CRYPTOML_SERVING_DEADLINE="2s")
    half = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b'Content-Length: 22\r\n\r\n{"symbol":'
    )
    answers: list[bytes] = []

    def stall() -> None:
        with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as connection:
            connection.sendall(half)
            answers.append(connection.recv(64))

    with stage.load("slow clients") as scene:
        time.sleep(1.0)
        scene.strike()
        stalled = [threading.Thread(target=stall, daemon=True) for _ in range(_SLOW_CLIENTS)]
        for thread in stalled:
            thread.start()
        for thread in stalled:
            thread.join(30)
    if sum(b" 408 " in answer for answer in answers) != _SLOW_CLIENTS:
        scene.counts.faults.append(f"stalled requests were answered {set(answers)}")
    stage.kill()
    stage.start()
    return scene.counts


def withdrawn(stage: Stage) -> Counts:
    """The champion is withdrawn: it answers no more, and then another one does."""
    with stage.load("champion withdrawn") as scene:
        time.sleep(1.0)
        champion = stage.champion
        assert champion is not None
        scene.strike("not-ready")
        (placed,) = [p for p in stage.published if p.version == champion]
        stage.world.withdraw(placed)
        stage.may[champion] = (stage.may[champion][0], time.time() + _GONE_SECONDS)
        until(lambda: stage.version() == "", 2 * _GONE_SECONDS, "it goes on answering")
        stage.publish()
        until(lambda: stage.version() == stage.champion, _BACK_SECONDS, "no successor took over")
    return scene.counts


#: By name, in the order in which they are played.
FAULTS: dict[str, Callable[[Stage], Counts]] = {
    each.__name__: each
    for each in (
        swap,
        alias_moved,
        corrupt_bundle,
        half_written_cache,
        registry_down,
        feature_store_down,
        feature_store_slow,
        clock_jumps,
        terminated,
        worker_killed,
        slow_clients,
        withdrawn,
    )
}
