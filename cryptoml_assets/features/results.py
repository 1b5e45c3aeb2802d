"""How the checks of this room say what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

_SHOWN = 20


def faults_result(*, rows: int, **faults: int) -> dg.AssetCheckResult:
    """Passed where no fault was counted; says each that was."""
    named = _named(faults)
    return dg.AssetCheckResult(
        passed=not named,
        description=", ".join(named) or f"{rows} rows",
        metadata={"rows": rows, **faults},
    )


def proof_result(
    name: str,
    found: Sequence[object],
    *,
    rows: int,
    features: int,
    days: Sequence[date],
    seed: int,
    faults: Mapping[str, int],
) -> dg.AssetCheckResult:
    """Passed where a proof has found no difference, and no fault was counted beside it.

    Args:
        name: The check.
        found: The differences, each with a text that names its place.
        rows: Stored rows that were compared.
        features: Features of each.
        days: The days they are of.
        seed: What drew them.
        faults: Counts of other faults, over all rows.
    """
    said = [*_named(faults), *map(str, found[:_SHOWN])]
    fine = f"{rows * features} values compared" if rows else "no rows"
    return dg.AssetCheckResult(
        check_name=name,
        passed=not said,
        description="; ".join(said) or fine,
        metadata={
            "days": ", ".join(day.isoformat() for day in days),
            "compared": rows * features,
            "different": len(found),
            "seed": seed,
            **faults,
        },
    )


def _named(faults: Mapping[str, int]) -> list[str]:
    return [f"{count} {name.replace('_', ' ')}" for name, count in faults.items() if count]
