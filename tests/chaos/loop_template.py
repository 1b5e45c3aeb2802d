"""A home in which a champion is served, the market has changed, and a report of it is unread.

python -m tests.chaos.loop_template HOME SERVING_ADDRESS
"""

from __future__ import annotations

import dataclasses
import os
import sys
from datetime import timedelta
from pathlib import Path

from cryptoml_assets.operations.loop import FULL
from cryptoml_assets.operations.loop_world import just_after, move_clock

#: Time after the change at which a candidate knows enough of the new ways to be approved.
LEARNT = timedelta(days=7)
PLAN = dataclasses.replace(
    FULL,
    settings={
        **FULL.settings,
        "CRYPTOML_RETRAIN_REPORTS": "1",
        # One retrain: its own reports are not asked for, and none is asked for twice.
        "CRYPTOML_RETRAIN_COOLDOWN": "1h",
        "CRYPTOML_SERVING_MAX_FEATURE_AGE": "30d",
    },
)


def environment(home: Path, serving: str) -> dict[str, str]:
    """Variables of all processes of the home, beside those that are no setting of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRYPTOML_")}
    own = {
        "CRYPTOML_INFERENCE_URL": serving,
        # Homes run side by side, and the service polls.
        "CRYPTOML_INFERENCE_ADMIN_URLS": "",
        "CRYPTOML_SERVING_ADMIN_PORT": "0",
        "DAGSTER_HOME": str(home / "simulated" / "dagster"),
    }
    return {**kept, **PLAN.environment(home), **own}


def main() -> None:
    import dagster as dg  # noqa: PLC0415

    from cryptoml_assets.operations.demo import Narrator, covered_days, ingest, train  # noqa: PLC0415
    from cryptoml_assets.operations.loop_watch import Watch  # noqa: PLC0415
    from cryptoml_assets.operations.processes import Children, free_port  # noqa: PLC0415
    from cryptoml_assets.operations.world import set_environment, start_sandbox  # noqa: PLC0415

    home, address = Path(sys.argv[1]), sys.argv[2]
    os.environ.update(environment(home, address))
    move_clock(home, just_after(PLAN.begins))
    narrator = Narrator.begin()
    with Children(home / "logs") as children:
        world = start_sandbox(children, frozen=None, port=free_port("127.0.0.1"))
        configured = set_environment({})
        ingest(configured, world, narrator)
        train(configured, narrator)
        now = just_after(PLAN.changes + LEARNT)
        move_clock(home, now)
        days = (PLAN.begins.date(), covered_days(configured, now)[1])
        with dg.DagsterInstance.get() as instance:
            watch = Watch(instance)
            ingested = ("raw_prices", "onchain_blocks", "network_metrics")
            for assets in (ingested, ("price_features", "onchain_features")):
                assert watch.execute(assets, days).success
            for asset in ("online_features", "feature_drift"):
                assert watch.execute((asset,)).success


if __name__ == "__main__":
    main()
