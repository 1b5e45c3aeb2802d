"""Whether the demo on production's servers comes to what it comes to on files.

``python -m tests.production.same_result [--days N]`` runs both at one instant of the world and
holds the last lines, the tables of the lake row by row, and what the homes hold against each other.
``make same-result`` is this with its defaults; the exit code tells.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from cryptoml_assets.production.local.servers import local_servers
from cryptoml_assets.resources.delta import same_rows
from cryptoml_assets.resources.lake import Lake
from tests.demo_command import demo, last_line
from tests.production.credentials import SPECIAL, files_with, secrets_of

NOW = "2026-11-20T12:02:00+00:00"
#: Columns that say which run wrote a row, or when by the real clock.
OF_THE_RUN = frozenset(
    {
        "run_id",
        "bundle_digest",
        "decided_at",
        "judged_at",
        "looked_at",
        "record",
        "signature",
        "git_commit",
        "latency_p95_ms",
    }
)
#: Tables that tell of the runs themselves: times, run ids, signatures.
OF_RUNS = frozenset({"quality_report", "revision_looks", "deployments", "gate_verdicts"})


def main() -> int:
    """Run both and print what differs; 0 when nothing does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", default="20", help="of history")
    days = parser.parse_args().days
    with tempfile.TemporaryDirectory(prefix="cryptoml-same-") as folder:
        Path(folder).chmod(0o755)
        return compare(Path(folder), {"CRYPTOML_DAYS": days, "CRYPTOML_NOW": NOW})


def compare(folder: Path, world: Mapping[str, str]) -> int:
    """Run both in ``folder`` over one ``world``; the number of differences."""
    embedded, production = folder / "embedded", folder / "production"
    first, seconds = timed(embedded, world)
    sys.stdout.write(f"embedded:   {json.dumps(first)} in {seconds:.0f} s\n")
    with local_servers(folder / "servers", added=SPECIAL) as servers:
        second, seconds = timed(production, {**world, **servers})
        sys.stdout.write(f"production: {json.dumps(second)} in {seconds:.0f} s\n")
        os.environ.update(servers)
        found = [] if first == second else [f"the last lines differ: {first} {second}"]
        lakes = Lake(str(embedded / "simulated" / "lake")), Lake(servers["CRYPTOML_LAKE"])
        found += tables(*lakes)
        left = ("feast", "mlflow.db", "mlartifacts", "lake", "dagster/storage", "dagster/history")
        found += [
            f"the home holds {name}, which belongs in a server"
            for name in left
            if (production / "simulated" / name).exists()
        ]
        found += [f"{file} holds a password" for file in files_with(folder, secrets_of(servers))]
    for line in found or ["the same result, and no password in a file"]:
        sys.stdout.write(f"{line}\n")
    return len(found)


def timed(home: Path, variables: Mapping[str, str]) -> tuple[dict[str, object], float]:
    """The last line of a demo, and how long it took, seconds."""
    began = time.monotonic()
    return last_line(demo(home, **variables)), time.monotonic() - began


def tables(one: Lake, other: Lake) -> list[str]:
    """What differs between two lakes."""
    names = one.tables(), other.tables()
    if names[0] != names[1]:
        return [f"the lakes have other tables: {names[0]} {names[1]}"]
    found = []
    for name in names[0]:
        rows = [lake.scan(name).collect() for lake in (one, other)]
        if rows[0].height != rows[1].height:
            found.append(f"{name} has {rows[0].height} and {rows[1].height} rows")
        elif name not in OF_RUNS:
            kept = [frame.select(pl.exclude(*OF_THE_RUN)) for frame in rows]
            same = same_rows(*kept)
            sys.stdout.write(f"  {name}: {rows[0].height} rows {'alike' if same else 'DIFFER'}\n")
            if not same:
                found.append(f"{name} differs in {', '.join(differing(*kept))}")
        else:
            sys.stdout.write(f"  {name}: {rows[0].height} rows, as many\n")
    return found


def differing(one: pl.DataFrame, other: pl.DataFrame) -> list[str]:
    """Names of the columns that do not hold the same."""
    if one.schema != other.schema:
        return ["their schema"]
    return [name for name in one.columns if not same_rows(one.select(name), other.select(name))]


if __name__ == "__main__":
    sys.exit(bool(main()))
