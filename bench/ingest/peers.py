"""The workers of this benchmark, in processes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench import processes
from bench.processes import MissingPeerError, Outcome, pins, ready, run

__all__ = ["MissingPeerError", "Outcome", "pins", "ready", "run", "worker"]

_WORKERS = Path(__file__).parent / "workers"


def worker(
    name: str,
    *arguments: object,
    python: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a worker of this benchmark, with our Python or a peer's; its last line is JSON."""
    return processes.worker(_WORKERS / f"{name}.py", *arguments, python=python, variables=variables)
