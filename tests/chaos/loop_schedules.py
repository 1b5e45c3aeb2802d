"""Schedules of kills against the loop: what is drawn from a seed, and what must be true after."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from cryptoml_assets.deployment import history, promotion, standing
from cryptoml_assets.operations.processes import free_port
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.approval import load_private_key, load_public_key
from cryptoml_serving.contract.deployment import read_deployment
from cryptoml_serving.contract.registry import CHAMPION_ALIAS, DEPLOYMENT_TAG, MLFLOW_ENVIRONMENT
from tests.chaos.loop_template import environment
from tests.chaos.loop_zygote import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptoml_assets.deployment.history import Entry

MODEL = "cryptoml-return"
TARGETS = ("daemon", "run", "tracker", "serving")
#: What a shot waits for: how many files there are of a kind, which grow as the loop goes on.
MARKS = {
    "at once": "",
    "run recorded": "dagster/history/runs/*.db",
    "training set": "lake/training_set/_delta_log/*.json",
    "candidates": "mlartifacts/*/artifacts/bundle/*",
    "comparison": "lake/model_comparison/_delta_log/*.json",
    "verdict": "lake/gate_verdicts/_delta_log/*.json",
    "decision": "lake/deployments/_delta_log/*.json",
    "approval": "mlartifacts/*/artifacts/approval/*",
}
_JOURNAL = "mlflow.db-journal"
#: Of a schedule: half a minute where nothing else runs, minutes on a machine that is busy.
_MOST_SECONDS = 480.0
#: A run is tried again twice, as Dagster does.
_MOST_RUN_SHOTS = 2


@dataclass(frozen=True)
class Shot:
    """``kill -9`` of one process: when more files of ``after`` are there, ``delay`` seconds on."""

    target: str
    after: str
    delay: float


@dataclass
class Outcome:
    """What became of one schedule.

    Attributes:
        shots: as drawn.
        kills: by target, those that hit a living process.
        lost: 1 where no new version was approved, or its decision took no effect.
        doubled: decisions beyond the one that was due.
        unapproved: answers of a version that no decision had let serve.
        completed: whether the loop closed.
        answers: of the service, over all of it.
        faults: what else was wrong, in words.
    """

    shots: tuple[Shot, ...]
    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    unapproved: int = 0
    completed: bool = False
    answers: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        return self.completed and not (self.lost or self.doubled or self.unapproved or self.faults)


def draw_shots(seed: int, number: int) -> tuple[Shot, ...]:
    """One to three kills; schedules take the targets in turn, so that each is hit often."""
    draw = random.Random(f"{seed}/{number}")  # noqa: S311 - a schedule, no secret
    targets = [TARGETS[number % len(TARGETS)], *draw.choices(TARGETS, k=draw.choice((0, 0, 1, 2)))]
    shots: list[Shot] = []
    for target in targets:
        if sum(each.target in {"run", "tracker"} for each in shots) >= _MOST_RUN_SHOTS:
            target = draw.choice(("daemon", "serving"))  # noqa: PLW2901
        # The moments in which a decision takes effect are short, and matter most.
        after = draw.choice((*MARKS, "verdict", "decision", "decision", "approval"))
        if target in {"run", "tracker"} and after == "at once":
            after = "run recorded"
        shots.append(Shot(target, after, draw.choice((0.0, draw.uniform(0, 0.05), draw.random()))))
    return tuple(shots)


class Theatre:
    """One home, its template, and the zygote that forks its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.template = folder / "template"
        self.port = free_port("127.0.0.1")
        self.address = f"http://127.0.0.1:{self.port}"
        self.world = self.home / "simulated"
        self._socket = folder / "zygote"
        self._zygote: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make the template, a minute or so, unless the folder has it."""
        if self.template.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.loop_template", str(self.home), self.address],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.home.rename(self.template)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The zygote listens."""
        self._socket.unlink(missing_ok=True)
        with (self.folder / "zygote.log").open("wb") as log:
            zygote = self._zygote = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.chaos.loop_zygote"),
                    *(str(self._socket), str(self.folder)),
                ],
                env=environment(self.home, self.address),
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        try:
            _until(lambda: self.alive() and self._socket.exists(), 120, "no zygote listened")
            yield
        finally:
            zygote.kill()
            zygote.wait()

    def alive(self) -> bool:
        """True; no schedule says anything about the platform once the zygote itself is dead."""
        status = self._zygote.poll() if self._zygote else "never started"
        assert status is None, f"the zygote died, status {status}: {self.folder / 'zygote.log'}"
        return True

    def ask(self, **question: Any) -> Any:
        return ask(self._socket, **question)

    def start(self, role: str) -> None:
        self.ask(do="start", role=role, name=role, argument=str(self.port))

    def clear(self) -> None:
        """Kill what is left, and put the template back."""
        for name in self.ask(do="names"):
            self.ask(do="kill", name=name)
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.template, self.home, symlinks=True)

    def runs(self) -> list[str]:
        """Names of living runs."""
        return [name for name in self.ask(do="names") if name not in {"daemon", "serving"}]

    def count(self, mark: str) -> int:
        return sum(1 for _ in self.world.glob(MARKS[mark])) if MARKS[mark] else 0

    def entries(self) -> list[Entry]:
        key = load_public_key(self.world / "keys" / "approval.pub")
        return history.read(Lake(str(self.world / "lake")), key)


