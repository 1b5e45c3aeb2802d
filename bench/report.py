"""What a benchmark leaves behind: a table for a person, a file for everything else."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Claim:
    """One comparison; ``ratio`` above 1 is better for us.

    ``target`` is the ratio that was promised, none where the comparison is for reference. ``least``
    and ``most`` bound the ratios of the single runs behind ``ratio``.
    """

    claim: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    target: float | None
    least: float | None = None
    most: float | None = None

    @classmethod
    def of_seconds(cls, claim: str, ours: float, theirs: float, target: float | None) -> Claim:
        """A comparison of two durations."""
        return cls(claim, round(ours, 6), round(theirs, 6), "s", round(theirs / ours, 3), target)

    @classmethod
    def of_pairs(
        cls,
        claim: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        target: float | None,
        *,
        work: float,
        unit: str,
    ) -> Claim:
        """A comparison of two rates: ``work`` done in the seconds of each run of a pair.

        The ratio is the median over the pairs, so that what slows both sides of a pair cancels.
        """
        ratios = [theirs_s / ours_s for ours_s, theirs_s in zip(ours, theirs, strict=True)]
        return cls(
            claim,
            round(work / statistics.median(ours), 1),
            round(work / statistics.median(theirs), 1),
            unit,
            round(statistics.median(ratios), 3),
            target,
            round(min(ratios), 3),
            round(max(ratios), 3),
        )


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], runs: int
) -> tuple[float, float]:
    """Median seconds of each side over ``runs`` runs, one after the other, after a warm-up."""

    spent = measure({"ours": lambda: timed(ours), "theirs": lambda: timed(theirs)}, runs)
    return statistics.median(spent["ours"]), statistics.median(spent["theirs"])


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(sides: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Seconds that each side says of itself, ``runs`` times after a warm-up.

    Every round runs each side once, in turns from the first to the last and back.
    """
    for side in sides.values():
        side()
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(runs):
        for name in list(sides)[:: -1 if index % 2 else 1]:
            spent[name].append(sides[name]())
    return spent


def publish(name: str, claims: Sequence[Claim], *, keep: bool = True) -> None:
    """Print the claims as a table and, to ``keep`` them, write ``results/NAME.json``."""
    width = max(len(claim.claim) for claim in claims)
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{'claim':{width}}  {'ours':>10}  {'theirs':>10}  unit       ratio  target")
    for claim in claims:
        spread = "" if claim.least is None else f"  ({claim.least:.2f} .. {claim.most:.2f})"
        target = "-" if claim.target is None else f"{claim.target:.2f}"
        verdict = "  below target" if claim.target and claim.ratio < claim.target else ""
        print(
            f"{claim.claim:{width}}  {claim.ours:>10.5g}  {claim.theirs:>10.5g}  {claim.unit:8}  "
            f"{claim.ratio:>6.2f}  {target:>6}{spread}{verdict}"
        )
    if not keep:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(claim) for claim in claims], indent=2) + "\n")
