"""What a benchmark leaves behind: a table for a person, a file for everything else."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Claim:
    """One comparison; ``ratio`` above 1 is better for us, ``target`` is what was promised."""

    claim: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    target: float

    @classmethod
    def of_seconds(cls, claim: str, ours: float, theirs: float, target: float) -> Claim:
        """A comparison of two durations."""
        return cls(claim, round(ours, 6), round(theirs, 6), "s", round(theirs / ours, 3), target)


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], runs: int
) -> tuple[float, float]:
    """Median seconds of each side over ``runs`` runs, one after the other, after a warm-up."""
    ours(), theirs()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for call, spent in zip((ours, theirs), seconds, strict=True):
            began = time.perf_counter()
            call()
            spent.append(time.perf_counter() - began)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def publish(name: str, claims: Sequence[Claim]) -> None:
    """Print the claims as a table and write ``results/NAME.json``."""
    width = max(len(claim.claim) for claim in claims)
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{'claim':{width}}  {'ours':>10}  {'theirs':>10}  unit   ratio  target")
    for claim in claims:
        verdict = "" if claim.ratio >= claim.target else "  below target"
        print(
            f"{claim.claim:{width}}  {claim.ours:>10.4g}  {claim.theirs:>10.4g}  {claim.unit:4}  "
            f"{claim.ratio:>6.2f}  {claim.target:>6.2f}{verdict}"
        )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(claim) for claim in claims], indent=2) + "\n")
