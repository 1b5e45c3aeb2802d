"""Seeded random streams that any part of the world can be drawn from, in any order."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """The random stream of this seed and these labels: always the same draws."""
    text = "/".join(map(str, (seed, *labels)))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.PCG64(key))


def uniform(seed: int, *labels: str | int) -> float:
    """One number in [0, 1) that depends on seed and labels alone."""
    text = "/".join(map(str, (seed, *labels)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
