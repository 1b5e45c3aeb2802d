"""P-values that can be as small as what they are held against."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cryptoml_assets.models.significance import DRAWS, bootstrap_p_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: By how much the smallest p-value is to be below the level.
_RESOLUTION = 10
#: Most draws: more take seconds. A level below one in as many is never reached.
MOST_DRAWS = 50_000


def resolved_p_value(
    events: NDArray[np.datetime64],
    gains: NDArray[np.float64],
    block: np.timedelta64,
    seed: int,
    level: float,
) -> float:
    """One-sided p-value of "the mean gain is not above zero", by as many draws as a level asks for.

    A bootstrap of n draws tells nothing below 1 / (n + 1), so a small level takes many. They are
    drawn part by part, and no more once the p-value can no longer be at most the level (Besag and
    Clifford, *Sequential Monte Carlo p-values*, 1991): mostly the first part is enough, and memory
    is that of one.

    Args:
        events: shape (n,), the instant of each row.
        gains: shape (n,).
        block: time a block spans.
        seed: of the draws.
        level: what the p-value is held against.
    """
    parts = math.ceil(min(MOST_DRAWS, max(DRAWS, _RESOLUTION / level)) / DRAWS)
    reached, drawn = 0, 0
    for place in range(parts):
        part = bootstrap_p_value(events, gains, block, seed + place)
        reached += round(part * (DRAWS + 1)) - 1
        drawn += DRAWS
        if (reached + 1) / (parts * DRAWS + 1) > level:
            break
    return (reached + 1) / (drawn + 1)
