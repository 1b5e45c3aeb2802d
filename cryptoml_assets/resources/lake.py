"""The lake: Delta tables in one folder or bucket, replaced by days in single commits.

A table is a set of rows. Tables written by days are partitioned by ``date`` and are read back
oldest day first, within a day in the order written; other tables promise no order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from cryptoml_assets.errors import LakeError

#: The column that partitions every table written by days.
DAY_COLUMN = "date"
#: Seconds to wait before each new try after another writer's commit won.
_CONFLICT_DELAYS = (0.05, 0.1, 0.2, 0.4, 0.8)
# The commit must be the next one after the version it was made from. Else, where that version holds
# no file, another writer's rows that came in between would stay beside the new ones.
_FIRST = CommitProperties(max_commit_retries=0)
_PLAIN_TYPES = frozenset(
    {
        pl.String,
        pl.Binary,
        pl.Boolean,
        pl.Date,
        pl.Decimal,
        pl.Float32,
        pl.Float64,
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.Int64,
    }
)
_INSTANT = pl.Datetime("us", "UTC")


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
        """Whether ``table`` has ever been written."""
        return bool(DeltaTable.is_deltatable(self.address(table)))

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
        schema = pl.Schema(opened.schema())
        partitioned = opened.metadata().partition_columns == [DAY_COLUMN]
        if days is None:
            files = opened.file_uris()
        elif not partitioned:
            message = f"lake table {table} is not stored by days"
            raise LakeError(message)
        else:
            wanted = [day.isoformat() for day in days]
            asked = [(DAY_COLUMN, "in", wanted)]
            files = opened.file_uris(file_pruning_predicate=asked) if wanted else []
        if not files:
            return pl.LazyFrame(schema=schema)
        # Not pl.scan_delta: it skips files by the log's statistics, and those are clipped to 64
        # bits for decimals; and it lists the newest commit first, not the oldest day.
        return pl.scan_parquet(
            sorted(files),
            schema=pl.Schema({name: kind for name, kind in schema.items() if name != DAY_COLUMN})
            if partitioned
            else schema,
            hive_partitioning=partitioned,
            hive_schema={DAY_COLUMN: pl.Date} if partitioned else None,
            missing_columns="insert",
        ).select(schema.names())

    def replace_days(self, table: str, frame: pl.DataFrame, days: Sequence[date]) -> int:
        """Make ``frame`` the rows of ``days`` in ``table``, in one commit; return the version.

        Other days stay as they are. A day without rows in ``frame`` is emptied. The table is
        created when missing and gains the columns it lacks. Nothing is committed when the stored
        rows are already the same.

        Raises:
            LakeError: rows outside ``days``, or a schema the table cannot take.
        """
        _check_types(table, frame)
        if frame.schema.get(DAY_COLUMN) != pl.Date:
            message = f"lake table {table}: rows need a column {DAY_COLUMN} of type Date"
            raise LakeError(message)
        _check_days(table, frame, days)
        ordered = frame.sort(DAY_COLUMN, maintain_order=True)

        def commit() -> None:
            if self.exists(table):
                self._check_fits(table, frame.schema)
                if not days or _same_rows(self.scan(table, days).collect(), ordered):
                    return
            names = ", ".join(f"DATE '{day.isoformat()}'" for day in days)
            self._write(
                table,
                ordered,
                mode="overwrite",
                schema_mode="merge",
                predicate=f"{DAY_COLUMN} IN ({names})" if days else None,
                partition_by=[DAY_COLUMN],
            )

        return self._commit(table, commit)

    def overwrite(self, table: str, frame: pl.DataFrame) -> int:
        """Make ``frame`` the whole content of ``table``; return the version.

        Nothing is committed when the stored rows are already the same.

        Raises:
            LakeError: a type the lake cannot keep, or a table that is stored by days.
        """
        _check_types(table, frame)

        def commit() -> None:
            if self.exists(table):
                self._check_not_by_days(table)
                if _same_rows(self.scan(table).collect(), frame):
                    return
            self._write(
                table, frame, mode="overwrite", schema_mode="overwrite", commit_properties=_FIRST
            )

        return self._commit(table, commit)

    def append(self, table: str, frame: pl.DataFrame) -> int:
        """Add the rows of ``frame`` to ``table``, created when missing; return the version.

        Raises:
            LakeError: a schema the table cannot take, or a table that is stored by days.
        """
        _check_types(table, frame)

        def commit() -> None:
            if self.exists(table):
                self._check_not_by_days(table)
                self._check_fits(table, frame.schema)
            self._write(table, frame, mode="append", schema_mode="merge")

        return self._commit(table, commit)

    def _open(self, table: str, version: int | None = None) -> Any:
        try:
            return DeltaTable(self.address(table), version=version)
        except TableNotFoundError:
            known = ", ".join(self.tables()) or "none"
            message = f"lake {self.uri} has no table {table}; it has: {known}"
            raise LakeError(message) from None
        except DeltaError as error:
            message = f"lake table {table}, version {version}: {error}"
            raise LakeError(message) from error

    def _write(
        self, table: str, frame: pl.DataFrame, partition_by: list[str] | None = None, **how: Any
    ) -> None:
        if self.exists(table):
            write_deltalake(self.address(table), frame, **how)
            return
        write_deltalake(
            self.address(table),
            frame,
            partition_by=partition_by,
            configuration=_configuration(frame.schema, by_days=partition_by is not None),
            **how | {"commit_properties": _FIRST},
        )

    def _commit(self, table: str, commit: Callable[[], None]) -> int:
        """Run ``commit``, again where another writer's commit to the same rows came first."""
        for delay in (*_CONFLICT_DELAYS, None):
            try:
                commit()
            except CommitFailedError as error:
                if delay is None:
                    tries = len(_CONFLICT_DELAYS) + 1
                    message = f"lake table {table}: other writers won {tries} times: {error}"
                    raise LakeError(message) from error
                time.sleep(delay)
            else:
                break
        return self.version(table)

    def _check_not_by_days(self, table: str) -> None:
        if self._open(table).metadata().partition_columns:
            message = f"lake table {table} is stored by days; replace its days instead"
            raise LakeError(message)

    def _check_fits(self, table: str, schema: Mapping[str, pl.DataType]) -> None:
        stored = self.schema(table)
        wrong = [
            f"{name} is {kind} in the table, {schema.get(name, 'absent')} in the rows"
            for name, kind in stored.items()
            if schema.get(name) != kind
        ]
        if wrong:
            message = f"lake table {table}: {'; '.join(wrong)}"
            raise LakeError(message)


