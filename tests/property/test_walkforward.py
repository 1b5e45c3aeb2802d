"""No label reaches from what a fold is fitted on into what it is tested on, for any setting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from cryptoml_assets.errors import TrainingDataError
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.splits import CALIBRATION_SHARE, VALIDATION_SHARE, Split, split
from cryptoml_assets.models.walkforward import walk_forward

START = np.datetime64("2024-01-01T00:00", "us")
MINUTE = np.timedelta64(1, "m")
PARTS = ("fit", "validation", "calibration", "test")
WINDOWS = ("expanding", "rolling")


@dataclass(frozen=True)
class Case:
    """A history of several symbols in any order, in minutes, and how it is cut."""

    minutes: tuple[int, ...]
    reaches: tuple[int, ...]
    settings: dict[str, Any]

    @property
    def events(self) -> np.ndarray:
        return START + np.array(self.minutes, int) * MINUTE

    @property
    def label_times(self) -> np.ndarray:
        return self.events + np.array(self.reaches, int) * MINUTE

    @property
    def embargo(self) -> np.timedelta64:
        return np.timedelta64(self.settings["embargo"])

    def cut(self) -> tuple[Split, ...]:
        return walk_forward(self.events, self.label_times, **self.settings)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Bars with gaps for up to three symbols, labels of any reach, an embargo up to days."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    gaps = draw(st.sampled_from(((1,), (1, 1, 5), (1, 1, 1, 60), (1, 1, 1, 1, 1, 1, 1500))))
    steps = rng.choice(gaps, draw(st.integers(20, 150)))
    rows = np.repeat(np.cumsum(steps), draw(st.integers(1, 3)))
    minutes = rng.permutation(rows)[: rng.integers(len(rows) // 2, len(rows)) + 1]
    reaches = rng.integers(0, draw(st.sampled_from((0, 12, 240))), len(minutes), endpoint=True)
    folds = draw(st.integers(1, 6))
    settings = {
        "folds": folds,
        "test_share": draw(st.floats(0.02, 0.93)) / folds,
        "window": draw(st.sampled_from(WINDOWS)),
        "embargo": timedelta(minutes=draw(st.sampled_from((0, 0, 1, 7, 60, 2880)))),
    }
    return Case(tuple(minutes.tolist()), tuple(reaches.tolist()), settings)


def cut(case: Case) -> tuple[Split, ...]:
    """The folds, or none of this example where the rows do not allow them."""
    try:
        return case.cut()
    except TrainingDataError:
        reject()


def oracle(case: Case) -> list[dict[str, set[int]]]:
    """What each row is in each fold, told row by row from the words of the documentation."""
    settings, count = case.settings, len(case.minutes)
    embargo = settings["embargo"] // timedelta(minutes=1)
    ranked = sorted(case.minutes)
    width = count - min(int(count * (1 - settings["test_share"])), count - 1)
    bounds = [ranked[count - width * back] for back in range(settings["folds"], 0, -1)]
    bounds.append(ranked[-1] + 10**6)
    told = []
    for begin, end in pairwise(bounds):
        since = ranked[0] if settings["window"] == "expanding" else ranked[0] + begin - bounds[0]
        old = [minute for minute in ranked if since <= minute < begin]
        tail = old[min(int(len(old) * (1 - CALIBRATION_SHARE)), len(old) - 1)]
        older = [minute for minute in old if minute < tail]
        stop = older[min(int(len(older) * (1 - VALIDATION_SHARE)), len(older) - 1)]
        edges = (since, stop, tail, begin, end)
        fold: dict[str, set[int]] = {name: set() for name in PARTS}
        for row, (minute, reach) in enumerate(zip(case.minutes, case.reaches, strict=True)):
            for name, low, high in zip(PARTS, edges[:-1], edges[1:], strict=True):
                if low <= minute < high and not minute + reach + embargo > high:
                    fold[name].add(row)
        told.append(fold)
    return told


@given(cases())
def test_each_row_is_in_the_part_the_words_say(case: Case) -> None:
    found = [
        {name: set(np.flatnonzero(getattr(fold, name)).tolist()) for name in PARTS}
        for fold in cut(case)
    ]
    assert found == oracle(case)


@given(cases())
def test_no_label_reaches_into_a_later_part_of_its_fold(case: Case) -> None:
    events, label_times = case.events, case.label_times
    for fold in cut(case):
        masks = [getattr(fold, name) for name in PARTS]
        assert all(mask.any() for mask in masks)
        assert (np.sum(masks, axis=0) <= 1).all()
        for index, earlier in enumerate(masks):
            for later in masks[index + 1 :]:
                assert events[earlier].max() < events[later].min()
                assert label_times[earlier].max() + case.embargo <= events[later].min()
        assert fold.test_start <= events[fold.test].min()
        assert label_times[fold.training].max() + case.embargo <= fold.test_start


@given(cases())
def test_test_parts_follow_each_other_and_each_knows_nothing_of_the_next(case: Case) -> None:
    events, folds = case.events, cut(case)
    assert len(folds) == case.settings["folds"]
    for earlier, later in pairwise(folds):
        tested = case.label_times[earlier.test].max() + case.embargo
        assert tested <= later.test_start <= events[later.test].min()
        assert not (earlier.training | earlier.test)[events >= later.test_start].any()


@given(cases())
def test_an_instant_belongs_to_one_part_for_every_symbol(case: Case) -> None:
    """Rows of one instant differ only in whether a longer label had them purged."""
    for fold in cut(case):
        of_part = {name: set(case.events[getattr(fold, name)].tolist()) for name in PARTS}
        assert sum(map(len, of_part.values())) == len(set().union(*of_part.values()))


@given(cases())
def test_the_newest_expanding_fold_is_the_split_of_today(case: Case) -> None:
    expanding = replace(case, settings=case.settings | {"window": "expanding"})
    newest = cut(expanding)[-1]
    share, embargo = case.settings["test_share"], case.settings["embargo"]
    today = split(case.events, case.label_times, test_share=share, embargo=embargo)
    assert newest.test_start == today.test_start
    for name in PARTS:
        assert (getattr(newest, name) == getattr(today, name)).all()


@given(cases())
def test_rolling_folds_reach_back_equally_far_and_expanding_ones_to_the_first_row(
    case: Case,
) -> None:
    events = case.events
    expanding, rolling = (
        cut(replace(case, settings=case.settings | {"window": window})) for window in WINDOWS
    )
    reach = rolling[0].test_start - events.min()
    for rolled, expanded in zip(rolling, expanding, strict=True):
        assert (rolled.test == expanded.test).all()
        assert (rolled.training <= (events >= rolled.test_start - reach)).all()
    assert all((getattr(rolling[0], n) == getattr(expanding[0], n)).all() for n in PARTS)


@given(cases(), st.integers(0, 10**6))
def test_nothing_from_a_folds_test_on_can_change_what_it_is_fitted_on(
    case: Case, chosen: int
) -> None:
    """Wrecking every value of a row and of all after it leaves each earlier fold as it was."""
    folds = cut(case)
    since = np.sort(case.events)[chosen % len(case.events)]
    before, after = history(case, since=None), history(case, since=since)
    again = walk_forward(after.events, after.label_times, **case.settings)
    for old, new in zip(folds, again, strict=True):
        assert all((getattr(old, name) == getattr(new, name)).all() for name in PARTS)
        if since >= old.test_start:
            assert before.take(old.training).digest() == after.take(new.training).digest()
        else:
            assert before.digest() != after.digest()


def history(case: Case, *, since: np.datetime64 | None) -> Rows:
    """The case's rows with values of their own; from an instant on, wrecked ones."""
    values = np.array(case.reaches, float) + case.events.astype(float)
    if since is not None:
        values = np.where(case.events >= since, -9 * values - 1, values)
    symbols, features = np.full(len(values), "S"), np.float32(values)[:, None]
    return Rows(symbols, case.events, case.label_times, features, values)


