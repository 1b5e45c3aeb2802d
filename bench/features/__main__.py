"""Features: computed, joined as of an instant, and topped up into the online store.

Each part is a file of its own with ``claims(options)``, which runs both sides and compares them.
"""

from __future__ import annotations

import argparse

from bench.features import point_in_time, top_up, values
from bench.report import Claim, publish

PARTS = {"values": values, "point_in_time": point_in_time, "top_up": top_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    values.add_options(parser)
    parser.add_argument("--only", choices=PARTS, help="one part; results are printed, not kept")
    options = parser.parse_args()
    found: list[Claim] = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            print(f"{name} ...", flush=True)
            found += part.claims(options)
    publish("features", found, keep=options.only is None)


if __name__ == "__main__":
    main()
