"""How assets' frames reach the lake and come back: exactly the partitions of the run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.errors import LakeError
from cryptoml_assets.resources.lake import Lake, Stored


class LakeIOManager(dg.ConfigurableIOManager):
    """Keeps each asset in the lake table named after the last part of its key.

    A partitioned output replaces all of the run's days in one commit, an unpartitioned one the
    whole table. An input is a lazy frame of exactly the days its partition mapping asks for, or
    an eager one where the parameter is annotated ``pl.DataFrame``. An asset that writes its table
    itself hands over what it ``Stored``, and is only reported.
    """

    uri: str

    @property
    def lake(self) -> Lake:
        """The lake this manager writes to."""
        return Lake(self.uri)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store ``obj``, a polars frame or what is ``Stored``; report rows, days and version.

        Raises:
            LakeError: not a frame, rows outside the run's days, or a schema that does not fit.
        """
        table = context.asset_key.path[-1]
        days = _days(table, context.asset_partition_keys) if context.has_asset_partitions else None
        stored, schema = (
            (obj, self.lake.schema(table))
            if isinstance(obj, Stored)
            else self._store(table, obj, days)
        )
        metadata: dict[str, Any] = {
            "dagster/row_count": stored.rows,
            "dagster/uri": self.lake.address(table),
            "table_version": stored.version,
        }
        # The columns as written would hide those that the asset describes.
        if "dagster/column_schema" not in context.definition_metadata:
            metadata["dagster/column_schema"] = column_schema(schema)
        if days is not None:
            metadata["days"] = f"{days[0]} .. {days[-1]}"
        context.add_output_metadata(metadata)

    def _store(
        self, table: str, frame: Any, days: Sequence[date] | None
    ) -> tuple[Stored, pl.Schema]:
        if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
            message = f"lake table {table}: a polars frame is needed, not {type(frame).__name__}"
            raise LakeError(message)
        rows = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
        version = (
            self.lake.overwrite(table, rows)
            if days is None
            else self.lake.replace_days(table, rows, days)
        )
        return Stored(version, rows.height), rows.schema

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame | pl.DataFrame:
        """Rows of the upstream table: the mapped days, or all of an unpartitioned one.

        Raises:
            LakeError: the upstream table was never written.
        """
        table = context.asset_key.path[-1]
        days = _days(table, context.asset_partition_keys) if context.has_asset_partitions else None
        rows = self.lake.scan(table, days)
        return rows.collect() if context.dagster_type.typing_type is pl.DataFrame else rows


def column_schema(schema: pl.Schema) -> dg.TableSchema:
    """``schema`` as the Dagster UI shows it."""
    columns = [dg.TableColumn(name, type=str(kind)) for name, kind in schema.items()]
    return dg.TableSchema(columns=columns)


def _days(table: str, keys: Sequence[str]) -> tuple[date, ...]:
    try:
        return tuple(sorted(date.fromisoformat(key) for key in keys))
    except ValueError:
        message = f"lake table {table}: partitions must be days like 2024-01-31, got {keys[0]!r}"
        raise LakeError(message) from None
