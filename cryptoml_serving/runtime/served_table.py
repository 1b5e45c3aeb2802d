"""Rows into the lake's table of served predictions: each prediction once, whoever else writes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cryptoml_serving.contract.served import (
    SERVED_COLUMNS,
    SERVED_DAY,
    SERVED_PREDICTIONS,
    SERVED_PROPERTIES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_serving.contract.served import ServedPrediction

#: Seconds to wait before each new try after another writer's commit came first.
_CONFLICT_DELAYS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8)


def append_new(lake: str, predictions: Sequence[ServedPrediction]) -> int:
    """Append those of ``predictions`` whose id the table does not hold, in one commit.

    What the table holds is read at one version, and the commit is made only as the next one after
    it: else it is read again. So no id is ever there twice, however many services write at once,
    and however often the same predictions are handed over. Nothing new, nothing is committed.

    Args:
        lake: folder or address of the lake; the table is made when it is not there.
        predictions: rows, of which the first counts where two have one id.

    Returns:
        Rows appended.

    Raises:
        DeltaError: the table cannot be written, or other writers came first every time.
    """
    from deltalake.exceptions import CommitFailedError  # noqa: PLC0415 - takes time

    address = f"{lake.rstrip('/')}/{SERVED_PREDICTIONS}"
    for delay in _CONFLICT_DELAYS:
        try:
            return _attempt(address, predictions)
        except CommitFailedError:
            time.sleep(delay)
    return _attempt(address, predictions)


def _attempt(address: str, predictions: Sequence[ServedPrediction]) -> int:
    import pyarrow as pa  # noqa: PLC0415 - takes time
    from deltalake import CommitProperties, write_deltalake  # noqa: PLC0415 - takes time

    table = _open(address)
    held = _held(table, predictions)
    first: dict[str, ServedPrediction] = {}
    for each in predictions:
        first.setdefault(each.prediction_id, each)
    new = [each.row() for each in first.values() if each.prediction_id not in held]
    if not new:
        return 0
    write_deltalake(
        table,
        pa.Table.from_pylist(new, schema=pa.schema(_schema().to_arrow())),
        mode="append",
        # A table that was widened meanwhile gets nulls in what these rows do not have.
        schema_mode="merge",
        commit_properties=CommitProperties(max_commit_retries=0),
    )
    return len(new)


def _schema() -> Any:
    from deltalake import Field, Schema  # noqa: PLC0415 - takes time
    from deltalake.schema import PrimitiveType  # noqa: PLC0415 - takes time

    return Schema([Field(name, PrimitiveType(kind)) for name, kind in SERVED_COLUMNS.items()])


def _open(address: str) -> Any:
    """The table, made without rows where there is none.

    Raises:
        CommitFailedError: another writer made it meanwhile.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - takes time
    from deltalake.exceptions import CommitFailedError, DeltaError  # noqa: PLC0415 - takes time

    if DeltaTable.is_deltatable(address):
        return DeltaTable(address)
    try:
        return DeltaTable.create(
            address,
            _schema(),
            mode="error",
            partition_by=[SERVED_DAY],
            configuration=SERVED_PROPERTIES,
        )
    except CommitFailedError:
        raise
    except DeltaError as error:
        if not DeltaTable.is_deltatable(address):
            raise
        raise CommitFailedError(str(error)) from error


def _held(table: Any, predictions: Sequence[ServedPrediction]) -> set[str]:
    """The ids the table holds of the days and feature instants of ``predictions``.

    Only files whose statistics span one of these instants are opened.
    """
    import pyarrow.dataset as ds  # noqa: PLC0415 - takes time

    if not predictions:
        return set()
    instants = [each.feature_timestamp for each in predictions]
    days = sorted({str(each.row()[SERVED_DAY]) for each in predictions})
    instant = ds.field("feature_timestamp")
    rows = table.to_pyarrow_dataset(file_pruning_predicate=[(SERVED_DAY, "in", days)]).to_table(
        columns=["prediction_id"], filter=(instant >= min(instants)) & (instant <= max(instants))
    )
    return set(rows["prediction_id"].to_pylist())
