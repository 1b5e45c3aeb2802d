"""Sides of a benchmark in processes of their own: ours, and peers in environments of their own.

Peers are pinned in ``bench/peers/NAME.txt``, locked from a ``NAME.in`` where there is one. Nothing
of ours imports them. They are started as commands, or by a worker that imports nothing of ours and
prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_PEERS = ROOT / "bench" / "peers"


class MissingPeerError(Exception):
    """A peer that cannot be had on this machine, and why."""


@dataclass(frozen=True)
class Outcome:
    """What one process did: what it ``said`` itself, and ``seconds`` from start to end."""

    said: dict[str, Any]
    seconds: float


def ready(name: str) -> Path:
    """The folder of the peer's programs, its environment made where it is missing or old.

    Raises:
        MissingPeerError: it cannot be installed here.
    """
    done = subprocess.run([_PEERS / "install", name], check=False, capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise MissingPeerError(done.stderr.strip().splitlines()[-1])
    return _PEERS / name / "bin"


def pins(name: str) -> str:
    """The pins of a peer, for a person."""
    asked = _PEERS / f"{name}.in"
    path = asked if asked.exists() else asked.with_suffix(".txt")
    lines = path.read_text().splitlines()
    return ", ".join(line for line in lines if not line.startswith("#"))


def worker(
    script: Path,
    *arguments: object,
    python: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a worker to its end, with our Python or a peer's; its last line is JSON."""
    command = [str(python or sys.executable), str(script), *map(str, arguments)]
    ours = {} if python else {"PYTHONPATH": str(ROOT)}
    return run(command, {**ours, **(variables or {})}, talks=True)


def run(command: Sequence[str], variables: Mapping[str, str], *, talks: bool = False) -> Outcome:
    """Run a command to its end; ``talks`` where its last line of output is JSON."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("CRYPTOML_")}
    # Without it a peer would compile its own sources anew in every run.
    plain.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=plain | variables, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        message = f"{command}: exit {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        raise RuntimeError(message)
    said = json.loads(done.stdout.splitlines()[-1]) if talks else {}
    return Outcome(said, seconds)
