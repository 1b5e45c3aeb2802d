"""Null values and their reasons: the column of a feature table, and figures for people.

Where a value lacks something it is null for the reason of what is lacking; where all is there and
it is null all the same, its formula has none. A null value has every reason that applies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, reduce

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cryptoml_assets.features.feature import Feature
from cryptoml_assets.features.lacks import Lacks, Mask
from cryptoml_assets.features.reasons import NULL_REASON, REASONS, UNDEFINED, joined

#: Steps or rows worked on at once: few enough for the caches.
_BLOCK = 65_536
_BITS = {reason: 1 << place for place, reason in enumerate(REASONS)}


def row_reasons(
    lacks: Lacks, features: Sequence[Feature], values: Sequence[pl.Series], wanted: Mask
) -> pl.Series:
    """The column :data:`NULL_REASON` of rows.

    Args:
        lacks: What the grid lacks.
        features: Catalog entries.
        values: A column of each, a row for each place of ``wanted`` in order.
        wanted: Symbols and steps after the halo that have a row.
    """
    height = len(values[0]) if values else 0
    if not any(column.null_count() for column in values):
        return pl.repeat(None, height, dtype=pl.String, eager=True).alias(NULL_REASON)
    codes = np.zeros(wanted.shape, np.uint8)
    for reason, mask in lacks.of([feature.term for feature in features]).items():
        codes |= mask.view(np.uint8) * np.uint8(_BITS[reason])
    blocks = [slice(*ends) for ends in _blocks(wanted.shape[1])]
    touched = [block for block in blocks if codes[:, block].any()]

    def undefined(places: Sequence[int]) -> list[Mask]:
        """Rows of features that lack something at the same steps, null though nothing is lacked."""
        term = features[places[0]].term
        # A value that lacks something is null, so where the numbers agree nothing else is.
        count = lacks.count(term, wanted, touched)
        columns = [values[place] for place in places if values[place].null_count() != count]
        if not columns:
            return []
        rows = np.broadcast_to(lacks.any_of(term), wanted.shape)[wanted]
        return [column.is_null().to_numpy() & ~rows for column in columns]

    flat = codes[wanted]
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        for found in pool.map(undefined, lacks.alike(features)):
            for rows in found:
                flat |= rows.view(np.uint8) * np.uint8(_BITS[UNDEFINED])
        parts = list(pool.map(_as_texts, (flat[slice(*ends)] for ends in _blocks(len(flat)))))
    return pl.concat(parts, rechunk=False).alias(NULL_REASON)


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    return ((at, min(at + _BLOCK, length)) for at in range(0, length, _BLOCK))


def _as_texts(codes: NDArray[np.uint8]) -> pl.Series:
    if codes.any():
        return _texts().gather(codes)
    return pl.repeat(None, len(codes), dtype=pl.String, eager=True)


def null_counts(
    rows: pl.DataFrame, features: Sequence[Feature], lacks: Callable[[], tuple[Lacks, Mask]]
) -> pl.DataFrame:
    """How many null values each feature has for each reason.

    Args:
        rows: Rows of a feature table, as they were computed.
        features: The catalog entries to count.
        lacks: What their windows lack, and the symbols and steps that have a row; called only where
            something is null.

    Returns:
        Columns ``feature``, ``reason`` and ``values``, a row where there are any, in the order of
        ``features``. A value with several reasons counts for each.
    """
    found = []
    some = [feature for feature in features if rows[feature.name].null_count()]
    if some:
        lacking, wanted = lacks()
        for feature in some:
            null = rows[feature.name].is_null().to_numpy()
            for reason, mask in reasons_of(lacking, feature, null, wanted).items():
                found.append((feature.name, reason, int(np.count_nonzero(mask))))
    schema = {"feature": pl.String, "reason": pl.String, "values": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row").filter(pl.col("values") > 0)


def null_faults(rows: pl.LazyFrame, names: Sequence[str]) -> dict[str, int]:
    """Counts of what no stored row of a feature table may have.

    Args:
        rows: Stored rows.
        names: Their features.

    Returns:
        ``not_finite`` values; rows with a ``null_without_reason``, or a ``reason_without_null``.
    """
    some = pl.any_horizontal(pl.col(name).is_null() for name in names)
    said = pl.col(NULL_REASON).is_not_null()
    not_finite = pl.sum_horizontal((~pl.col(name).is_finite()).sum() for name in names)
    counts = rows.select(
        not_finite=not_finite,
        null_without_reason=(some & ~said).sum(),
        reason_without_null=(~some & said).sum(),
    )
    return {name: int(count) for name, count in counts.collect().row(0, named=True).items()}


def values_despite(
    lacks: Lacks, features: Sequence[Feature], values: Sequence[pl.Series], wanted: Mask
) -> Iterator[tuple[int, int]]:
    """Values that are there although something they are made of is missing.

    Arguments are those of :func:`row_reasons`. Gives the place of each such feature and its oldest
    such row; there are none unless a function makes something of nothing.
    """
    for places in lacks.alike(features):
        lacking = lacks.any_of(features[places[0]].term)
        rows = np.broadcast_to(lacking, wanted.shape)[wanted]
        for place in places:
            found = np.flatnonzero(rows & values[place].is_not_null().to_numpy())
            if len(found):
                yield place, int(found[0])


def reasons_of(lacks: Lacks, feature: Feature, null: Mask, wanted: Mask) -> dict[str, Mask]:
    """By reason, which of the rows of a feature are null for it; ``null`` says which are at all."""
    found = {
        reason: np.broadcast_to(mask, wanted.shape)[wanted] & null
        for reason, mask in lacks.of((feature.term,)).items()
    }
    explained = reduce(np.logical_or, found.values(), np.zeros(len(null), np.bool_))
    return {**found, UNDEFINED: null & ~explained}


@cache
def _texts() -> pl.Series:
    """The text of every combination of reasons, by the sum of their bits."""
    combinations = (
        [reason for reason, bit in _BITS.items() if code & bit] for code in range(1 << len(_BITS))
    )
    return pl.Series([joined(reasons) for reasons in combinations], dtype=pl.String)
