"""Plays schedules of kills against the loop and prints the counts: ``make chaos-loop``.

python -m tests.chaos.loop_run --schedules 50 --seed 20240301
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.loop_schedules import Theatre, draw_shots, play, summary

SEED = 20240301


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        theatre = Theatre(given.folder or Path(temporary))
        theatre.prepare()
        with theatre.opened():
            for number in range(given.first, given.first + given.schedules):
                outcome = play(theatre, draw_shots(given.seed, number))
                outcomes.append(outcome)
                sys.stdout.write(
                    f"{number:4} {'sound' if outcome.sound else 'UNSOUND':8} "
                    f"{outcome.seconds:6.1f} s {dict(outcome.kills)} of {outcome.shots}"
                    f"{'' if outcome.sound else f' {outcome}'}\n"
                )
                sys.stdout.flush()
    sys.stdout.write(summary(outcomes) + "\n")
    return int(any(not outcome.sound for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
