"""The proof of the loop: a market that changes, and the platform that notices and recovers.

Time is the world's own and moved by this process; everything else is real: the sandbox and the
inference service are processes of their own, runs are Dagster runs, the sensors are the code
location's, the gate judges, and the service follows what was signed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx

from cryptoml_assets.errors import CryptomlError
from cryptoml_assets.operations.demo import Narrator, ingest, start_serving, train
from cryptoml_assets.operations.graph import run_failure
from cryptoml_assets.operations.loop_figures import live, newest_served
from cryptoml_assets.operations.loop_watch import Asked, Watch
from cryptoml_assets.operations.loop_world import Plan, just_after, move_clock
from cryptoml_assets.operations.processes import Child, Children, free_port
from cryptoml_assets.operations.world import set_environment, start_sandbox
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings

_HOST = "127.0.0.1"
_READY_SECONDS = 120.0
_FOLLOW_SECONDS = 60.0
_POLL_SECONDS = 0.05
#: Looked at in this order after the market was.
WATCHED = ("prediction_outcomes", "model_performance", "feature_drift", "prediction_drift")
#: What a prediction needs, in each step; the rest once before each look.
_MOVED = ("raw_prices", "price_features")
_REST = ("raw_prices", "onchain_blocks", "network_metrics", "price_features", "onchain_features")

#: An hour ahead is far for a market whose memory is an hour: at a quarter of it four times as many
#: outcomes are independent, so that a few days tell a good model from a bad one.
_SETTINGS = {
    "CRYPTOML_HORIZON": "15m",
    "CRYPTOML_EMBARGO": "15m",
    "CRYPTOML_FAMILIES": "linear",
    "CRYPTOML_FOLDS": "2",
    # The planted relation is worth less than usual fees.
    "CRYPTOML_FEE_BPS": "0.5",
    "CRYPTOML_SLIPPAGE_BPS": "0",
    "CRYPTOML_PERFORMANCE_MINIMUM": "60",
    # A week of training rows holds few spans that are as long as the newest one: no level that is
    # much stricter could ever be reached. Reports in a row make up for it.
    "CRYPTOML_DRIFT_SIGNIFICANCE": "0.2",
    "CRYPTOML_DRIFT_MINIMUM": "5",
    # Sensors keep to real time, in which days pass in seconds here.
    "CRYPTOML_RETRAIN_COOLDOWN": "1s",
    "CRYPTOML_RETRAIN_BUDGET": "20",
    "CRYPTOML_SERVING_LOG_INTERVAL": "500ms",
}
FULL = Plan(
    begins=datetime(2024, 2, 1, tzinfo=UTC),
    history=9,
    calm=timedelta(days=2),
    longest=timedelta(days=12),
    recovery=timedelta(days=3),
    step=timedelta(hours=3),
    watch=timedelta(days=1),
    symbols=("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"),
    signal=2.5,
    volatility=4.0,
    settings={**_SETTINGS, "CRYPTOML_TRAINING_DAYS": "7"},
)


class LoopOpenError(CryptomlError):
    """The loop did not close; the message says what did not happen."""


@dataclass
class Proof:
    """What happened, as it goes into the last line.

    Attributes:
        first: version served when the market changed.
        asked: each retrain: the sensor, its reason, the world's time, and what came of it.
        rejected: versions the gate turned away after the change.
        approved: version that replaced the first, once one did.
        swapped_at: the world's time at which it answered.
        live: figures by span: before, changed, recovered.
    """

    first: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    approved: str | None = None
    swapped_at: datetime | None = None
    live: dict[str, Any] = field(default_factory=dict)


class Loop:
    """A world that goes on in steps, watched."""

    def __init__(
        self,
        plan: Plan,
        narrator: Narrator,
        *,
        serving: tuple[Child, str],
        watch: Watch,
        configured: Settings,
    ) -> None:
        self._plan = plan
        self._narrator = narrator
        self._serving, self._address = serving
        self._watch = watch
        self._configured = configured
        self._lake = Lake(configured.lake_uri)
        self._now = plan.begins
        self.proof = Proof()

    def say(self, text: str) -> None:
        """One line of the timeline: seconds since the command began, the world's time, what."""
        self._narrator.say(f"{self._now:%m-%d %H:%M}  {text}")

    def run(self) -> Proof:
        """Serve in the calm, let the market change, and go on until the loop has closed.

        Raises:
            LoopOpenError: saying what did not happen.
        """
        plan, proof = self._plan, self.proof
        proof.first = self._answering()
        self.say(f"version {proof.first} answers")
        while self._now < plan.changes + plan.longest:
            self._go_on(min(self._now + plan.step, self._next_watch()))
            if self._is_look():
                self._look()
            if self._now == plan.changes:
                self.say(
                    f"[bold]the market changes[/bold]: the planted relation is turned round, "
                    f"returns are {plan.volatility:g} times as large"
                )
            if proof.swapped_at is not None and self._now >= proof.swapped_at + plan.recovery:
                return self._closed()
        raise LoopOpenError(
            f"{plan.longest} after the change "
            + (
                f"version {proof.approved} has not been served for {plan.recovery}"
                if proof.approved
                else f"no model was approved; retrains: {proof.asked}"
            )
        )

    def _is_look(self) -> bool:
        return (self._now - self._plan.begins) % self._plan.watch == timedelta(0)

    def _next_watch(self) -> datetime:
        passed = (self._now - self._plan.begins) // self._plan.watch
        return self._plan.begins + (passed + 1) * self._plan.watch

    def _go_on(self, until: datetime) -> None:
        """Let it be ``until``: new bars, features, online store, and predictions logged."""
        days = (self._now.date(), until.date())
        self._now = until
        move_clock(self._configured.home, just_after(until))
        if self._is_look():
            since = (until - self._plan.watch).date()
            self._materialise(_REST, (since, until.date()), checked=True)
        else:
            self._materialise(_MOVED, days)
        self._materialise(("online_features",), checked=self._is_look())
        self._wait(
            lambda: (newest_served(self._lake, self._answering()) or self._plan.begins) >= until,
            f"logged no prediction of {until:%m-%d %H:%M}",
        )

    def _look(self) -> None:
        """Outcomes, performance, drift; then the sensors and what they ask for."""
        for asset in WATCHED:
            told = self._materialise((asset,), checked=True)
            if words := _reported(asset, told):
                self.say(words)
        for asked in self._watch.tick():
            self._answer(asked)

    def _answer(self, asked: Asked) -> None:
        """Tell what a run that a sensor asked for came to."""
        run = self._watch.status(asked.run_id)
        self.say(f"{asked.sensor} asked for {asked.job} ({asked.run_key}): {run}")
        verdict = _newest_verdict(self._lake, self._configured.model_name)
        if asked.job != "retrain" or verdict is None:
            return
        version, why = verdict
        self.proof.asked.append(
            {"sensor": asked.sensor, "at": self._now.isoformat(), "version": version, "failed": why}
        )
        if why:
            self.proof.rejected.append(version)
            self.say(f"[red]version {version} rejected[/red]: {'; '.join(why)}")
            return
        self.say(f"[green]version {version} approved[/green]")
        self._wait(
            lambda: self._answering() == version, f"still does not answer from version {version}"
        )
        self.say(f"version {version} answers")
        self.proof.approved, self.proof.swapped_at = version, self._now

    def _closed(self) -> Proof:
        plan, proof = self._plan, self.proof
        if proof.approved is None or proof.swapped_at is None:  # pragma: no cover - said by run
            raise LoopOpenError("nothing was approved")
        spans = {
            "before": live(self._lake, proof.first, plan.begins, plan.changes),
            "changed": live(self._lake, proof.first, plan.changes, proof.swapped_at),
            "recovered": live(self._lake, proof.approved, proof.swapped_at),
        }
        for span, figures in spans.items():
            if figures is None:
                raise LoopOpenError(f"no outcome is known of the span {span}")
            self.say(f"{span}: {figures.told()}")
            proof.live[span] = asdict(figures)
        if not proof.rejected:
            raise LoopOpenError("no candidate was rejected after the change")
        if proof.live["recovered"]["log_loss"] >= proof.live["changed"]["log_loss"]:
            raise LoopOpenError(f"live performance has not recovered: {proof.live}")
        return proof

    def _materialise(
        self,
        assets: tuple[str, ...],
        days: tuple[date, date] | None = None,
        *,
        checked: bool = False,
    ) -> dg.ExecuteInProcessResult:
        done = self._watch.execute(assets, days, checked=checked)
        if not done.success:
            raise LoopOpenError(run_failure(done))
        return done

    def _answering(self) -> str:
        """Version that answers now."""
        answer = httpx.get(f"{self._address}/ready", timeout=10.0, trust_env=False)
        return str(answer.json().get("model_version", ""))

    def _wait(self, until: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _FOLLOW_SECONDS
        while not until():
            if time.monotonic() > deadline:
                raise self._serving.failure(otherwise)
            time.sleep(_POLL_SECONDS)


def _reported(asset: str, done: dg.ExecuteInProcessResult) -> str:
    """What a report says, in words; nothing where it says nothing."""
    (made,) = [
        event.step_materialization_data.materialization
        for event in done.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]
    figures = {name: entry.value for name, entry in made.metadata.items()}
    match asset:
        case "feature_drift" | "prediction_drift" if figures.get("judged"):
            share, alarm = figures["drifted_share"], figures.get("alarm")
            return f"{asset}: {share:.0%} of {figures['judged']} drifted{' ALARM' * bool(alarm)}"
        case "model_performance" if figures.get("accuracy_24h") is not None:
            below = " [bold]BELOW PROMISE[/bold]" * bool(figures.get("below_promise"))
            return f"model_performance: accuracy {figures['accuracy_24h']:.3f} in 24 hours{below}"
    return ""


def _newest_verdict(lake: Lake, model_name: str) -> tuple[str, list[str]] | None:
    """Version the gate judged last, and the criteria that it failed."""
    from cryptoml_assets.deployment import verdicts  # noqa: PLC0415

    rows = verdicts.stored(lake, model_name)
    if rows.is_empty():
        return None
    row = rows.row(-1, named=True)
    failed = [
        f"{each['name']} {each['figure']:.4g}"
        for each in json.loads(row["criteria"])
        if not each["passed"]
    ]
    return row["model_version"], failed if not row["approved"] else []


@contextmanager
def opened(plan: Plan, home: Path, narrator: Narrator) -> Iterator[Loop]:
    """A world on its first day: sandbox up, a champion trained, approved and served.

    Raises:
        CryptomlError: whatever stopped it.
    """
    set_environment(plan.environment(home))
    move_clock(home, just_after(plan.begins))
    with Children(home / "logs") as children:
        world = start_sandbox(children, frozen=None, port=free_port(_HOST))
        configured = set_environment({})
        ingest(configured, world, narrator)
        admin = free_port(_HOST)
        serving = start_serving(children, free_port(_HOST), admin)
        set_environment(
            {
                "CRYPTOML_INFERENCE_URL": serving[1],
                "CRYPTOML_INFERENCE_ADMIN_URLS": f"http://{_HOST}:{admin}",
            }
        )
        train(configured, narrator)
        children.wait_ready(serving[0], f"{serving[1]}/ready", _READY_SECONDS)
        with dg.DagsterInstance.get() as instance:
            watch = Watch(instance)
            # Where sensors begin: what happened before they were first asked is no news to some.
            watch.tick()
            yield Loop(plan, narrator, serving=serving, watch=watch, configured=configured)


def loop(home: Path, plan: Plan = FULL) -> Proof:
    """Prove the loop once, print its timeline, and the proof as one JSON line.

    Raises:
        LoopOpenError: saying what did not happen.
    """
    narrator = Narrator.begin()
    with opened(plan, home, narrator) as running:
        proof = running.run()
    seconds = round(time.monotonic() - narrator.began, 1)
    told = {**asdict(proof), "changed_at": plan.changes, "seconds": seconds}
    sys.stdout.write(json.dumps(told, default=str) + "\n")
    return proof


def main() -> int:
    """``python -m cryptoml_assets.operations.loop [FOLDER]``: prove the loop in a new world.

    The world lies in FOLDER, which must not exist yet, or in a new one below the home.
    """
    given = [Path(name) for name in sys.argv[1:]]
    if len(given) > 1 or any(folder.exists() for folder in given):
        sys.stderr.write("at most one argument: a folder that does not exist yet\n")
        return 2
    home = given[0] if given else _new_folder()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        loop(home)
    except CryptomlError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _new_folder() -> Path:
    home = Path(os.environ.get("CRYPTOML_HOME", ".cryptoml"))
    names = (home / f"loop-{number}" for number in itertools.count(1))
    return next(folder for folder in names if not folder.exists())


if __name__ == "__main__":
    sys.exit(main())
