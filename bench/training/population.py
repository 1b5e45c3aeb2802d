"""Rows a second against the size of the population, vectorised, where JAX sees a GPU."""

from __future__ import annotations

import argparse
from typing import Any

from bench.report import Claim
from bench.training.sides import Sides
from bench.training.world import Config

#: A device is saturated by the least population that reaches this share of the most rows a second.
_SATURATED = 0.9


def claims(options: argparse.Namespace, sides: Sides) -> list[Claim]:
    said = sides.population(Config(5), options.sizes)
    if not said["sizes"]:
        print(f"  JAX sees no GPU here ({said['kind']}): no figure for one")
        return []
    print(f"  {said['kind']}, the newest fold's rows")
    for each in said["sizes"]:
        print(f"  {_line(each)}")
    single = [each for each in said["sizes"] if each["precision"] == "float32"]
    most = max(each["rows_per_s"] for each in single)
    first = next(each for each in single if each["rows_per_s"] >= _SATURATED * most)
    print(f"  saturated ({_SATURATED:.0%} of the most) by a population of {first['size']}")
    alone = single[0]
    ratio = round(first["rows_per_s"] / alone["rows_per_s"], 3)
    claim = f"{said['kind']}, population of {first['size']}: of {alone['size']}"
    rates = (round(each["rows_per_s"], 1) for each in (first, alone))
    return [Claim(claim, *rates, "rows/s", ratio, None)]


def _line(found: dict[str, Any]) -> str:
    used = (
        f", utilisation {found['utilisation']:.0f} %, {found['memory_mib']:.0f} MiB"
        if "utilisation" in found
        else ""
    )
    alone = "" if found["fitted"] else ", did not fit at once: one by one"
    return (
        f"population {found['size']:>3}, {found['precision']}: {found['rows_per_s']:.4g} rows/s"
        f"{used}, compiled in {found['compile_seconds']:.1f} s{alone}"
    )
