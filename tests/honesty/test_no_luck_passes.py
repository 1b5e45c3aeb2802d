"""No family passes by luck more often than the gate's p-value says, and none misses a signal.

See `tests.honesty.power` for how many worlds may pass. ``make honesty`` draws 200 of each kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cryptoml_assets.models.options import WINDOWED
from cryptoml_assets.models.trees import benchmarks
from tests.honesty.contest import World
from tests.honesty.plugin import PROPERTY
from tests.honesty.power import chance_to_notice, most_passes
from tests.honesty.runner import EVERYONE, Arena, families_for, processes_for

# A full run draws hundreds of worlds.
pytestmark = pytest.mark.timeout(7200)

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
    allowed = most_passes(worlds)
    assert max(passed.values()) <= allowed, (
        f"of {worlds} worlds without a signal {passed} passed; luck passes more than {allowed} "
        f"once in a thousand times, and a true rate of 15 % does so in "
        f"{chance_to_notice(worlds, 0.15):.0%}"
    )


def test_a_leak_would_be_noticed(arena: Arena) -> None:
    held = arena.hold([World("leaking", seed, 0.0, DAYS) for seed in range(3)], ("linear",))
    assert sum(found["linear"].passes("direction") for found in held) > most_passes(len(held))


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
    if most_passes(count) < count:
        assert all(passed[name] <= most_passes(count) for name in blind), passed
    chosen = [
        name for found in held for name, each in found.items() if each.ranks["direction"] == 1
    ]
    assert sum(name not in blind for name in chosen) >= least, chosen


def tell(request: pytest.FixtureRequest, title: str, name: str, count: int, worlds: int) -> None:
    """Add a rate to the table at the end of the run."""
    request.node.user_properties.append((PROPERTY, (title, name, count, worlds)))
