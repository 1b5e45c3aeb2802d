"""The lake: Delta tables in one folder or bucket, replaced by days in single commits.

A table is a set of rows. Tables written by days are partitioned by ``date`` and are read back
oldest day first, within a day in the order written; other tables promise no order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from cryptoml_assets.errors import LakeError
from cryptoml_assets.resources.conflicts import committed
from cryptoml_assets.resources.delta import (
    DAY_COLUMN,
    NEXT_COMMIT,
    check_days,
    check_fits,
    check_types,
    configuration,
    days_changed,
    days_held,
    files_in,
    replace,
    require_by_days,
    require_not_by_days,
    same_rows,
    scan,
    widened,
)
from cryptoml_assets.resources.parts import Parts, Rows

#: What a store's own words must not carry on: who asks and with which signature, and colours.
_UNTOLD = re.compile(r"(?<=://)[^/\s]*@|(?<=\S)\?\S+|\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Stored:
    """Rows that a table holds after a write.

    Attributes:
        version: the table's newest version.
        rows: rows of the days that were asked for, changed or not.
        days_changed: the days whose rows the write changed, oldest first.
    """

    version: int
    rows: int
    days_changed: tuple[date, ...] = ()


@dataclass(frozen=True)
class Lake:
    """The Delta tables under ``uri``, a folder or an ``s3://`` address.

    Object stores take their credentials from the environment, as the stores' own tools do.
    """

    uri: str

    def address(self, table: str) -> str:
        """Where ``table`` lives, whether or not it exists."""
        return f"{self.uri.rstrip('/')}/{table}"

    def exists(self, table: str) -> bool:
        """Whether ``table`` has ever been written.

        Raises:
            LakeError: the store does not answer, so that nobody knows.
        """
        try:
            return bool(DeltaTable.is_deltatable(self.address(table)))
        except (DeltaError, OSError) as error:
            raise LakeError(_unreadable(table, error)) from None

    def tables(self) -> tuple[str, ...]:
        """Names of all tables, sorted."""
        from pyarrow import fs  # noqa: PLC0415  (a quarter of a second that only listings need)

        remote = "://" in self.uri
        system, root = (
            fs.FileSystem.from_uri(self.uri) if remote else (fs.LocalFileSystem(), self.uri)
        )
        entries = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
        folders = (entry.base_name for entry in entries if entry.type is fs.FileType.Directory)
        return tuple(sorted(name for name in folders if self.exists(name)))

    def version(self, table: str) -> int:
        """Number of the newest commit of ``table``.

        Raises:
            LakeError: no such table.
        """
        return int(self._open(table).version())

    def row_count(self, table: str) -> int:
        """Rows of ``table`` in its newest version.

        Raises:
            LakeError: no such table.
        """
        return int(self.scan(table).select(pl.len()).collect().item())

    def schema(self, table: str) -> pl.Schema:
        """Column names and types of ``table`` in its newest version.

        Raises:
            LakeError: no such table.
        """
        return pl.Schema(self._open(table).schema())

    def scan(
        self, table: str, days: Sequence[date] | None = None, version: int | None = None
    ) -> pl.LazyFrame:
        """Rows of ``table`` as of this call, lazily: all, or those of exactly ``days``.

        Only the files of the asked days are opened, and later commits do not change what the
        frame holds. No day asked for, or none stored, gives an empty frame of the table's schema.

        Raises:
            LakeError: no such table or version, or ``days`` of a table that has none.
        """
        opened = self._open(table, version)
        if days is None:
            return scan(opened, opened.file_uris())
        require_by_days(table, opened)
        return scan(opened, files_in(opened, days))

    def day_versions(
        self, table: str, days: Sequence[date] | None = None, version: int | None = None
    ) -> dict[date, str]:
        """For each of ``days`` a text that changes when, and only when, its rows are rewritten.

        Args:
            table: a table stored by days.
            days: which; when not given, those with rows, oldest first.
            version: of the table; the newest when not given.

        Raises:
            LakeError: no such table or version.
        """
        paths = pl.col("path").sort().str.join("\n")
        files = dict(self._by_day(table, paths, version).iter_rows())
        return {
            day: hashlib.sha256(files.get(day, "").encode()).hexdigest()
            for day in (sorted(files) if days is None else days)
        }

    def day_rows(
        self, table: str, days: Sequence[date], version: int | None = None
    ) -> dict[date, int]:
        """How many rows ``table`` has of each of ``days``, told by its log alone.

        Raises:
            LakeError: no such table or version.
        """
        rows = dict(self._by_day(table, pl.col("num_records").sum(), version).iter_rows())
        return {day: int(rows.get(day, 0)) for day in days}

    def replace_days(self, table: str, frame: pl.DataFrame, days: Sequence[date]) -> int:
        """Make ``frame`` the rows of ``days`` in ``table``, in one commit; return the version.

        Other days stay as they are. A day without rows in ``frame`` is emptied. The table is
        created when missing and gains the columns it lacks. Nothing is committed when the stored
        rows are already the same.

        Raises:
            LakeError: rows outside ``days``, or a schema the table cannot take.
        """
        return self.rewrite_days(table, days, lambda _: frame, frame.schema).version

    def rewrite_days(
        self,
        table: str,
        days: Sequence[date],
        change: Callable[[pl.DataFrame], pl.DataFrame],
        schema: Mapping[str, Any],
    ) -> Stored:
        """Put ``change(rows of days)`` in the place of the rows of ``days``, in one commit.

        The commit is made only if the table is still at the version the rows were read from; else
        the new rows are read and changed again, so that no other writer's rows are lost. Days whose
        rows stay the same are not written, and without a changed day nothing is committed.

        Args:
            table: created when missing; gains the columns of the new rows that it lacks.
            days: days whose rows are handed over and replaced.
            change: gets the rows as ``schema`` names them, an empty frame where there are none.
            schema: columns of the rows; those the table lacks are null.

        Raises:
            LakeError: rows outside ``days``, a schema the table cannot take, or other writers that
                came first every time.
        """

        def attempt() -> Stored:
            opened = self._open(table) if self.exists(table) else None
            before = None
            if opened is not None:
                require_by_days(table, opened)
                before = widened(scan(opened, files_in(opened, days)).collect(), schema)
            frame = change(pl.DataFrame(schema=schema) if before is None else before)
            check_types(table, frame)
            check_days(table, frame, days)
            ordered = frame.sort(DAY_COLUMN, maintain_order=True)
            if opened is None or before is None:
                self._create(table, ordered, daily=True)
                return Stored(self.version(table), frame.height, days_held(ordered))
            kinds = pl.Schema(opened.schema())
            check_fits(table, kinds, frame.schema)
            widens = set(frame.columns) - set(kinds)
            changed = tuple(sorted(set(days))) if widens else days_changed(before, ordered)
            if changed:
                replace(opened, ordered, changed, stored=not before.is_empty())
            return Stored(int(opened.version()), frame.height, changed)

        return committed(table, attempt)

    def replace_parts(self, table: str, parts: Sequence[Sequence[date]], rows: Rows) -> Stored:
        """Make what ``rows`` gives for each of ``parts`` the rows of its days, in one commit.

        As :meth:`replace_days` for all days, but with the rows of one part in memory at a time. A
        run that dies leaves the table as it was.

        Args:
            table: created when missing; gains the columns of the new rows that it lacks.
            parts: the days, each in one part.
            rows: computes the rows of a part; called again for parts that are to stay as they are
                and were changed by another writer meanwhile.

        Raises:
            LakeError: rows outside of a part's days, a schema the table cannot take, or other
                writers that came first every time.
        """
        if len(parts) == 1:
            frame = rows(parts[0])
            return self.rewrite_days(table, parts[0], lambda _: frame, frame.schema)
        written = Parts(table, self.address(table), parts, rows)

        def attempt() -> Stored:
            opened = self._open(table) if self.exists(table) else None
            if opened is not None:
                require_by_days(table, opened)
            version = written.attempt(opened)
            return Stored(version, written.rows, written.changed)

        return committed(table, attempt)

    def overwrite(self, table: str, frame: pl.DataFrame) -> int:
        """Make ``frame`` the whole content of ``table``; return the version.

        Nothing is committed when the stored rows are already the same.

        Raises:
            LakeError: a type the lake cannot keep, or a table that is stored by days.
        """
        check_types(table, frame)

        def commit() -> None:
            if self.exists(table):
                require_not_by_days(table, self._open(table))
                if same_rows(self.scan(table).collect(), frame):
                    return
            self._write(
                table,
                frame,
                mode="overwrite",
                schema_mode="overwrite",
                commit_properties=NEXT_COMMIT,
            )

        committed(table, commit)
        return self.version(table)

    def append(self, table: str, frame: pl.DataFrame) -> int:
        """Add the rows of ``frame`` to ``table``, created when missing; return the version.

        Raises:
            LakeError: a schema the table cannot take, or a table that is stored by days.
        """
        check_types(table, frame)

        def commit() -> None:
            if self.exists(table):
                require_not_by_days(table, self._open(table))
                check_fits(table, self.schema(table), frame.schema)
            self._write(table, frame, mode="append", schema_mode="merge")

        committed(table, commit)
        return self.version(table)

    def extend(
        self,
        table: str,
        more: Callable[[pl.DataFrame], pl.DataFrame],
        schema: Mapping[str, Any],
    ) -> int:
        """Add ``more(all rows)`` to ``table``, in one commit; return the version, -1 without one.

        The commit is made only if the table is still at the version the rows were read from; else
        they are read again. So of two writers each sees what the other has added, and rows can
        depend on those before them.

        Args:
            table: created when missing.
            more: gets all rows, an empty frame of ``schema`` where there is no table; without rows
                to add nothing is committed.
            schema: columns of the rows.

        Raises:
            LakeError: a schema the table cannot take, a table that is stored by days, or other
                writers that came first every time.
        """

        def attempt() -> int:
            if not self.exists(table):
                frame = more(pl.DataFrame(schema=schema))
                check_types(table, frame)
                if frame.is_empty():
                    return -1
                self._create(table, frame, daily=False)
                return 0
            opened = self._open(table)
            require_not_by_days(table, opened)
            frame = more(scan(opened, opened.file_uris()).collect())
            check_types(table, frame)
            check_fits(table, pl.Schema(opened.schema()), frame.schema)
            if not frame.is_empty():
                write_deltalake(
                    opened,
                    frame,
                    mode="append",
                    schema_mode="merge",
                    commit_properties=NEXT_COMMIT,
                )
            return int(opened.version())

        return committed(table, attempt)

    def _open(self, table: str, version: int | None = None) -> Any:
        try:
            return DeltaTable(self.address(table), version=version)
        except TableNotFoundError:
            known = ", ".join(self.tables()) or "none"
            message = f"lake {self.uri} has no table {table}; it has: {known}"
            raise LakeError(message) from None
        except (DeltaError, OSError) as error:
            asked = table if version is None else f"{table}, version {version}"
            raise LakeError(_unreadable(asked, error)) from None

    def _by_day(self, table: str, figure: pl.Expr, version: int | None) -> pl.DataFrame:
        """Each day that has files, and ``figure`` of their paths and ``num_records``."""
        actions = pl.DataFrame(self._open(table, version).get_add_actions(flatten=True))
        of_day = pl.col(f"partition.{DAY_COLUMN}").cast(pl.String).str.to_date()
        return actions.group_by(of_day.alias("day")).agg(figure.alias("figure"))

    def _write(self, table: str, frame: pl.DataFrame, **how: Any) -> None:
        if self.exists(table):
            write_deltalake(self.address(table), frame, **how)
        else:
            self._create(table, frame, daily=False)

    def _create(self, table: str, frame: pl.DataFrame, *, daily: bool) -> None:
        """Make the table with its first rows.

        Raises:
            CommitFailedError: another writer made it meanwhile.
        """
        try:
            write_deltalake(
                self.address(table),
                frame,
                mode="error",
                partition_by=[DAY_COLUMN] if daily else None,
                configuration=configuration(frame.schema, by_days=daily),
                commit_properties=NEXT_COMMIT,
            )
        except CommitFailedError:
            raise
        except DeltaError as error:
            if not self.exists(table):
                raise
            raise CommitFailedError(str(error)) from error


def _unreadable(table: str, error: Exception) -> str:
    """What a store says of a table, in one line and without a secret."""
    told = " ".join(_UNTOLD.sub("", str(error)).split())
    return f"lake table {table} cannot be read: {told}"
