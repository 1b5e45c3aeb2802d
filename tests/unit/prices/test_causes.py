"""Silences of symbols and outages of the venue are told apart by those that trade."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryptoml_assets.prices.causes import Verdicts, judge

DAY = 10


def judged(*symbols: str, day: int = DAY) -> Verdicts:
    """One text a symbol: ``#`` a bar, ``.`` a missing one to be judged, ``-`` not listed."""
    held, absent, unlisted = (
        np.array([[slot == kind for slot in symbol] for symbol in symbols]) for kind in "#.-"
    )
    return judge(absent, held, ~unlisted, day)


def places(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [(int(symbol), int(slot)) for symbol, slot in np.argwhere(mask)]


def test_where_one_traded_the_other_was_silent() -> None:
    verdicts = judged("#####.####", "##########")
    assert not verdicts.outage.any()
    assert not verdicts.alone.any()


def test_where_none_traded_the_venue_was_out() -> None:
    verdicts = judged("####..####", "###...####")
    assert places(verdicts.outage) == [(0, 4), (0, 5), (1, 4), (1, 5)]
    assert not verdicts.alone.any()


def test_one_symbol_cannot_tell() -> None:
    verdicts = judged("####..####")
    assert places(verdicts.alone) == [(0, 4), (0, 5)]
    assert not verdicts.outage.any()


def test_a_symbol_that_trades_seldom_tells_nothing() -> None:
    verdicts = judged("####.#####", "#.......#.")
    assert places(verdicts.alone) == [(0, 4)]
    assert places(verdicts.outage) == [(1, 4)], "the busy one tells of the seldom one"


def test_a_symbol_tells_nothing_of_slots_in_which_it_was_not_listed() -> None:
    verdicts = judged("##.###.###", "----######"[:6] + ".###")
    assert places(verdicts.alone) == [(0, 2)]
    assert places(verdicts.outage) == [(0, 6), (1, 6)]


def test_a_day_without_any_trade_is_an_outage() -> None:
    verdicts = judged(".." * 5, ".." * 5)
    assert verdicts.outage.all()


def test_every_day_is_judged_alone() -> None:
    busy, seldom = "####.#####" + "#" * 10, "#.........."[:10] + "####.#####"
    whole = judged(busy, seldom)
    parts = [judged(busy[day : day + DAY], seldom[day : day + DAY]) for day in (0, DAY)]
    for name in ("outage", "alone"):
        pieces = np.concatenate([getattr(part, name) for part in parts], axis=1)
        assert (getattr(whole, name) == pieces).all()
