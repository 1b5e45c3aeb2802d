"""When a drift report asks for a retrain."""

from __future__ import annotations

from datetime import timedelta


def retrain_request(
    drifted_share: float, threshold: float, reported_at: float, cooldown: timedelta
) -> str | None:
    """The run key of the retrain a drift report asks for, or none.

    Reports within one ``cooldown`` window share a key, so the scheduler starts one run for all of
    them. ``reported_at`` is in seconds since the epoch.
    """
    if drifted_share < threshold:
        return None
    return f"drift-{int(reported_at // cooldown.total_seconds())}"
