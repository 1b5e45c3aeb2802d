"""When reports ask for a retrain: the policy alone, whatever order things happen in."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_assets.monitoring.retrain import (
    Asked,
    Cause,
    Decision,
    Event,
    Level,
    Policy,
    State,
    decide,
    drift_level,
    from_text,
    recovered,
    to_text,
)

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOURS_6, DAY = timedelta(hours=6), timedelta(days=1)
POLICY = Policy(reports=2, cooldown=HOURS_6, budget=3)


def alarms(*numbers: int, cause: Cause = "drift") -> list[Event]:
    return [Event(number, cause, "alarm", "40 %") for number in numbers]


def look(
    events: list[Event], state: State | None = None, known: tuple[Asked, ...] = (), hours: float = 0
) -> Decision:
    now = AT + timedelta(hours=hours)
    return decide(state or State(), events, known, now=now, policy=POLICY)


def test_one_alarm_is_none_and_two_in_a_row_ask_once() -> None:
    one = look(alarms(1))
    assert one.ask is None
    assert one.reasons == ("drift report 1 (40 %): 1 in a row, 2 are needed",)
    two = look(alarms(1, 2), one.state)
    assert two.ask == alarms(2)[0]
    assert look(alarms(1, 2), two.state).ask is None
    waiting = look(alarms(1, 2, 3, 4, 5), two.state, hours=7)
    assert waiting.ask is None
    assert "the retrain that report 2 asked for is not over" in waiting.reasons[-1]


@pytest.mark.parametrize(
    ("between", "asks"), [("between", True), ("calm", False), ("deployed", False)]
)
def test_only_calm_or_a_new_model_ends_a_row_of_alarms(between: str, asks: bool) -> None:
    level: Level = "calm" if between == "calm" else "between"
    middle = Event(2, deployed=True) if between == "deployed" else Event(2, "drift", level, "20 %")
    assert (look([*alarms(1), middle, *alarms(3)]).ask is not None) is asks


@pytest.mark.parametrize("how", ["calm", "deployed", "ended"])
def test_a_cause_is_armed_again_by_calm_by_a_new_model_or_by_the_end_of_the_run(how: str) -> None:
    asked = look(alarms(1, 2)).state
    known = (Asked("drift", 2, AT, ended=how == "ended"),)
    middle = {"calm": [Event(3, "drift", "calm")], "deployed": [Event(3, deployed=True)]}
    events = [*middle.get(how, []), *alarms(4, 5)]
    again = look(events, asked, known, hours=7)
    assert again.ask == alarms(5)[0]
    soon = look(events, asked, known, hours=5)
    assert soon.ask is None
    assert "asked for at 2024-03-01 12:00 UTC, within 6:00:00" in soon.reasons[-1]


def test_both_causes_share_the_cooldown_and_the_budget() -> None:
    spent = tuple(
        Asked("performance", number, AT - timedelta(hours=7 * number), ended=True)
        for number in (1, 2, 3)
    )
    denied = look(alarms(8, 9), known=spent)
    assert denied.ask is None
    assert "3 retrains were asked for in 24 hours, the budget is 3" in denied.reasons[-1]
    assert look(alarms(8, 9), known=spent, hours=4).ask is not None
    soon = look(alarms(8, 9), known=(Asked("performance", 1, AT, ended=True),), hours=1)
    assert soon.ask is None


def test_a_retrain_that_left_no_trace_holds_back_a_day_and_no_longer() -> None:
    asked = look(alarms(1, 2)).state
    assert look(alarms(3, 4), asked, hours=23).ask is None
    assert look(alarms(3, 4), asked, hours=24).ask is not None


def test_a_cursor_comes_back_as_it_was_and_any_other_text_is_none() -> None:
    state = look(alarms(1, 2, 3)).state
    assert from_text(to_text(state)) == state
    for text in (None, "", "7", "[]", '{"seen": 1}', '{"seen": 1, "watches": [], "asked": [{}]}'):
        assert from_text(text) is None


def test_half_the_threshold_is_calm_and_the_report_has_the_last_word() -> None:
    levels = [drift_level(share, 0.4, alarm=None) for share in (0.4, 0.39, 0.2, 0.19)]
    assert levels == ["alarm", "between", "between", "calm"]
    assert drift_level(0.1, 0.4, alarm=True) == "alarm"
    assert drift_level(0.9, 0.4, alarm=False) == "between"


@dataclass
class Daemon:
    """A daemon that looks, dies and forgets, with Dagster's run storage beside it."""

    policy: Policy
    log: list[Event] = field(default_factory=list)
    runs: list[Asked] = field(default_factory=list)
    cursor: str | None = None
    launched: list[tuple[datetime, Event]] = field(default_factory=list)
    now: datetime = AT

    def look(self, dies: str) -> None:
        state = from_text(self.cursor)
        if state is None:
            first = (
                self.log[-self.policy.reports - 1].number
                if len(self.log) > self.policy.reports
                else 0
            )
            state = recovered(self.runs, first)
        decision = decide(state, self.log, self.runs, now=self.now, policy=self.policy)
        if dies == "before launching":
            return
        if decision.ask is not None and dies != "launching fails":
            ask = decision.ask
            assert ask.cause is not None
            self.launched.append((self.now, ask))
            self.runs.append(Asked(ask.cause, ask.number, self.now))
        elif decision.ask is not None:
            self.launched.append((self.now, decision.ask))
        if dies != "before the cursor is kept":
            self.cursor = to_text(decision.state)


