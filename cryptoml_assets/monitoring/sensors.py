"""The sensor that keeps the graph's assets up to date."""

from __future__ import annotations

import warnings

import dagster as dg

with warnings.catch_warnings():
    # The code location evaluates it, which the daemon could not: what features follow is a
    # condition of our own. Dagster calls the option beta.
    warnings.simplefilter("ignore", dg.BetaWarning)
    #: Evaluates the automation conditions of every asset: stale ones are materialised again.
    keep_fresh = dg.AutomationConditionSensorDefinition(
        "keep_fresh",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Materialises again what is stale, day by day",
        use_user_code_server=True,
    )
