"""Rows a second by the size of a request, and single requests, on a GPU where one is at hand.

Ours answers explicit rows over one connection, as JSON; the raw side is the same program's
executable, called in a loop with NumPy's arrays and nothing around it. So the ratio says what is
left of the device once requests come over HTTP one after the other.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

from bench.processes import worker
from bench.report import Claim
from bench.serving import wrk
from bench.serving.servers import HOST, ServerError, Servers, Side
from bench.serving.sides import Ours, named_rows
from bench.serving.world import COLUMNS, Model, body
from cryptoml_assets.operations.processes import free_port

_RAW = Path(__file__).parent / "workers" / "raw.py"
#: Rows of a request: one, and what the service compiles for as shipped.
SIZES = (1, 8, 64, 512)
_PLATFORMS = {"cuda": "cuda,cpu", "cpu": "cpu"}


def claims(options: argparse.Namespace, servers: Servers, ours: Ours) -> list[Claim]:
    if not _at_hand(options.device):
        print(f"    no device {options.device} at hand: nothing is measured", flush=True)
        return []
    side = _start(options.device, servers, ours)
    sides = {
        "ours": lambda: _loaded(options, servers, side, ours.world.model),
        "raw": lambda: _raw(options, ours.world.model),
    }
    rounds: dict[str, list[dict[int, wrk.Run]]] = {name: [] for name in sides}
    for index in range(options.runs):
        for name in list(sides)[:: -1 if index % 2 else 1]:
            rounds[name].append(found := sides[name]())
            for size, run in found.items():
                _tell(name, size, run)
    return [
        claim
        for size in SIZES
        for claim in _claims(
            options.device, size, *([found[size] for found in rounds[name]] for name in sides)
        )
    ]


def _claims(device: str, size: int, mine: list[wrk.Run], theirs: list[wrk.Run]) -> list[Claim]:
    what = f"POST /predict/features on {device}, {size} row{'s' * (size > 1)} a request"
    seconds = ([1.0 / run.rate for run in runs] for runs in (mine, theirs))
    claim = f"{what}: raw executable"
    found = [Claim.of_pairs(claim, *seconds, None, work=size, unit="rows/s")]
    for share in ("p50", "p99") if size == 1 else ():
        both = (statistics.median(getattr(run, share) for run in runs) for runs in (mine, theirs))
        found.append(Claim.of_seconds(f"{what}, {share}: raw executable", *both, None))
    return found


def _loaded(
    options: argparse.Namespace, servers: Servers, side: Side, model: Model
) -> dict[int, wrk.Run]:
    """Our service with requests of each size, one after the other."""
    found = {}
    for size in SIZES:
        rows = [model.rows[place % len(model.rows)] for place in range(size)]
        matrix = [[round(float(value), 6) for value in row] for row in rows]
        sized = replace(side, bodies=(body({"columns": COLUMNS, "matrix": matrix}),))
        found[size] = wrk.load(sized, servers.folder, connections=1, seconds=options.seconds)
    return found


def _raw(options: argparse.Namespace, model: Model) -> dict[int, wrk.Run]:
    """The executable alone."""
    sizes = ",".join(map(str, SIZES))
    asked = (_RAW, model.program, len(COLUMNS), options.device, sizes, options.seconds)
    said = worker(*asked, variables=_variables(options.device)).said
    return {int(size): wrk.Run(**run) for size, run in said.items()}


def _tell(name: str, size: int, run: wrk.Run) -> None:
    told = f"{run.rate * size:.0f} rows/s, p50 {run.p50 * 1e3:.3f} ms, p99 {run.p99 * 1e3:.3f} ms"
    print(f"    {name}, {size} rows: {told}", flush=True)


def _at_hand(device: str) -> bool:
    """Whether JAX finds such a device, in a process that does not keep it."""
    asked = f"import jax; jax.devices({device!r})"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, check=False)
    return done.returncode == 0


def _variables(device: str) -> dict[str, str]:
    """For a process that is to use it."""
    return {"JAX_PLATFORMS": _PLATFORMS[device], "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def _start(device: str, servers: Servers, ours: Ours) -> Side:
    """Our service on that device, beside the one that the other parts load.

    Raises:
        ServerError: it uses another device.
    """
    port, admin_port = free_port(HOST), free_port(HOST)
    side = Side(
        f"ours on {device}",
        port,
        "/predict/features",
        bodies=named_rows(ours.world.model),
        headers=ours.by_features.headers,
        # As closely as another device's program may differ, which ours on the CPU does.
        check=ours.by_features.check,
    )
    variables = {
        **ours.world.variables(),
        **_variables(device),
        "CRYPTOML_SERVING_PORT": str(port),
        "CRYPTOML_SERVING_ADMIN_PORT": str(admin_port),
        "CRYPTOML_SERVING_DEVICE": device,
    }
    servers.start(f"ours-{device}", [sys.executable, "-m", "cryptoml_serving"], side, variables)
    url = f"http://{HOST}:{port}/metrics"
    asked = urllib.request.Request(url, headers=dict(side.headers))
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
        told = answer.read().decode()
    if not re.search(rf'^serving_device{{device="{device}"}} 1\.0$', told, re.MULTILINE):
        message = f"the service was to use {device} and uses another device"
        raise ServerError(message)
    return side
