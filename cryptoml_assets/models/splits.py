"""Chronological parts of a training set between which no label leaks.

Parts follow each other in time: *fit* (weights, scaling), *validation* (early stopping),
*calibration* (intervals, probabilities), *test* (out of sample, seen by nothing that is fitted).
A row at ``t`` carries a label known at ``t + horizon``; a row whose label reaches to within the
embargo of the next part's first event is purged from every part before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from cryptoml_assets.errors import TrainingDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Share of the rows before the test part whose tail calibrates.
CALIBRATION_SHARE = 0.2
#: Share of the rows before the calibration part whose tail decides when to stop.
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Split:
    """Masks of shape (n,) over the rows; disjoint, and each later than the one before.

    Attributes:
        fit: rows that weights and scaling are fitted on.
        validation: rows that decide when to stop.
        calibration: rows that intervals and probabilities are calibrated on.
        test: rows held out of sample.
        test_start: the first test event.
    """

    fit: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    test: NDArray[np.bool_]
    test_start: np.datetime64

    @property
    def training(self) -> NDArray[np.bool_]:
        """Every row before the test part that survived the purges."""
        return self.fit | self.validation | self.calibration


def split(
    events: NDArray[np.datetime64],
    label_times: NDArray[np.datetime64],
    *,
    test_share: float,
    embargo: timedelta = timedelta(0),
) -> Split:
    """Split rows by time; every symbol's row of one instant falls into the same part.

    Args:
        events: shape (n,), when each row's features are known.
        label_times: shape (n,), when each row's label is known; never before its event.
        test_share: newest share of the rows that is held out of sample.
        embargo: gap kept between the last label of a part and the first event of the next.

    Raises:
        TrainingDataError: too few instants to leave every part a row after purging.
    """
    return split_at(events, label_times, newest(events, test_share), embargo=embargo)


def split_at(
    events: NDArray[np.datetime64],
    label_times: NDArray[np.datetime64],
    test_start: np.datetime64,
    *,
    first: np.datetime64 | None = None,
    test_end: np.datetime64 | None = None,
    embargo: timedelta = timedelta(0),
) -> Split:
    """The parts around a test part that begins at a given instant.

    Args:
        events: shape (n,), when each row's features are known.
        label_times: shape (n,), when each row's label is known; never before its event.
        test_start: the first test event.
        first: the oldest event to train on, or none for all there are.
        test_end: the first event after the test part, or none for the last row. A test row whose
            label reaches to within the embargo of it is purged, as between all parts: what is
            measured on this test part then says nothing of what comes after.
        embargo: gap kept between the last label of a part and the first event of the next.

    Raises:
        TrainingDataError: too few instants to leave every part a row after purging.
    """
    gap = np.timedelta64(embargo)
    seen = events >= first if first is not None else np.ones(len(events), bool)
    calibration_start = newest(events[seen & (events < test_start)], CALIBRATION_SHARE)
    validation_start = newest(events[seen & (events < calibration_start)], VALIDATION_SHARE)
    before_test = seen & purged_before(label_times, test_start, gap)
    before_calibration = seen & purged_before(label_times, calibration_start, gap)
    before_validation = seen & purged_before(label_times, validation_start, gap)
    test = events >= test_start
    if test_end is not None:
        test &= (events < test_end) & purged_before(label_times, test_end, gap)
    parts = Split(
        fit=before_validation & (events < validation_start),
        validation=before_calibration & (events >= validation_start) & (events < calibration_start),
        calibration=before_test & (events >= calibration_start) & (events < test_start),
        test=test,
        test_start=test_start,
    )
    _check_sizes(parts, events, embargo)
    return parts


def purged_before(
    label_times: NDArray[np.datetime64], start: np.datetime64, embargo: np.timedelta64
) -> NDArray[np.bool_]:
    """Mask of the rows whose label is known an embargo before ``start``."""
    mask: NDArray[np.bool_] = label_times + embargo <= start
    return mask


def newest(events: NDArray[np.datetime64], share: float) -> np.datetime64:
    """The event from which on about ``share`` of the rows lie.

    Raises:
        TrainingDataError: no rows.
    """
    if len(events) == 0:
        message = "no rows are left before the newest part"
        raise TrainingDataError(message)
    instant: np.datetime64 = np.sort(events)[newest_position(len(events), share)]
    return instant


def newest_position(rows: int, share: float) -> int:
    """How many of so many rows come before the newest ``share`` of them, which is never empty."""
    return min(int(rows * (1 - share)), rows - 1)


def _check_sizes(parts: Split, events: NDArray[np.datetime64], embargo: timedelta) -> None:
    sizes = {
        name: int(getattr(parts, name).sum())
        for name in ("fit", "validation", "calibration", "test")
    }
    if min(sizes.values()) == 0:
        message = (
            f"{len(events)} rows over {np.unique(events).size} instants are too few for a purged "
            f"split with an embargo of {embargo}: {sizes}"
        )
        raise TrainingDataError(message)
