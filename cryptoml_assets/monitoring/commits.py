"""When a table's versions were written: the order in which rows and what was made of them came.

Instants of commits are those of the machine that wrote, not of the world whose rows a table holds:
in a world whose clock stands still or runs faster, only they tell what came first.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deltalake import DeltaTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_assets.resources.lake import Lake


@dataclass(frozen=True)
class Commit:
    """One version of a table, and when it was written (UTC, by the writer's clock)."""

    version: int
    at: datetime


def commits(lake: Lake, table: str, after: int | None = None) -> tuple[Commit, ...]:
    """The versions of an existing table, oldest first; those after ``after`` where given."""
    opened = DeltaTable(lake.address(table))
    limit = None if after is None else int(opened.version()) - after
    if limit is not None and limit <= 0:
        return ()
    return tuple(
        Commit(int(each["version"]), datetime.fromtimestamp(each["timestamp"] / 1000, UTC))
        for each in sorted(opened.history(limit), key=lambda each: int(each["version"]))
    )


def version_by(known: Sequence[Commit], when: datetime) -> int | None:
    """The newest of some versions, oldest first, written by an instant; none where none was."""
    place = bisect_right([each.at for each in known], when)
    return known[place - 1].version if place else None