DEATHS = st.sampled_from(["", "", "", "before launching", "before the cursor is kept"])
LEVELS = st.sampled_from(["alarm", "alarm", "alarm", "between", "calm"])
CAUSES = st.sampled_from(["drift", "performance"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("report"), CAUSES, LEVELS),
        st.tuples(st.just("look"), DEATHS, st.none()),
        st.tuples(st.just("wait"), st.floats(0.1, 20), st.none()),
        st.tuples(st.just("deployed"), st.none(), st.none()),
        st.tuples(st.just("ended"), st.none(), st.none()),
        st.tuples(st.just("forget"), st.none(), st.none()),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(1, 3), st.integers(0, 3), st.floats(0, 9))
def test_whatever_happens_nothing_is_asked_twice_too_soon_or_too_often(
    steps: list[tuple[str, object, object]], reports: int, budget: int, hours: float
) -> None:
    daemon = Daemon(Policy(reports, timedelta(hours=hours), budget))
    for what, first, second in steps:
        number = len(daemon.log) + 1
        if what == "report":
            daemon.log.append(Event(number, first, second))  # type: ignore[arg-type]
        elif what == "deployed":
            daemon.log.append(Event(number, deployed=True))
        elif what == "wait":
            daemon.now += timedelta(hours=float(str(first)))
        elif what == "ended":
            daemon.runs = [replace(run, ended=True) for run in daemon.runs]
        elif what == "forget":
            daemon.cursor = None
        else:
            daemon.look(str(first))
        daemon.look("")
    asked = [(ask.cause, ask.number) for _, ask in daemon.launched]
    assert len(asked) == len(set(asked))
    times = [at for at, _ in daemon.launched]
    pairs = itertools.pairwise(times)
    assert all(later - earlier >= daemon.policy.cooldown for earlier, later in pairs)
    assert all(sum(at - DAY < other <= at for other in times) <= budget for at in times)
    for _, ask in daemon.launched:
        before = [e for e in daemon.log if e.number <= ask.number]
        calm = [e.number for e in before if e.deployed or (e.cause, e.level) == (ask.cause, "calm")]
        row = [e for e in before if e.number > max(calm, default=0) and e.cause == ask.cause]
        assert sum(e.level == "alarm" for e in row) >= reports


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "launching fails"]), min_size=30, max_size=30))
def test_a_launch_that_fails_counts_for_the_budget_all_the_same(fates: list[str]) -> None:
    daemon = Daemon(Policy(1, timedelta(0), 2))
    for fate in fates:
        daemon.log.append(Event(len(daemon.log) + 1, deployed=True))
        daemon.log.append(Event(len(daemon.log) + 1, "drift", "alarm"))
        daemon.look(fate)
        daemon.now += timedelta(hours=2)
    times = [at for at, _ in daemon.launched]
    assert max(sum(at - DAY < other <= at for other in times) for at in times) == 2
