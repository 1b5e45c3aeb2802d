"""When a drift report asks for a retrain."""

from __future__ import annotations

from datetime import datetime, timedelta


def why_no_retrain(
    drifted_share: float,
    threshold: float,
    *,
    reported_at: datetime,
    last_asked_at: datetime | None,
    cooldown: timedelta,
) -> str | None:
    """Why a drift report asks for no retrain, in words; none where it does.

    Args:
        drifted_share: share of the judged features that drifted, 0 to 1.
        threshold: share from which on a retrain is due.
        reported_at: when the report was made.
        last_asked_at: when drift last asked for a retrain, if it ever did.
        cooldown: least time between two retrains that drift asks for.
    """
    if drifted_share < threshold:
        return f"{drifted_share:.0%} of features drifted, below {threshold:.0%}"
    if last_asked_at is not None and reported_at - last_asked_at < cooldown:
        return f"a retrain was asked for at {last_asked_at:%Y-%m-%d %H:%M} UTC, within {cooldown}"
    return None
