"""When the automation asks for an asset, minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from cryptoml_assets.resources.io_manager import LakeIOManager

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The instant of minute 0.
BEGAN = datetime(2024, 1, 1, 9, 30, tzinfo=UTC)


def minutes_asked(
    asset: dg.AssetsDefinition,
    given: Sequence[str],
    minutes: Sequence[int],
    made: Mapping[int, str],
) -> list[int]:
    """The minutes at which an asset that is made whenever it is asked for was asked for.

    Args:
        asset: whose condition is evaluated.
        given: names of the assets beside it, which nobody makes.
        minutes: when it is evaluated.
        made: minute → asset that is there from that minute on.
    """
    definitions = dg.Definitions(
        [asset, *(dg.AssetSpec(name) for name in given)],
        resources={
            "lake": LakeIOManager(uri="unused"),
            "tracker": dg.ResourceDefinition.none_resource(),
        },
    )
    asked, cursor = [], None
    with dg.DagsterInstance.ephemeral() as instance:
        for minute in minutes:
            if minute in made:
                instance.report_runless_asset_event(dg.AssetMaterialization(made[minute]))
            result = dg.evaluate_automation_conditions(
                definitions,
                instance,
                cursor=cursor,
                evaluation_time=BEGAN + timedelta(minutes=minute),
            )
            cursor = result.cursor
            if result.total_requested:
                asked.append(minute)
                instance.report_runless_asset_event(dg.AssetMaterialization(asset.key))
    return asked
