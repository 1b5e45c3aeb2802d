"""The main job once, end to end: world, asset graph, approved model, one served prediction."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import httpx
from rich.console import Console
from rich.table import Table

from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.monitoring.inference import key_header
from cryptoml_assets.operations.graph import (
    days_to_repeat,
    keep_log,
    prepare_dagster_home,
    run_job,
)
from cryptoml_assets.operations.processes import Child, Children
from cryptoml_assets.operations.world import (
    RunningWorld,
    choose_port,
    frozen_instant,
    reachable,
    sandbox_port,
    set_environment,
    start_sandbox,
)
from cryptoml_assets.retry import call_with_retries
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.settings import World, format_duration

_SERVING_READY_SECONDS = 90.0
_SWAP_SECONDS = 60.0
_HOST = "127.0.0.1"
_SERVING_PORT = 8000

#: What the last line of a demo holds.
ANSWER_FIELDS = (
    "symbol",
    "prediction",
    "lower",
    "upper",
    "probability_up",
    "confidence",
    "model_version",
    "feature_timestamp",
    "prediction_id",
    "source",
)


class _UnreachableError(Exception):
    """One round of questions found an address that does not answer."""


@dataclass(frozen=True)
class Narrator:
    """Tells a person what happens, with the seconds since the command began."""

    console: Console
    began: float

    @classmethod
    def begin(cls) -> Narrator:
        """Start counting now."""
        # Bound now: Feast's own printing is silenced by another sys.stdout for a while.
        return cls(Console(file=sys.stdout, highlight=False), time.monotonic())

    def say(self, text: str) -> None:
        """Print one line."""
        seconds = time.monotonic() - self.began
        self.console.print(f"[dim]{seconds:6.1f} s[/dim]  {text}", soft_wrap=True)


def demo(configured: Settings) -> None:
    """Run the whole platform once and print one served prediction as the last line.

    Raises:
        CryptomlError: whatever stopped it, worded for a person.
    """
    narrator = Narrator.begin()
    with Children(configured.home_path / "logs") as children:
        configured, world = open_world(configured, children, narrator, freeze=True)
        ingest(configured, world, narrator)
        # The service takes seconds to load its libraries: it does so while the model is trained.
        serving, address = start_serving(children, choose_port(preferred_serving_port()))
        if "CRYPTOML_INFERENCE_URL" not in os.environ:
            configured = set_environment({"CRYPTOML_INFERENCE_URL": address})
        approved = train(configured, narrator)
        answer = _ask(
            children,
            serving,
            address,
            configured.symbols[0],
            approved,
            key=configured.inference_key,
        )
        narrator.say(f"POST {address}/predict answered for {answer['symbol']}")
        _summarise(narrator.console, configured, world, answer)
    sys.stdout.write(json.dumps({name: answer[name] for name in ANSWER_FIELDS}) + "\n")


def _ask(
    children: Children, serving: Child, address: str, symbol: str, version: str, *, key: str
) -> dict[str, object]:
    """The service's answer for ``symbol`` from model ``version``, once it has swapped to it."""
    children.wait_ready(serving, f"{address}/ready", _SERVING_READY_SECONDS)
    deadline = time.monotonic() + _SWAP_SECONDS
    while True:
        answer = httpx.post(
            f"{address}/predict",
            json={"symbol": symbol},
            headers=key_header(key),
            timeout=30.0,
            trust_env=False,
        )
        if not answer.is_success:
            raise serving.failure(f"answered HTTP {answer.status_code}: {answer.text}")
        prediction: dict[str, object] = answer.json()
        if prediction["model_version"] == version:
            return prediction
        if time.monotonic() > deadline:
            raise serving.failure(
                f"still answers from model version {prediction['model_version']}, "
                f"not from the approved {version}"
            )
        time.sleep(0.5)


def open_world(
    configured: Settings,
    children: Children,
    narrator: Narrator,
    *,
    freeze: bool,
) -> tuple[Settings, RunningWorld]:
    """Bring up the world the settings ask for and check that it answers.

    Raises:
        WorldUnreachableError: naming every address that stayed silent.
    """
    if configured.world is World.LIVE:
        require_reachable(configured, narrator)
        return configured, RunningWorld("live", configured.clock(), configured.symbols, ())
    simulated = configured.world is World.SIMULATED
    world = start_sandbox(
        children,
        frozen=frozen_instant(configured) if freeze and simulated else configured.now,
        port=choose_port(sandbox_port(configured)),
    )
    configured = set_environment({})
    kept = f"; simulated all the same: {', '.join(world.simulated_parts)}"
    narrator.say(
        f"[bold]{world.source}[/bold] world at {world.now:%Y-%m-%d %H:%M} UTC on "
        f"{configured.sandbox_url}{kept if world.simulated_parts and not simulated else ''}"
    )
    return configured, world