@pytest.mark.parametrize(
    ("folds", "test_share", "words"),
    [
        (5, 0.2, "folds=5 with test_share=0.2 .* folds=4 or test_share=0.18 would do"),
        (2, 0.5, "leave 0 to train the oldest fold on.* folds=1 or test_share=0.45 would do"),
        (3, 0.001, "fold 1, .*folds=1 or test_share=0.01 would do"),
    ],
)
def test_folds_that_do_not_fit_are_refused_with_what_would(
    folds: int, test_share: float, words: str
) -> None:
    events = START + np.arange(1000) * MINUTE
    with pytest.raises(TrainingDataError, match=words):
        walk_forward(events, events + 3 * MINUTE, folds=folds, test_share=test_share)


def test_too_little_history_for_any_fold_says_so() -> None:
    events = START + np.arange(500) * MINUTE
    for few, embargo in ((events, timedelta(days=2)), (events[:0], timedelta(0))):
        with pytest.raises(TrainingDataError, match="more rows are needed"):
            walk_forward(few, few, folds=2, test_share=0.2, embargo=embargo)


def test_rolling_over_a_hole_names_the_fold_it_leaves_empty() -> None:
    minutes = np.concatenate([np.arange(400), 100_000 + np.arange(600)])
    events = START + minutes * MINUTE
    with pytest.raises(TrainingDataError, match=r"fold 1, .*'fit': 0"):
        walk_forward(events, events + 399 * MINUTE, folds=2, test_share=0.3, window="rolling")


@pytest.mark.parametrize(
    "wrong",
    [
        {"folds": 0},
        {"test_share": 0.0},
        {"test_share": 1.0},
        {"window": "sliding"},
        {"embargo": timedelta(minutes=-1)},
    ],
)
def test_a_setting_no_rows_could_satisfy_is_refused_by_name(wrong: dict[str, Any]) -> None:
    events = START + np.arange(100) * MINUTE
    settings: dict[str, Any] = {"folds": 1, "test_share": 0.2, **wrong}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        walk_forward(events, events, **settings)
