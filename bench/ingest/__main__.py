"""Bars and blocks into the lake: ours against peers, on the same servers in the same run.

Every run of a side is a process of its own that says how long its work took once everything is
imported; a "whole command" is timed from its start to its end. Sides take turns, and a ratio is
the median over the rounds. What a ratio is held against is in the target column.
"""

from __future__ import annotations

import argparse

from bench.ingest.blocks import block_claims
from bench.ingest.prices import memory_claim, pace_claim, speed_claims
from bench.report import Claim, publish

_ROWS = ("prices", "memory", "pace", "blocks", "signed")


def main() -> None:
    options = argparse.ArgumentParser(prog="bench.ingest", description=__doc__)
    options.add_argument("--rows", nargs="+", choices=_ROWS, default=_ROWS)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--days", type=int, default=50, help="days of 1-minute bars")
    options.add_argument("--months", type=int, default=12, help="the longer span of memory")
    options.add_argument("--seconds", type=int, default=24, help="length of the run at a limit")
    options.add_argument("--blocks", type=int, default=2300)
    options.add_argument("--transactions", type=int, default=4, help="transactions per block")
    chosen = options.parse_args()
    claims: list[Claim] = []
    if "prices" in chosen.rows:
        claims += speed_claims(chosen.days, chosen.runs)
    if "memory" in chosen.rows:
        claims.append(memory_claim(chosen.months))
    if "pace" in chosen.rows:
        claims.append(pace_claim(chosen.seconds))
    for row in ("blocks", "signed"):
        if row in chosen.rows:
            size = chosen.blocks, chosen.transactions, chosen.runs
            claims += block_claims(*size, signed=row == "signed")
    publish("ingest", claims)


if __name__ == "__main__":
    main()