def _configuration(schema: pl.Schema, *, by_days: bool) -> dict[str, str]:
    """Table properties that readers of the log rely on."""
    # The log's statistics of decimals are clipped to 64 bits; a reader that skips files by them
    # would lose rows. An overwritten table may change columns, so it keeps none.
    kept = [name for name, kind in schema.items() if not isinstance(kind, pl.Decimal)]
    statistics = (
        {"delta.dataSkippingStatsColumns": ",".join(kept)}
        if by_days
        else {"delta.dataSkippingNumIndexedCols": "0"}
    )
    # Every version stays readable, so that a model can be trained again on the rows it saw.
    return {"delta.enableExpiredLogCleanup": "false", **statistics}


def _check_types(table: str, frame: pl.DataFrame) -> None:
    """Refuse types that come back from Delta as another type."""
    for name, kind in frame.schema.items():
        if kind.base_type() not in _PLAIN_TYPES and kind != _INSTANT:
            message = (
                f"lake table {table}: column {name} is {kind}; the lake keeps strings, booleans, "
                f"signed integers, floats, decimals, dates and {_INSTANT} instants"
            )
            raise LakeError(message)


def _check_days(table: str, frame: pl.DataFrame, days: Sequence[date]) -> None:
    stray = frame.filter(~pl.col(DAY_COLUMN).is_in(list(days)).fill_null(value=False))
    if stray.height:
        found = ", ".join(str(day) for day in stray[DAY_COLUMN].unique().sort().head(5))
        message = f"lake table {table}: {stray.height} rows outside the days to replace: {found}"
        raise LakeError(message)


def _same_rows(stored: pl.DataFrame, frame: pl.DataFrame) -> bool:
    """Whether both hold the same rows, each as often, in whatever order."""
    if stored.schema != frame.schema or stored.height != frame.height:
        return False
    return stored.equals(frame) or stored.sort(pl.all()).equals(frame.sort(pl.all()))
