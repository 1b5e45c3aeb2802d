"""When reports ask for a retrain: after enough of them in a row, seldom, and never twice.

A report alarms, is calm, or is neither; only a calm one ends a row of alarms, so that figures that
hover about their threshold ask for nothing twice. After a retrain was asked for, its cause waits
for a calm report, a new deployment, or the end of what was asked for; then it counts from zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

#: Why a retrain can be asked for by a report.
Cause = Literal["drift", "performance"]
CAUSES: tuple[Cause, ...] = ("drift", "performance")
#: What a report says; ``between`` is neither here nor there.
Level = Literal["alarm", "between", "calm"]
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Policy:
    """How readily a retrain is asked for.

    Attributes:
        reports: alarms in a row that are needed.
        cooldown: least time between two retrains, whatever they were asked for by.
        budget: most retrains in any 24 hours, of all causes together.
    """

    reports: int
    cooldown: timedelta
    budget: int


@dataclass(frozen=True)
class Event:
    """Something in the event log that retraining depends on.

    Attributes:
        number: its place in the log; grows.
        cause: what it reports on; none for what is no report.
        level: what the report says.
        detail: in words.
        run_id: the run that it is of, if any.
        deployed: whether it is a new deployment.
    """

    number: int
    cause: Cause | None = None
    level: Level = "between"
    detail: str = ""
    run_id: str = ""
    deployed: bool = False


@dataclass(frozen=True)
class Asked:
    """A retrain that was asked for.

    Attributes:
        cause: why.
        report: number of the report that asked.
        at: when, UTC.
        ended: whether all that came of it is over.
    """

    cause: Cause
    report: int
    at: datetime
    ended: bool = False


@dataclass(frozen=True)
class Watch:
    """What is remembered of one cause.

    Attributes:
        alarms: alarming reports in a row.
        asked: number of the report that asked for the retrain it waits for; none when armed.
    """

    alarms: int = 0
    asked: int | None = None


@dataclass(frozen=True)
class State:
    """What is remembered from one look to the next.

    Attributes:
        seen: number of the newest event taken in.
        watches: by cause.
        asked: retrains asked for in the last 24 hours, should the run storage not know them yet.
        champion: number of the decision under which a version was champion, -1 for none; none where
            that is not known.
    """

    seen: int = 0
    watches: Mapping[Cause, Watch] = field(default_factory=dict)
    asked: tuple[Asked, ...] = ()
    champion: int | None = None

    def watch(self, cause: Cause) -> Watch:
        """What is remembered of ``cause``."""
        return self.watches.get(cause, Watch())

    def under(self, champion: int) -> State:
        """This state under the champion of a decision; of another one nothing is counted yet."""
        same = self.champion in {None, champion}
        return replace(self, champion=champion, watches=self.watches if same else {})

    def with_watch(self, cause: Cause, watch: Watch) -> State:
        """This state with another memory of ``cause``."""
        return replace(self, watches={**self.watches, cause: watch})


@dataclass(frozen=True)
class Decision:
    """What a look came to.

    Attributes:
        state: to remember.
        ask: the report that asks for a retrain, if one does.
        reasons: why others did not, in words.
    """

    state: State
    ask: Event | None
    reasons: tuple[str, ...]


def decide(
    state: State,
    events: Iterable[Event],
    known: Sequence[Asked],
    *,
    now: datetime,
    policy: Policy,
) -> Decision:
    """Take in new events, up to the first that asks for a retrain.

    Args:
        state: of the look before.
        events: in order of their numbers; those up to ``state.seen`` are passed over.
        known: retrains asked for, as the run storage has them: those of the last 24 hours, and the
            newest of each cause.
        now: the present instant, UTC.
        policy: how readily to ask.
    """
    asks = merged(known, state.asked)
    state = _rearmed(state, asks, now, policy)
    reasons: list[str] = []
    for event in events:
        if event.number <= state.seen:
            continue
        state = replace(_taken(state, event), seen=event.number)
        if event.cause is None or event.level != "alarm":
            continue
        why = _why_not(state.watch(event.cause), event, asks, now, policy)
        if why is not None:
            reasons.append(f"{event.cause} report {event.number} ({event.detail}): {why}")
            continue
        state = state.with_watch(event.cause, Watch(asked=event.number))
        asks = (*asks, Asked(event.cause, event.number, now))
        return Decision(_forgotten(state, asks, now), event, tuple(reasons))
    return Decision(_forgotten(state, asks, now), None, tuple(reasons))


def recovered(known: Sequence[Asked], first: int) -> State:
    """The state where none was kept: what was asked for is known, and events are read again.

    Args:
        known: as of :func:`decide`.
        first: number of the event to begin after, where nothing was ever asked for.
    """
    newest = {each.cause: each.report for each in sorted(known, key=lambda each: each.report)}
    watches: dict[Cause, Watch] = {cause: Watch(asked=n) for cause, n in newest.items()}
    return State(seen=max([first, *newest.values()]), watches=watches)


def merged(*several: Sequence[Asked]) -> tuple[Asked, ...]:
    """One entry for each report that asked, oldest first; the earlier lists count for its end."""
    found: dict[tuple[Cause, int], Asked] = {}
    for asked in (each for asks in several for each in asks):
        found.setdefault((asked.cause, asked.report), asked)
    return tuple(sorted(found.values(), key=lambda each: each.at))


def to_text(state: State) -> str:
    """The state as a sensor's cursor."""
    asked = [{**asdict(each), "at": each.at.isoformat()} for each in state.asked]
    watches = {cause: asdict(watch) for cause, watch in state.watches.items()}
    told = {"seen": state.seen, "watches": watches, "asked": asked, "champion": state.champion}
    return json.dumps(told)


