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

#: The tag in which Dagster keeps a data version.
VERSION_TAG = "dagster/data_version"
#: The tag that says what a day was computed from; see :class:`~cryptoml_assets.reads.Reads`.
INPUTS_TAG = "cryptoml/inputs"
#: Of the events that Dagster writes of a range: until ours follow, their days are out of date.
_UNTOLD = {INPUTS_TAG: "untold"}
_OWN = "dagster/data_version_is_user_provided"


def versioned(
    stored: Stored,
    lake: Lake,
    key: dg.AssetKey,
    days: Sequence[date],
    *,
    metadata: Mapping[str, Any],
    by_day: Mapping[date, Mapping[str, Any]] | None = None,
    inputs: Mapping[date, str] | None = None,
) -> Iterator[dg.MaterializeResult[Stored] | dg.AssetMaterialization]:
    """What a run over ``days`` tells of the table it has written, with each day's data version.

    Args:
        stored: the table as the run left it.
        lake: where the table is, under the last part of ``key``.
        key: the asset.
        days: the partitions of the run, oldest first.
        metadata: what to tell of the run; of a range run, with its newest day.
        by_day: what to tell of a single day. Days outside of the run are those whose rows it
            changed; each gets an event of its own.
        inputs: for each of ``days`` what it was computed from. Then the versions told are those of
            the run's own write, even where another run has written since.
    """
    at = stored.version if inputs else None
    told = {day: dict(figures) for day, figures in (by_day or {}).items()}
    others = sorted(told.keys() - set(days))
    if len(days) == 1:
        version = lake.day_versions(key.path[-1], days, at)[days[0]]
        yield dg.MaterializeResult(
            value=stored,
            metadata={**metadata, **told.get(days[0], {})},
            data_version=dg.DataVersion(version),
            tags={INPUTS_TAG: inputs[days[0]]} if inputs else None,
        )
    else:
        yield dg.MaterializeResult(
            value=stored, metadata=metadata, tags=_UNTOLD if inputs else None
        )
        told[days[-1]] = {**metadata, **told.get(days[-1], {})}
        others = [*days, *others]
    yield from version_events(
        lake, key, {day: told.get(day, {}) for day in others}, at=at, inputs=inputs
    )


def version_events(
    lake: Lake,
    key: dg.AssetKey,
    told: Mapping[date, Mapping[str, Any]],
    *,
    at: int | None = None,
    inputs: Mapping[date, str] | None = None,
) -> Iterator[dg.AssetMaterialization]:
    """For each day an event with its data version, its rows, and what is ``told`` of it.

    Args:
        lake: where the table is, under the last part of ``key``.
        key: the asset.
        told: metadata of each day.
        at: version of the table whose rows are told of; the newest when not given.
        inputs: what each day was computed from, where that is known.
    """
    table, days = key.path[-1], list(told)
    versions, rows = lake.day_versions(table, days, at), lake.day_rows(table, days, at)
    for day, figures in told.items():
        tags = {VERSION_TAG: versions[day], _OWN: "true"}
        yield dg.AssetMaterialization(
            asset_key=key,
            partition=day.isoformat(),
            description="Content of the day, as its data version",
            metadata={"dagster/row_count": rows[day], **figures},
            tags={**tags, INPUTS_TAG: inputs[day]} if inputs else tags,
        )
