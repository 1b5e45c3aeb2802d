"""How long a loaded bundle takes to answer, measured as the serving code calls it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

#: Batches whose median counts: one that the machine was kept from is not the bundle's.
REPEATS = 31
_WARM_UP = 3


class Predictor(Protocol):
    """What answers: a loaded bundle."""

    def warm(self, batch_sizes: Iterable[int]) -> None:
        """Compile for these numbers of rows."""

    def predict(self, features: NDArray[np.float32]) -> Any:
        """Answer rows."""


def median_latency(
    bundle: Predictor,
    features: NDArray[np.float32],
    symbols: int,
    *,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median seconds in which a bundle answers one row of each served symbol, once compiled.

    Args:
        bundle: loaded.
        features: shape (n, k), rows it has to answer; taken in turn where there are fewer than
            symbols.
        symbols: rows of a batch.
        repeats: batches that are timed.
        clock: seconds that only grow.

    Raises:
        ValueError: nothing to answer.
    """
    if symbols < 1 or len(features) == 0:
        message = f"{symbols} symbols and {len(features)} rows: at least 1 of each"
        raise ValueError(message)
    batch = np.resize(features, (symbols, features.shape[1]))
    bundle.warm((symbols,))
    for _ in range(_WARM_UP):
        bundle.predict(batch)
    taken = []
    for _ in range(repeats):
        start = clock()
        bundle.predict(batch)
        taken.append(clock() - start)
    return statistics.median(taken)