def from_text(text: str | None) -> State | None:
    """The state of a cursor; none where there is none, or it is of another form."""
    try:
        told = json.loads(text or "")
        asked = tuple(
            Asked(**{**each, "at": datetime.fromisoformat(each["at"]).astimezone(UTC)})
            for each in told["asked"]
        )
        watches: dict[Cause, Watch] = {
            cause: Watch(**told["watches"][cause]) for cause in CAUSES if cause in told["watches"]
        }
        champion = told.get("champion")
        return State(int(told["seen"]), watches, asked, None if champion is None else int(champion))
    except (ValueError, KeyError, TypeError):
        return None


def drift_level(share: float, threshold: float, *, alarm: bool | None) -> Level:
    """What a drift report says.

    Args:
        share: share of the judged features that drifted, 0 to 1.
        threshold: share from which on a retrain is due; half of it is calm.
        alarm: the report's own verdict, where it gives one.
    """
    if alarm or (alarm is None and share >= threshold):
        return "alarm"
    return "calm" if share < threshold / 2 else "between"


def _taken(state: State, event: Event) -> State:
    """Count an event in."""
    if event.deployed:
        # What was measured of the model before says nothing of the new one.
        return replace(state, watches={cause: Watch() for cause in CAUSES})
    if event.cause is None:
        return state
    watch = state.watch(event.cause)
    if event.level == "calm":
        return state.with_watch(event.cause, Watch())
    if event.level == "alarm" and watch.asked is None:
        return state.with_watch(event.cause, replace(watch, alarms=watch.alarms + 1))
    return state


def _rearmed(state: State, asks: Sequence[Asked], now: datetime, policy: Policy) -> State:
    """Arm the causes whose retrain is over, or was asked for so long ago that it must be."""
    by_report = {(each.cause, each.report): each for each in asks}
    for cause in CAUSES:
        report = state.watch(cause).asked
        asked = None if report is None else by_report.get((cause, report))
        lost = asked is None or now - asked.at >= max(policy.cooldown, _DAY)
        if report is not None and (lost or (asked is not None and asked.ended)):
            state = state.with_watch(cause, Watch())
    return state


def _why_not(
    watch: Watch, event: Event, asks: Sequence[Asked], now: datetime, policy: Policy
) -> str | None:
    if any((each.cause, each.report) == (event.cause, event.number) for each in asks):
        return "it has asked for a retrain already"
    if watch.asked is not None:
        return f"the retrain that report {watch.asked} asked for is not over"
    if watch.alarms < policy.reports:
        return f"{watch.alarms} in a row, {policy.reports} are needed"
    last = max((each.at for each in asks), default=None)
    if last is not None and now - last < policy.cooldown:
        return f"a retrain was asked for at {last:%Y-%m-%d %H:%M} UTC, within {policy.cooldown}"
    spent = sum(now - each.at < _DAY for each in asks)
    if spent >= policy.budget:
        return f"{spent} retrains were asked for in 24 hours, the budget is {policy.budget}"
    return None


def _forgotten(state: State, asks: Sequence[Asked], now: datetime) -> State:
    """Keep of what was asked for what still counts."""
    waited = {watch.asked for watch in state.watches.values()}
    kept = [each for each in asks if now - each.at < _DAY or each.report in waited]
    return replace(state, asked=tuple(kept))
