"""Data versions: what tells Dagster that a day's rows are others than before.

Dagster derives the version of an asset without one from its code and inputs, so a root table whose
rows change would never make what is downstream stale. And it gives all days of a range run one
version, so each day's own is told in an event of its own, after those of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from cryptoml_assets.resources.lake import Lake, Stored

#: The tags in which Dagster keeps a version that an asset says itself.
_TAGS = ("dagster/data_version", "dagster/data_version_is_user_provided")


def versioned(
    stored: Stored,
    lake: Lake,
    key: dg.AssetKey,
    days: Sequence[date],
    *,
    metadata: Mapping[str, Any],
    others: Mapping[date, Mapping[str, Any]] | None = None,
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    """What a run over ``days`` tells of the table it has written, with each day's data version.

    Args:
        stored: the table as the run left it.
        lake: where the table is, under the last part of ``key``.
        key: the asset.
        days: the partitions of the run.
        metadata: what to tell of the run.
        others: days outside of the run whose rows it changed, with what to tell of each.
    """
    others = others or {}
    versions = lake.day_versions(key.path[-1], [*days, *others])
    alone = dg.DataVersion(versions[days[0]]) if len(days) == 1 else None
    yield dg.MaterializeResult(value=stored, metadata=metadata, data_version=alone)
    for day in (*(() if alone else days), *others):
        yield dg.AssetMaterialization(
            asset_key=key,
            partition=day.isoformat(),
            description="Content of the day, as its data version",
            metadata=others.get(day, {}),
            tags=dict(zip(_TAGS, (versions[day], "true"), strict=True)),
        )
