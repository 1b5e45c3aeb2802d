"""The inference service under load, against other ways to serve the same network.

Every side is a server of its own with one worker, on the same ``--cores`` as the client; each is
seen to give the same answers before it is measured. In a round each side is loaded once, in turns
from the first to the last and back; a ratio is the median over the rounds. All servers are up all
the time, so that ours goes on reading features every two seconds while others are measured.

``symbol``: closed-loop load by ``wrk`` on ``POST /predict``. ``features``: explicit rows,
closed-loop from 64 connections, and open-loop at a rate, each answer timed from the instant at
which its request was due. ``swap``: another version takes over while an open-loop load runs.
``start``: a process that starts with a warm cache. ``device``: rows a second by the size of a
request on a GPU, where one is at hand, against the raw executable. The peers' pins are in
``bench/peers/serving.in``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.report import Claim, publish
from bench.serving import by_features, by_symbol, device, start, swap, wrk
from bench.serving.servers import Servers
from bench.serving.sides import start_ours
from bench.serving.world import make_model, plain_environment

PARTS = {
    "symbol": by_symbol,
    "features": by_features,
    "swap": swap,
    "start": start,
    "device": device,
}


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="bench.serving", description=__doc__)
    options.add_argument("--runs", type=int, default=5, help="rounds")
    options.add_argument("--seconds", type=int, default=4, help="of each load in a round")
    options.add_argument("--connections", type=int, default=32, help="by symbol")
    options.add_argument("--clients", type=int, default=64, help="connections by features")
    options.add_argument("--rate", type=int, default=1000, help="requests a second, open-loop")
    options.add_argument("--swaps", type=int, default=3)
    options.add_argument("--cores", type=int, default=2)
    options.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="of the part device"
    )
    options.add_argument("--only", choices=PARTS, nargs="+", help="results are printed, not kept")
    options.add_argument(
        "--quick",
        action="store_true",
        help="one round of a second, no peers: whether it works at all; results are not kept",
    )
    found = options.parse_args()
    if found.quick:
        found.runs = found.seconds = found.swaps = 1
    return found


def main() -> int:
    options = parse()
    try:
        wrk.find()
    except wrk.NoWrkError as error:
        print(error, file=sys.stderr)
        return 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    found: list[Claim] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        Servers(Path(scratch), plain_environment()) as servers,
    ):
        model = make_model(servers.folder)
        print(f"every side predicts with {model.described}", flush=True)
        ours = start_ours(servers, model)
        for name in options.only or PARTS:
            print(f"{name} ...", flush=True)
            found += PARTS[name].claims(options, servers, ours)
    publish("serving", found, keep=options.only is None and not options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
