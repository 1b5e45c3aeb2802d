"""How many worlds the honesty tests draw, and the table of what became of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.honesty.power import exact_interval

#: Under what name a rate travels with its test's report.
PROPERTY = "honesty_rate"
#: Worlds of each kind in the ordinary suite.
FEW = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("honesty")
    group.addoption("--worlds", type=int, default=FEW, help="simulated worlds of each kind")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    told = [
        rate
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, rate in report.user_properties
        if name == PROPERTY
    ]
    if not told:
        return
    terminalreporter.section("honesty: worlds in which a claim passed")
    terminalreporter.write_line(f"{'worlds':<40}{'family':<14}{'passed':>11}   95 % interval")
    for title, family, count, worlds in sorted(told):
        low, high = exact_interval(count, worlds)
        terminalreporter.write_line(
            f"{title:<40}{family:<14}{count:>5} of {worlds:<4}  {low:.3f} to {high:.3f}"
        )
