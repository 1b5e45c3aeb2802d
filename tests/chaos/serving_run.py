"""Plays every fault against a real service and prints the counts: ``make chaos-serving``.

python -m tests.chaos.serving_run --rounds 3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.serving_faults import FAULTS
from tests.chaos.serving_stage import HEADING, Counts, Stage, totals
from tests.serving_world import build_templates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), default=list(FAULTS))
    given = parser.parse_args()
    played: list[Counts] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        templates = build_templates(folder)
        sys.stdout.write(HEADING + "\n")
        for number in range(given.rounds):
            stage = Stage(folder / f"round{number}", templates)
            try:
                stage.start()
                for name in given.only:
                    played.append(FAULTS[name](stage))
                    sys.stdout.write(played[-1].line() + "\n")
                    sys.stdout.flush()
            finally:
                stage.close()
    sys.stdout.write(totals(played) + "\n")
    return int(any(not counts.sound for counts in played))


if __name__ == "__main__":
    sys.exit(main())
