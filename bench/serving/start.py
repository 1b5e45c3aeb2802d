"""From the start of a process to its first prediction, with a warm compilation cache."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time

from bench.report import Claim
from bench.serving.servers import HOST, Servers, await_answer, running
from bench.serving.sides import Ours
from cryptoml_assets.operations.processes import free_port

_LIMIT_SECONDS = 6.0


def claims(options: argparse.Namespace, servers: Servers, ours: Ours) -> list[Claim]:
    spent = [_start(servers, ours) for _ in range(options.runs + 1)]
    # The first one fills the cache.
    seconds = statistics.median(spent[1:])
    claim = f"start to a prediction, warm cache, {options.runs} starts: limit"
    return [Claim.of_seconds(claim, seconds, _LIMIT_SECONDS, 1.0)]


def _start(servers: Servers, ours: Ours) -> float:
    port, admin_port = free_port(HOST), free_port(HOST)
    side = dataclasses.replace(ours.by_symbol, name="ours, started", port=port)
    variables = {
        **servers.environment,
        **ours.world.variables(),
        "CRYPTOML_SERVING_PORT": str(port),
        "CRYPTOML_SERVING_ADMIN_PORT": str(admin_port),
    }
    began = time.monotonic()
    command = [sys.executable, "-m", "cryptoml_serving"]
    with running("started", command, variables, servers.folder) as process:
        await_answer(side, process)
        seconds = time.monotonic() - began
    print(f"    answers after {seconds:.2f} s", flush=True)
    return seconds
