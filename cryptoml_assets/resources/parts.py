"""More days than memory holds, put into a Delta table in one commit, part by part.

Delta's own writer keeps an open file for every day until it is done, so what it needs grows with
the range. Here each part's files are written as soon as its rows are there and named in the log
together at the end. Files of a run that died before are in no version, so no reader sees them.
"""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from cryptoml_assets.errors import LakeError
from cryptoml_assets.resources.delta import (
    DAY_COLUMN,
    NEXT_COMMIT,
    check_days,
    check_fits,
    check_types,
    configuration,
    days_changed,
    days_held,
    files_of_days,
    scan,
    widened,
)

#: Computes the rows of a part of the days.
Rows = Callable[[Sequence[date]], pl.DataFrame]


@dataclass(frozen=True)
class _Decision:
    """What becomes of a day: it is the ``same`` as in the files ``seen``, or what was ``added``."""

    seen: tuple[str, ...]
    same: bool
    rows: int
    added: AddAction | None


class Parts:
    """One write of several parts of days, which may have to be tried again."""

    def __init__(
        self, table: str, address: str, parts: Sequence[Sequence[date]], rows: Rows
    ) -> None:
        """Nothing is computed or written yet.

        Args:
            table: its name, for errors.
            address: where it is or will be.
            parts: the days, each in one part.
            rows: computes the rows of a part.
        """
        self._table, self._address, self._parts, self._compute = table, address, parts, rows
        self._decisions: dict[date, _Decision] = {}
        self._schema: pl.Schema | None = None

    @property
    def rows(self) -> int:
        """Rows of all days."""
        return sum(decision.rows for decision in self._decisions.values())

    @property
    def changed(self) -> tuple[date, ...]:
        """The days whose rows are not those that were stored, oldest first."""
        return tuple(sorted(day for day, each in self._decisions.items() if not each.same))

    def attempt(self, opened: Any | None) -> int:
        """Write what is not written yet and commit it all after the version that is ``opened``.

        Args:
            opened: the table, or none where it is still to be made.

        Returns:
            The table's version that holds it all.

        Raises:
            LakeError: rows of other days, or a schema the table cannot take.
            CommitFailedError: another writer came first. What was written is still good but for
                days that were to stay as they were: only their parts are computed again.
        """
        days = [day for part in self._parts for day in part]
        stored = files_of_days(opened, days) if opened is not None else {}
        for part in self._parts:
            if not all(self._stands(day, stored) for day in part):
                self._decide(opened, part, stored)
        if opened is None:
            self._create()
            return 0
        if changed := self.changed:
            kinds, rows = pl.Schema(opened.schema()), self._schema or pl.Schema()
            check_fits(self._table, kinds, rows)
            opened.create_write_transaction(
                self._added(),
                "overwrite",
                _delta(pl.Schema({**kinds, **rows})),
                [DAY_COLUMN],
                [(DAY_COLUMN, "in", [day.isoformat() for day in changed])],
                commit_properties=NEXT_COMMIT,
            )
        return int(opened.version()) + bool(changed)

    def _stands(self, day: date, stored: Mapping[date, tuple[str, ...]]) -> bool:
        decision = self._decisions.get(day)
        return decision is not None and (not decision.same or decision.seen == stored.get(day, ()))

    def _decide(
        self, opened: Any | None, part: Sequence[date], stored: Mapping[date, tuple[str, ...]]
    ) -> None:
        """Compute the rows of ``part`` and write those of the days that they change."""
        frame = self._checked(self._compute(part), part)
        changed = set(days_held(frame)) if opened is None else self._changed(opened, part, frame)
        for day in part:
            rows = frame.filter(pl.col(DAY_COLUMN) == day)
            written = day in changed and rows.height > 0
            self._decisions[day] = _Decision(
                seen=stored.get(day, ()),
                same=day not in changed,
                rows=rows.height,
                added=self._write(day, rows.drop(DAY_COLUMN)) if written else None,
            )

    def _checked(self, frame: pl.DataFrame, part: Sequence[date]) -> pl.DataFrame:
        check_types(self._table, frame)
        check_days(self._table, frame, part)
        self._schema = self._schema or frame.schema
        if frame.schema != self._schema:
            message = (
                f"lake table {self._table}: rows of {part[0]} have other columns than those before"
            )
            raise LakeError(message)
        return frame

    def _changed(self, opened: Any, part: Sequence[date], frame: pl.DataFrame) -> set[date]:
        kinds = pl.Schema(opened.schema())
        check_fits(self._table, kinds, frame.schema)
        if set(frame.columns) - set(kinds):
            return set(part)
        files = [file for files in files_of_days(opened, part).values() for file in files]
        before = widened(scan(opened, files).collect(), frame.schema)
        return set(days_changed(before, frame.sort(DAY_COLUMN, maintain_order=True)))

    def _write(self, day: date, rows: pl.DataFrame) -> AddAction:
        """Write the file of one day; no version of the table has it yet."""
        file = f"{DAY_COLUMN}={day.isoformat()}/part-{uuid.uuid4()}.snappy.parquet"
        content = io.BytesIO()
        rows.write_parquet(content, compression="snappy")
        _store(f"{self._address}/{file}", content.getbuffer())
        nulls = dict(zip(rows.columns, rows.null_count().row(0), strict=True))
        return AddAction(
            path=file,
            size=content.getbuffer().nbytes,
            partition_values={DAY_COLUMN: day.isoformat()},
            modification_time=int(time.time() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": rows.height, "nullCount": nulls}),
        )

    def _create(self) -> None:
        """Make the table with its rows.

        Raises:
            CommitFailedError: another writer made it meanwhile.
        """
        schema = self._schema or pl.Schema()
        try:
            create_table_with_add_actions(
                self._address,
                _delta(schema),
                self._added(),
                partition_by=[DAY_COLUMN],
                configuration=configuration(schema, by_days=True),
                commit_properties=NEXT_COMMIT,
            )
        except CommitFailedError:
            raise
        except DeltaError as error:
            if not DeltaTable.is_deltatable(self._address):
                raise
            raise CommitFailedError(str(error)) from error

    def _added(self) -> list[AddAction]:
        return [each.added for each in self._decisions.values() if each.added is not None]


def _delta(schema: pl.Schema) -> Schema:
    return Schema.from_arrow(pl.DataFrame(schema=schema).to_arrow().schema)


def _store(address: str, content: memoryview) -> None:
    from pyarrow import fs  # noqa: PLC0415  (a quarter of a second that only ranges need)

    system, path = (
        fs.FileSystem.from_uri(address) if "://" in address else (fs.LocalFileSystem(), address)
    )
    if "://" not in address:
        system.create_dir(path.rpartition("/")[0])
    with system.open_output_stream(path) as stream:
        stream.write(content)
