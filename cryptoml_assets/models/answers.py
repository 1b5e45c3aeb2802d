"""Out-of-sample answers as a table, so that another run can measure them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cryptoml_assets.models.evaluation import Answered
from cryptoml_assets.models.rows import Rows, answers_frame
from cryptoml_serving.contract.manifest import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_assets.models.evaluation import Baseline


def answers_table(folds: Sequence[Answered]) -> pl.DataFrame:
    """One row for each out-of-sample row of each fold, oldest fold first.

    Columns ``fold``, ``symbol``, ``event_timestamp``, the bundle's outputs, ``label_timestamp``,
    ``label`` and ``regime``, null where nobody asked for it.
    """
    return pl.concat(
        answers_frame(part.rows, part.answers).with_columns(
            fold=pl.lit(number, pl.Int32),
            label_timestamp=pl.Series(part.rows.label_times).dt.replace_time_zone("UTC"),
            label=pl.Series(part.rows.labels),
            regime=pl.lit(None, pl.Int8) if part.regimes is None else pl.Series(part.regimes),
        )
        for number, part in enumerate(folds)
    )


def answered_folds(table: pl.DataFrame, bases: Sequence[Baseline]) -> tuple[Answered, ...]:
    """What :func:`answers_table` wrote, each fold with its baseline; the rows hold no features."""
    parts = table.partition_by("fold", maintain_order=True)
    return tuple(
        Answered(
            Rows(
                symbols=part["symbol"].to_numpy().astype(np.str_),
                events=_instants(part["event_timestamp"]),
                label_times=_instants(part["label_timestamp"]),
                features=np.empty((part.height, 0), np.float32),
                labels=part["label"].to_numpy(),
            ),
            {name: part[name].to_numpy() for name in OUTPUTS},
            base,
            None if part["regime"].null_count() else part["regime"].to_numpy(),
        )
        for part, base in zip(parts, bases, strict=True)
    )


def _instants(column: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    return column.dt.replace_time_zone(None).to_numpy()
