"""Options of the fault schedules, and the line that says what became of all of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

#: Under what name a schedule's outcome travels with its test's report.
PROPERTY = "fault_schedule"
SCHEDULES, SEED = 200, 20240301


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fault schedules")
    group.addoption("--schedules", type=int, default=SCHEDULES, help="how many fault schedules")
    group.addoption("--seed", type=int, default=SEED, help="seed they are drawn from")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    outcomes = list(_outcomes(terminalreporter.stats))
    if not outcomes:
        return
    schedules, strikes, total = Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        schedules.update(kind for kind, count in outcome["strikes"].items() if count)
        strikes.update(outcome["strikes"])
        total.update({name: outcome[name] for name in ("lost", "duplicated", "torn")})
    terminalreporter.section("fault schedules")
    terminalreporter.write_line(f"{'kind':<28}{'schedules':>10}{'strikes':>10}")
    for kind in sorted(schedules):
        terminalreporter.write_line(f"{kind:<28}{schedules[kind]:>10}{strikes[kind]:>10}")
    terminalreporter.write_line(
        f"{len(outcomes)} schedules, {total['lost']} lost, {total['duplicated']} duplicated, "
        f"{total['torn']} torn"
    )


def _outcomes(stats: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """What schedules told of themselves, whichever worker they ran in and however they ended."""
    for reports in stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                yield from (told for name, told in report.user_properties if name == PROPERTY)