def require_reachable(configured: Settings, narrator: Narrator) -> None:
    """Ask every outside address, again after each retry delay while one is silent.

    Raises:
        WorldUnreachableError: naming each address that stayed silent and why.
    """

    def ask() -> None:
        silent = {role: why for role, why in reachable(configured).items() if why}
        if silent:
            raise _UnreachableError("; ".join(f"{role} ({why})" for role, why in silent.items()))

    narrator.say("asking the live world's addresses ...")
    call_with_retries(
        ask,
        transient=(_UnreachableError,),
        delays=configured.retry_delays,
        what="live world",
    )


def ingest(configured: Settings, world: RunningWorld, narrator: Narrator) -> None:
    """Materialise raw data and features over the world's last days.

    Raises:
        RunFailedError: naming the step that failed.
    """
    keep_log(configured.home_path / "logs" / "graph.log")
    prepare_dagster_home(configured.home_path)
    first, last = covered_days(configured, world.now)
    first = min((first, *days_to_repeat(configured, world.now)))
    narrator.say(
        f"{len(configured.symbols)} symbols, {configured.timeframe} bars, "
        f"{first} … {last}, horizon {format_duration(configured.horizon)}"
    )
    run_job("ingest", narrator.say, days=(first, last))


def train(configured: Settings, narrator: Narrator) -> str:
    """Materialise the rest of the graph; the version of the model now approved.

    Raises:
        RunFailedError: naming the step that failed.
        ApprovalError: when the gate approved nothing and nothing was approved before.
    """
    from cryptoml_assets.deployment.standing import current  # noqa: PLC0415

    run_job("train", narrator.say)
    champion = current(configured).champion
    if champion is None:
        raise ApprovalError(
            "the gate approved no model, so nothing may be served; the reasons stand in the ALERT "
            "above, and in the Dagster UI (`cryptoml up`) as an observation of validated_deployment"
        )
    approval = champion.record
    narrator.say(
        f"model version {approval.model_version} approved by {approval.decided_by} "
        f"for its {approval.claim} skill"
    )
    return approval.model_version


def covered_days(configured: Settings, now: datetime) -> tuple[date, date]:
    """First and last partition of a build: ``days`` of history and the day in progress."""
    first = max((now - timedelta(days=configured.days)).date(), configured.start)
    return first, now.date()


def preferred_serving_port() -> int:
    """Where the inference service listens, if nothing else does: its own setting's value."""
    return int(os.environ.get("CRYPTOML_SERVING_PORT", _SERVING_PORT))


def start_serving(children: Children, port: int, admin_port: int = 0) -> tuple[Child, str]:
    """Start the inference service as a child; it becomes ready once a model is approved.

    Args:
        children: takes it in.
        port: of its routes.
        admin_port: of its admin routes; 0: none.
    """
    child = children.start(
        "serving",
        [sys.executable, "-m", "cryptoml_serving"],
        {
            "CRYPTOML_SERVING_HOST": _HOST,
            "CRYPTOML_SERVING_PORT": str(port),
            "CRYPTOML_SERVING_ADMIN_PORT": str(admin_port),
        },
    )
    return child, f"http://{_HOST}:{port}"


def _summarise(
    console: Console, configured: Settings, world: RunningWorld, answer: dict[str, object]
) -> None:
    from cryptoml_assets.resources.lake import Lake  # noqa: PLC0415

    lake = Lake(configured.lake_uri)
    rows = Table(title="lake", show_edge=False)
    rows.add_column("table")
    rows.add_column("rows", justify="right")
    for table in lake.tables():
        rows.add_row(table, f"{lake.row_count(table):,}")
    console.print(rows)
    fields = Table(title=f"prediction ({world.source} data)", show_edge=False, show_header=False)
    for name, value in answer.items():
        fields.add_row(name, f"{value:.6f}" if isinstance(value, float) else str(value))
    console.print(fields)
    if world.source == World.SIMULATED:
        console.print(
            "Learnt on simulated data with a planted signal: no evidence of market skill."
        )
