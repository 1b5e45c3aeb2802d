"""How the checks of this room say what they found."""

from __future__ import annotations

import dagster as dg


def faults_result(*, rows: int, **faults: int) -> dg.AssetCheckResult:
    """Passed where no fault was counted; says each that was."""
    named = [f"{count} {name.replace('_', ' ')}" for name, count in faults.items() if count]
    return dg.AssetCheckResult(
        passed=not named,
        description=", ".join(named) or f"{rows} rows",
        metadata={"rows": rows, **faults},
    )
