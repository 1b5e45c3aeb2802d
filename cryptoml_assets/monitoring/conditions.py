"""Automation conditions that reports of this room share."""

from __future__ import annotations

from typing import Any

import dagster as dg


def once_there_is(asset: str) -> dg.AutomationCondition[Any]:
    """True from the first materialisation of ``asset`` on: before it there is nothing to tell."""
    return ~dg.AutomationCondition.asset_matches(
        dg.AssetKey(asset), dg.AutomationCondition.missing()
    )
