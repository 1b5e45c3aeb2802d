"""No family passes by luck more often than its p-value says, and none misses a signal.

And the gate as a whole, which judges the chosen one by more than that, hardly ever approves where
nothing is planted, and nearly always where something is that is worth its costs.

See `tests.honesty.power` for how many worlds may pass. ``make honesty`` draws 200 of each kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cryptoml_assets.models.options import FAMILIES, WINDOWED
from cryptoml_assets.models.trees import benchmarks
from tests.honesty.contest import World, approved
from tests.honesty.plugin import FEW, PROPERTY
from tests.honesty.power import (
    FALSE_APPROVALS,
    LEVELS,
    chance_to_notice,
    fewest_passes,
    most_passes,
)
from tests.honesty.runner import EVERYONE, Arena, families_for, processes_for

if TYPE_CHECKING:
    from cryptoml_assets.models.evaluation import Claim

# A full run draws hundreds of worlds.
pytestmark = pytest.mark.timeout(7200)

#: Under what name the rates of the gate as a whole are told.
GATE = "(approved)"
#: One number of rows in every world, so that one compiled program serves them all.
DAYS = 8
#: Share of worlds, at least, in which a family that can see a signal is to pass with it, and one
#: that can see it is to be chosen.
FOUND = 0.8


@pytest.fixture(scope="module")
def worlds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--worlds"))


@pytest.fixture(scope="module")
def arena(worlds: int) -> Iterator[Arena]:
    opened = Arena(processes_for(worlds))
    yield opened
    opened.close()


# Volatility clusters in a market, and can be foretold: there only the direction is luck.
@pytest.mark.parametrize(
    ("kind", "claim"),
    [("market", "direction"), ("flat", "direction"), ("flat", "distribution")],
)
def test_no_family_beats_the_base_rate_of_a_world_without_signal(
    kind: Any, claim: Any, arena: Arena, worlds: int, request: pytest.FixtureRequest
) -> None:
    drawn = [World(kind, seed, 0.0, DAYS) for seed in range(worlds)]
    entered = families_for(worlds)
    held = arena.hold(drawn, entered)
    passed = {name: sum(found[name].passes(claim) for found in held) for name in entered}
    # The newest fold has no say in the choice, so the chosen one passes no more often either.
    passed["(chosen)"] = sum(
        each.passes(claim) for found in held for each in found.values() if each.ranks[claim] == 1
    )
    for name, count in passed.items():
        tell(request, f"{kind}, no signal, {claim}", name, count, worlds)
    allowed = most_passes(worlds, LEVELS[claim])
    assert max(passed.values()) <= allowed, (
        f"of {worlds} worlds without a signal {passed} passed; luck passes more than {allowed} "
        f"once in a thousand times, and a true rate of 15 % does so in "
        f"{chance_to_notice(worlds, 0.15, LEVELS[claim]):.0%}"
    )


def test_a_leak_would_be_noticed(arena: Arena) -> None:
    held = arena.hold([World("leaking", seed, 0.0, DAYS) for seed in range(3)], ("linear",))
    passed = sum(found["linear"].passes("direction") for found in held)
    assert passed > most_passes(len(held), LEVELS["direction"])


@pytest.mark.parametrize(
    ("planted", "seeing", "blind"),
    [
        (World("market", 0, 3.0, DAYS), EVERYONE, ()),
        (World("linear", 0, 1.5, DAYS), EVERYONE, ()),
        # Networks of a window can see it too, but look for it among three times the inputs.
        (World("folded", 0, 2.5, DAYS), ("mlp", *benchmarks()), ("linear",)),
        (World("windowed", 0, 1.5, DAYS), (*WINDOWED, *benchmarks()), ("linear", "mlp")),
    ],
    ids=["market", "linear", "folded", "windowed"],
)
def test_a_planted_signal_is_found_and_who_sees_it_is_chosen(
    planted: World,
    seeing: tuple[str, ...],
    blind: tuple[str, ...],
    arena: Arena,
    request: pytest.FixtureRequest,
) -> None:
    worlds = request.getfixturevalue("worlds")
    count, entered = max(1, worlds // 8), families_for(worlds)
    held = arena.hold([replace(planted, seed=seed) for seed in range(count)], entered)
    passed = {name: sum(found[name].passes("direction") for found in held) for name in entered}
    for name, times in passed.items():
        tell(request, f"{planted.kind}, signal {planted.signal:g}", name, times, count)
    least = math.ceil(FOUND * count)
    assert min(passed[name] for name in seeing if name in entered) >= least, passed
    # All of the few worlds of the ordinary suite may pass by luck.
    lucky = most_passes(count, LEVELS["direction"])
    if lucky < count:
        assert all(passed[name] <= lucky for name in blind), passed
    chosen = [
        name for found in held for name, each in found.items() if each.ranks["direction"] == 1
    ]
    assert sum(name not in blind for name in chosen) >= least, chosen


#: Worlds without a signal, and a claim that only luck can make there.
SILENT: tuple[tuple[Any, Claim], ...] = (("market", "direction"), ("flat", "direction"))
#: Worlds with one that is worth more than a round trip costs, and no more than a leak is suspected
#: from; of as many days as it takes to show that.
TELLING = (World("market", 0, 1.7, 40), World("linear", 0, 0.6, 40))


def test_the_gate_hardly_ever_approves_luck(
    arena: Arena, worlds: int, request: pytest.FixtureRequest
) -> None:
    entered = families_for(worlds)
    counts = {}
    for kind, claim in (*SILENT, ("flat", "distribution")):
        held = arena.hold([World(kind, seed, 0.0, DAYS) for seed in range(worlds)], entered)
        counts[kind, claim] = sum(approved(found, claim) for found in held)
        tell(request, f"{kind}, no signal, {claim}", GATE, counts[kind, claim], worlds)
    false, drawn = sum(counts[each] for each in SILENT), len(SILENT) * worlds
    tell(request, "no signal, direction", GATE, false, drawn)
    assert false <= most_passes(drawn, FALSE_APPROVALS), counts
    assert counts["flat", "distribution"] <= most_passes(worlds, FALSE_APPROVALS), counts


def test_the_gate_nearly_always_approves_a_planted_signal(
    arena: Arena, worlds: int, request: pytest.FixtureRequest
) -> None:
    # In the ordinary suite the one family whose training takes no time.
    entered = FAMILIES if worlds > FEW else ("linear",)
    count = max(1, worlds // 8)
    found_of = {
        each.kind: arena.hold([replace(each, seed=seed) for seed in range(count)], entered)
        for each in TELLING
    }
    counts = {
        kind: sum(approved(found, "direction") for found in held) for kind, held in found_of.items()
    }
    for each in TELLING:
        title = f"{each.kind}, signal {each.signal:g}, {each.days} days"
        tell(request, title, GATE, counts[each.kind], count)
    true, drawn = sum(counts.values()), len(TELLING) * count
    tell(request, "with a signal, direction", GATE, true, drawn)
    assert true >= fewest_passes(drawn), counts


def test_a_leak_is_never_approved(arena: Arena) -> None:
    held = arena.hold([World("leaking", seed, 0.0, DAYS) for seed in range(3)], ("linear",))
    assert not any(approved(found, "direction") for found in held)


def tell(request: pytest.FixtureRequest, title: str, name: str, count: int, worlds: int) -> None:
    """Add a rate to the table at the end of the run."""
    request.node.user_properties.append((PROPERTY, (title, name, count, worlds)))
