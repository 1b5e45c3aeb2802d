"""How often drift is seen where there is none, and how soon where there is some.

``make honesty`` draws 200 worlds of each kind. Each world gives one report, so that counts are
binomial: with the level at 5 %, more than 21 of 200 happen once in a thousand times.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from cryptoml_assets.monitoring.drift import drift_report, drifted_share, recent_windows
from tests.drift_worlds import (
    CHANGED,
    DAILY,
    LEARNT_UNTIL,
    NAMES,
    RULES,
    SYNTHETIC,
    chain,
    market,
    moved,
    report,
    report_of_both,
    synthetic,
)
from tests.honesty.plugin import FEW, PROPERTY
from tests.honesty.power import most_passes

pytestmark = pytest.mark.timeout(7200)

#: Worlds are drawn so much faster where nothing is computed but random numbers.
SYNTHETIC_WORLDS = 6
#: After the change; windows are a day long.
HOURS = (6, 12, 24, 48, 72, 120)
FEW_HOURS = (24, 72)
#: Share of worlds, at least, in which a change counts as found.
FOUND = 0.8
#: The same within three days, where the volatility of a moody market is multiplied by so much.
FOUND_VOLATILITY = {3.0: 0.4, 5.0: 0.7}


@pytest.fixture(scope="module")
def worlds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--worlds"))


def sees(table: pl.DataFrame) -> tuple[bool, bool]:
    """Whether a report finds any drift, and whether it is an alarm."""
    share = drifted_share(table)
    assert share.judged > 0
    return share.drifted > 0, share.share >= RULES.share


@pytest.mark.parametrize("kind", ["market", "market and chain", "synthetic"])
def test_where_nothing_drifts_hardly_any_report_finds_drift(
    kind: str, worlds: int, request: pytest.FixtureRequest
) -> None:
    count = worlds * SYNTHETIC_WORLDS if kind == "synthetic" else worlds
    # The newest model is judged at once, an old one long after what it learnt from.
    seen = [
        sees(undrifted(kind, seed, LEARNT_UNTIL + timedelta(days=1 + seed % 11)))
        for seed in range(count)
    ]
    drifted, alarms = (sum(each) for each in zip(*seen, strict=True))
    tell(request, f"no drift, {kind}", "any pair", drifted, count)
    tell(request, f"no drift, {kind}", "alarm", alarms, count)
    assert alarms <= drifted <= most_passes(count, RULES.significance)


def undrifted(kind: str, seed: int, now: datetime) -> pl.DataFrame:
    """A report of a world without drift, in which every pair is judged."""
    if kind == "synthetic":
        table = report(synthetic(seed), now, SYNTHETIC)
    elif kind == "market":
        table = report(market(seed), now)
    else:
        table = report_of_both(market(seed), chain(seed), now)
    assert drifted_share(table).unjudged == 0
    return table


def test_a_daily_input_that_moves_is_found_in_days(
    worlds: int, request: pytest.FixtureRequest
) -> None:
    """Of the slow ones, ten deviations; alone, with the half of the level that is theirs."""
    found: Counter[int] = Counter()
    learnt = LEARNT_UNTIL
    count = worlds * SYNTHETIC_WORLDS
    for seed in range(count):
        rows = moved(chain(seed), "eth_base_fee_gwei", 10.0, learnt + timedelta(hours=1))
        before = rows.filter(pl.col("event_timestamp") <= learnt)
        for days in (1, 2, 3, 5):
            now = learnt + timedelta(days=days)
            rules = RULES.of_days().shared()
            windows = recent_windows(before, now, rules)
            table = drift_report(before, rows, DAILY, windows, rules, now=now)
            own = table.filter(feature="eth_base_fee_gwei", symbol=NAMES[0])
            found[24 * days] += own["drifted"].item()
    tell_delays(request, "one daily input up by 10 deviations", found, count)
    assert found[72] >= FOUND * count


def test_one_input_that_moves_is_found_within_a_day(
    worlds: int, request: pytest.FixtureRequest
) -> None:
    found: Counter[int] = Counter()
    for seed in range(worlds):
        for hours, table in reports(moved(market(seed), "sma_gap_5", 1.0), worlds):
            own = table.filter(feature="sma_gap_5", symbol="BTC/USDT")
            found[hours] += own["drifted"].item()
    tell_delays(request, "one input up by 1 deviation", found, worlds)
    assert found[24] >= FOUND * worlds


def test_a_market_many_times_as_wild_raises_an_alarm_within_days(
    worlds: int, request: pytest.FixtureRequest
) -> None:
    for factor in FOUND_VOLATILITY if worlds > FEW else (max(FOUND_VOLATILITY),):
        found: Counter[int] = Counter()
        for seed in range(worlds):
            known = False
            for hours, table in reports(market(seed, factor=factor), worlds):
                known |= sees(table)[1]
                found[hours] += known
        tell_delays(request, f"volatility x {factor:g}, alarm", found, worlds)
        assert found[72] >= FOUND_VOLATILITY[factor] * worlds


def reports(rows: pl.DataFrame, worlds: int) -> list[tuple[int, pl.DataFrame]]:
    """The reports some time after a change."""
    return [
        (hours, report(rows, CHANGED + timedelta(hours=hours)))
        for hours in HOURS
        if worlds > FEW or hours in FEW_HOURS
    ]


def tell_delays(
    request: pytest.FixtureRequest, title: str, found: Counter[int], worlds: int
) -> None:
    for hours, count in found.items():
        tell(request, title, f"in {hours:>3} h", count, worlds)


def tell(request: pytest.FixtureRequest, title: str, name: str, count: Any, worlds: int) -> None:
    """Add a rate to the table at the end of the run."""
    request.node.user_properties.append((PROPERTY, (title, name, int(count), worlds)))