class Poller:
    """Asks the service over and over, and holds every answer against the table of decisions."""

    def __init__(self, theatre: Theatre) -> None:
        self._theatre = theatre
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._broken: BaseException | None = None
        self._approved: set[str] = set()
        self.answers = Counter[str]()
        self.unapproved = 0
        self.newest = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._broken is not None:
            raise self._broken

    def _work(self) -> None:
        try:
            self._poll()
        except BaseException as error:  # noqa: BLE001 - raised where the schedule is played
            self._broken = error

    def _poll(self) -> None:
        body = {"symbol": "BTC/USDT"}
        with httpx.Client(base_url=self._theatre.address, trust_env=False, timeout=5) as client:
            while not self._stop.wait(0.02):
                try:
                    answer = client.post("/predict", json=body)
                except httpx.TransportError:
                    continue
                if answer.is_success:
                    self._hold(str(answer.json()["model_version"]))

    def _hold(self, version: str) -> None:
        self.answers[version] += 1
        self.newest = version
        if version not in self._approved:
            # Read after the answer: a decision that let it serve must be there by then.
            stands = standing.standing(self._theatre.entries(), MODEL)
            self._approved = {
                entry.record.model_version
                for entry in self._theatre.entries()
                if entry.record.role != "none"
            }.difference(stands.withdrawn)
            self.unapproved += version not in self._approved


def play(theatre: Theatre, shots: tuple[Shot, ...]) -> Outcome:
    """Suffer one schedule, and tell what is left."""
    outcome, began = Outcome(shots), time.monotonic()
    theatre.clear()
    first = theatre.entries()[-1].record.model_version
    theatre.start("serving")
    with Poller(theatre) as poller:
        served = "the first champion never answered"
        _until(lambda: theatre.alive() and poller.newest == first, 120, served)
        theatre.start("daemon")
        deadline = time.monotonic() + _MOST_SECONDS
        for shot in shots:
            _fire(theatre, shot, outcome, deadline)
        outcome.completed = _settled(theatre, poller, first, deadline)
    outcome.unapproved, outcome.answers = poller.unapproved, poller.answers.total()
    for name in theatre.ask(do="names"):
        theatre.ask(do="kill", name=name)
    _judge(theatre, first, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


def _fire(theatre: Theatre, shot: Shot, outcome: Outcome, deadline: float) -> None:
    """Wait for the moment, kill, and start again what does not come back by itself."""
    before = theatre.count(shot.after)
    victims = shot.target in {"run", "tracker"}
    while theatre.count(shot.after) <= before and MARKS[shot.after]:
        # What it waits for may be over, where an earlier shot came late.
        if time.monotonic() > deadline or (_closed(theatre) and not theatre.runs()):
            return
        time.sleep(0.002)
    time.sleep(shot.delay)
    # Only what was seen to write is counted as a kill of the tracker.
    writes = shot.target == "tracker" and _writing(theatre)
    target = shot.target if writes or shot.target != "tracker" else "run"
    names = theatre.runs()[-1:] if victims else [shot.target]
    for name in names:
        if theatre.ask(do="kill", name=name):
            outcome.kills[target] += 1
    if not victims:
        theatre.start(shot.target)


def _writing(theatre: Theatre) -> bool:
    """Wait until a run is in the middle of a write to the tracker; whether that came about."""
    journal, until = theatre.world / _JOURNAL, time.monotonic() + 20
    while not (found := journal.exists()) and time.monotonic() < until:
        time.sleep(0.0002)
    return found


def _closed(theatre: Theatre) -> bool:
    return len(theatre.entries()) > 1


def _settled(theatre: Theatre, poller: Poller, first: str, deadline: float) -> bool:
    """Whether another version came to answer, and nothing was left to be done."""
    while time.monotonic() < deadline:
        if poller.newest not in {"", first} and not theatre.runs():
            time.sleep(1.5)  # what would be asked for again is asked for now
            if not theatre.runs():
                return True
        time.sleep(0.05)
    return False


def _judge(theatre: Theatre, first: str, outcome: Outcome) -> None:
    lake = Lake(str(theatre.world / "lake"))
    key = load_private_key(theatre.world / "keys" / "approval.key")
    model = _client(theatre).get_registered_model(MODEL)
    deployed = read_deployment(model.tags[DEPLOYMENT_TAG], key.public_key())
    outcome.faults += history.faults(history.rows(lake), key.public_key(), deployed)
    entries = theatre.entries()
    new = [entry for entry in entries[1:] if entry.record.model_version != first]
    outcome.doubled = max(0, len(entries) - 2)
    champion = standing.standing(entries, MODEL).champion_version
    told = (str(model.aliases.get(CHAMPION_ALIAS)), deployed.champion.model_version)  # type: ignore[union-attr]
    if not new:
        outcome.lost = 1
    elif set(told) != {champion}:
        outcome.lost = 1
        outcome.faults.append(f"the table says {champion}, alias and deployment {told}")
    again = promotion.reconcile(_client(theatre), lake, key, MODEL)
    if again.changed and new:
        outcome.faults.append(f"the registry did not follow the table: {again}")


def _client(theatre: Theatre) -> Any:
    # A connection kept open would go on reading the database of the schedule before.
    os.environ.update(MLFLOW_ENVIRONMENT, MLFLOW_SQLALCHEMYSTORE_POOLCLASS="NullPool")
    from mlflow import MlflowClient  # noqa: PLC0415

    address = f"sqlite:///{theatre.world / 'mlflow.db'}"
    return MlflowClient(address, address)


def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def summary(outcomes: list[Outcome]) -> str:
    """All counts, as one JSON line."""
    kills: Counter[str] = Counter()
    for outcome in outcomes:
        kills += outcome.kills
    return json.dumps(
        {
            "schedules": len(outcomes),
            "kills": {target: kills[target] for target in TARGETS},
            "completed": sum(outcome.completed for outcome in outcomes),
            **{
                name: sum(getattr(outcome, name) for outcome in outcomes)
                for name in ("lost", "doubled", "unapproved", "answers")
            },
            "unsound": sum(not outcome.sound for outcome in outcomes),
        }
    )
