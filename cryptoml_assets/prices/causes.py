"""Why the slots of a bar are missing, judged by what all symbols did in the same slots.

A venue that was down and a symbol that nobody traded give the same answer: nothing. They are told
apart by the other symbols, and only by those that trade often enough for their silence to mean
something. Every verdict depends on one UTC day alone, so that it is the same however a backfill is
cut into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoml_assets.prices.bars import Mask

#: Share of the slots in which anyone traded that a symbol must have a bar in to be a witness.
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Verdicts:
    """What the symbols say of each other's missing slots; rows are symbols, columns slots.

    Attributes:
        outage: nothing traded on the whole venue.
        alone: no other symbol can tell; a witness has to be heard.
    """

    outage: Mask
    alone: Mask


def judge(absent: Mask, held: Mask, listed: Mask, slots_a_day: int) -> Verdicts:
    """Tell outages of the venue from silences of single symbols.

    Args:
        absent: slots to be judged, of shape (symbols, slots); the first slot opens at midnight.
        held: slots with a bar.
        listed: slots in which the symbol was listed.
        slots_a_day: slots of one UTC day.
    """
    outage, alone = np.zeros_like(absent), np.zeros_like(absent)
    for start in range(0, absent.shape[1], slots_a_day):
        day = slice(start, start + slots_a_day)
        silent = absent[:, day] & ~held[:, day].any(axis=0)
        if silent.any():
            heard = _witnesses(held[:, day], listed[:, day])
            others = heard.sum(axis=0) - heard
            outage[:, day] = silent & (others > 0)
            alone[:, day] = silent & (others == 0)
    return Verdicts(outage, alone)


def _witnesses(held: Mask, listed: Mask) -> Mask:
    """In which slots of a day each symbol's silence would be heard."""
    loud = held.any(axis=0)
    could = (listed & loud).sum(axis=1)
    often = (held & loud).sum(axis=1) >= _LEAST_SHARE * could
    # On a day without any trade at all, every listed symbol tells of the outage.
    told: Mask = listed & (often & ((could > 0) | ~loud.any()))[:, None]
    return told
