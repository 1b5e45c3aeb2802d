"""Walk-forward folds: the same training, repeated as if at earlier times, and tested on what came.

The newest test part is the newest share of the rows; the test part of each earlier fold ends where
the next one begins and is as wide. Each fold is a whole `Split`: whatever is fitted in it, scaling
and calibration included, sees rows before its own test part alone. Bailey et al., *The probability
of backtest overfitting* (2017), and López de Prado, *Advances in Financial Machine Learning*
(2018), chapter 7, on why the parts are purged and embargoed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, get_args

import numpy as np

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.options import FoldWindow
from cryptoml_assets.models.splits import Split, newest_position, split_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Share of the rows that the test parts leave to train the oldest fold on, at least.
LEAST_TRAINING_SHARE = 0.1


def walk_forward(
    events: NDArray[np.datetime64],
    label_times: NDArray[np.datetime64],
    *,
    folds: int,
    test_share: float,
    window: FoldWindow = "expanding",
    embargo: timedelta = timedelta(0),
) -> tuple[Split, ...]:
    """Folds in order of time; every symbol's row of one instant falls into the same part.

    The newest of expanding folds is what `splits.split` gives. Test parts share no row, and the
    rows of one whose labels reach into the next one are purged from it: a choice made by the
    earlier folds knows nothing of the newest.

    Args:
        events: shape (n,), when each row's features are known.
        label_times: shape (n,), when each row's label is known; never before its event.
        folds: how many.
        test_share: share of the rows in each fold's test part.
        window: "expanding" trains from the first row on, "rolling" over equally long spans of time,
            each as long as what is before the oldest test part.
        embargo: gap kept between the last label of a part and the first event of the next.

    Raises:
        ValueError: a setting that no rows could satisfy.
        TrainingDataError: too few rows for so many folds of such a share; says what would do.
    """
    _check_settings(folds, test_share, window, embargo)
    history = _History(events, label_times, window, embargo)
    try:
        return history.cut(folds, test_share)
    except TrainingDataError as error:
        message = (
            f"folds={folds} with test_share={test_share:g} cannot be cut from {len(events)} rows: "
            f"{error}; {history.accepted(folds, test_share)}"
        )
        raise TrainingDataError(message) from error


def _check_settings(folds: int, test_share: float, window: str, embargo: timedelta) -> None:
    if folds < 1:
        message = f"folds={folds}: at least 1"
        raise ValueError(message)
    if not 0 < test_share < 1:
        message = f"test_share={test_share}: more than 0 and less than 1"
        raise ValueError(message)
    if window not in get_args(FoldWindow):
        message = f"window={window!r}: one of {', '.join(get_args(FoldWindow))}"
        raise ValueError(message)
    if embargo < timedelta(0):
        message = f"embargo={embargo}: no less than 0"
        raise ValueError(message)


@dataclass(frozen=True)
class _History:
    """Rows to be cut into folds, and what holds for every cut of them."""

    events: NDArray[np.datetime64]
    label_times: NDArray[np.datetime64]
    window: FoldWindow
    embargo: timedelta

    def cut(self, folds: int, test_share: float) -> tuple[Split, ...]:
        starts = self._test_starts(folds, test_share)
        reach = starts[0] - self.events.min()
        ends = (*starts[1:], None)
        parts = []
        for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
            try:
                parts.append(
                    split_at(
                        self.events,
                        self.label_times,
                        start,
                        first=start - reach if self.window == "rolling" else None,
                        test_end=end,
                        embargo=self.embargo,
                    )
                )
            except TrainingDataError as error:
                message = f"fold {number}, tested from {start}: {error}"
                raise TrainingDataError(message) from error
        return tuple(parts)

    def accepted(self, folds: int, test_share: float) -> str:
        """Which fewer folds, or test parts of which share, these rows do allow."""
        fewer = next((n for n in range(folds - 1, 0, -1) if self._allows(n, test_share)), None)
        shares = sorted((p / 100 for p in range(1, 100)), key=lambda share: abs(share - test_share))
        nearest = next((share for share in shares if self._allows(folds, share)), None)
        choices = [f"folds={fewer}"] if fewer else []
        choices += [f"test_share={nearest:g}"] if nearest else []
        return f"{' or '.join(choices)} would do" if choices else "more rows are needed"

    def _allows(self, folds: int, test_share: float) -> bool:
        try:
            self.cut(folds, test_share)
        except TrainingDataError:
            return False
        return True

    def _test_starts(self, folds: int, test_share: float) -> list[np.datetime64]:
        """The first event of each fold's test part, oldest first, equally many rows apart."""
        rows = len(self.events)
        if rows == 0:
            message = "there are none"
            raise TrainingDataError(message)
        width = rows - newest_position(rows, test_share)
        left = rows - folds * width
        # Each part's share is rounded up to a whole row.
        if left < max(1, int(LEAST_TRAINING_SHARE * rows) - folds):
            message = (
                f"test parts of {width} rows leave {max(0, left)} to train the oldest fold on, "
                f"less than {LEAST_TRAINING_SHARE:.0%}"
            )
            raise TrainingDataError(message)
        ordered = np.sort(self.events)
        return [ordered[left + index * width] for index in range(folds)]
