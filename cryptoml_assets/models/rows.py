"""Training rows as arrays: what every step of the models room works on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cryptoml_assets.errors import TrainingDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Rows in order of time, then symbol; one per symbol and event.

    Attributes:
        symbols: shape (n,), names.
        events: shape (n,), UTC instants as of which the features are known.
        label_times: shape (n,), UTC instants at which the labels are known.
        features: shape (n, k), float32; NaN is missing.
        labels: shape (n,), float64, log return over the horizon.
    """

    symbols: NDArray[np.str_]
    events: NDArray[np.datetime64]
    label_times: NDArray[np.datetime64]
    features: NDArray[np.float32]
    labels: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, selection: NDArray[np.bool_]) -> Rows:
        """The rows a mask of shape (n,) selects."""
        return Rows(
            self.symbols[selection],
            self.events[selection],
            self.label_times[selection],
            self.features[selection],
            self.labels[selection],
        )

    def digest(self) -> str:
        """SHA-256 of every value and its type; equal rows have it in every process."""
        digest = hashlib.sha256()
        for name, array in vars(self).items():
            digest.update(f"{name} {array.dtype.str} {array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def changes(self) -> NDArray[np.int_]:
        """How often each feature takes another value as time passes, for the symbol with the most.

        Shape (k,). A daily figure read beside 5-minute bars changes once a day, however many rows
        repeat it; a missing value is no value and so no change.
        """
        counts = np.zeros((1, self.features.shape[1]), int)
        for symbol in np.unique(self.symbols):
            own = self.features[self.symbols == symbol]
            steps = np.diff(own, axis=0)
            changed = np.isfinite(steps) & (steps != 0.0)
            counts = np.vstack([counts, changed.sum(axis=0)])
        most: NDArray[np.int_] = counts.max(axis=0)
        return most


def rows_from_frame(frame: pl.DataFrame, features: Sequence[str]) -> Rows:
    """Read a training set.

    Args:
        frame: columns symbol, event_timestamp, label_timestamp, label and each feature.
        features: names of the input columns, in order.

    Raises:
        TrainingDataError: no rows, a missing column, a label that is no number, or labels that are
            all of one sign, from which no direction can be learnt.
    """
    needed = ("symbol", "event_timestamp", "label_timestamp", "label", *features)
    if missing := [name for name in needed if name not in frame.columns]:
        message = f"the training set lacks the columns {', '.join(missing)}"
        raise TrainingDataError(message)
    if frame.is_empty():
        message = "the training set is empty: materialise features over a range of days first"
        raise TrainingDataError(message)
    ordered = frame.sort("event_timestamp", "symbol")
    labels = ordered["label"].cast(float).to_numpy()
    if not np.isfinite(labels).all():
        message = f"{(~np.isfinite(labels)).sum()} labels of {len(labels)} are not numbers"
        raise TrainingDataError(message)
    up = float((labels > 0).mean())
    if up in (0.0, 1.0):
        message = f"all {len(labels)} labels have one sign: there is no direction to learn"
        raise TrainingDataError(message)
    matrix = np.column_stack(
        [ordered[name].cast(float).fill_null(np.nan).to_numpy() for name in features]
    )
    return Rows(
        symbols=ordered["symbol"].to_numpy().astype(np.str_),
        events=_instants(ordered["event_timestamp"]),
        label_times=_instants(ordered["label_timestamp"]),
        features=matrix.astype(np.float32),
        labels=labels,
    )


def answers_frame(rows: Rows, answers: Mapping[str, NDArray[np.float32]]) -> pl.DataFrame:
    """Outputs of shape (n,) beside what they answer: the rows' symbol and event_timestamp (UTC)."""
    return pl.DataFrame(
        {
            "symbol": rows.symbols.tolist(),
            "event_timestamp": pl.Series(rows.events).dt.replace_time_zone("UTC"),
            **answers,
        }
    )


def _instants(column: pl.Series) -> NDArray[np.datetime64]:
    """UTC instants as numpy's zone-less ones, microseconds."""
    instants: NDArray[np.datetime64] = (
        column.dt.convert_time_zone("UTC").dt.replace_time_zone(None).dt.cast_time_unit("us")
    ).to_numpy()
    return instants
