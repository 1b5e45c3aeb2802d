"""What a stored day was made of and by, as its newest event says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from cryptoml_assets.errors import LakeError
from cryptoml_assets.events import newest_events
from cryptoml_assets.features.catalog import version_of
from cryptoml_assets.features.feature import TABLES, Table

#: Metadata of an event of a day: version of each input table that the run read.
LAKE_VERSIONS = "lake_versions"
#: Metadata of an event of a day: version of the formulas that computed it.
FORMULAS = "formulas"


def versions_read(
    instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[date]
) -> dict[date, Mapping[str, int]]:
    """For each of ``days`` the version of each table that its newest rows were made of.

    A day whose events do not say is left out.
    """
    found: dict[date, Mapping[str, int]] = {}
    for day, _, event in newest_events(instance, key, days):
        entry = event.metadata.get(LAKE_VERSIONS)
        versions = entry.value if entry is not None else None
        if isinstance(versions, Mapping):
            found[day] = {str(table): int(str(number)) for table, number in versions.items()}
    return found


def of_other_formulas(
    instance: dg.DagsterInstance, table: Table, days: Sequence[date]
) -> tuple[date, ...]:
    """Which of ``days`` were last computed by other formulas than the catalog's, oldest first.

    Days that no event tells of were not computed by the graph, and are not among them.
    """
    ours = version_of(table)
    return tuple(
        sorted(
            day
            for day, _, event in newest_events(instance, dg.AssetKey(table), days)
            if FORMULAS not in event.metadata or event.metadata[FORMULAS].value != ours
        )
    )


def refuse_other_formulas(instance: dg.DagsterInstance, days: Sequence[date]) -> None:
    """Refuse rows that the catalog would compute otherwise: their names promise its formulas.

    Raises:
        LakeError: naming the days to materialise.
    """
    for table in TABLES:
        if others := of_other_formulas(instance, table, days):
            message = (
                f"{len(others)} days of {table}, {others[0]} to {others[-1]}, were computed by "
                "other formulas than the catalog's: materialise those days first"
            )
            raise LakeError(message)
