"""Troubles that last: told once they have lasted, again now and then, and when they are over."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Trouble:
    """A trouble that lasts.

    Attributes:
        since: when it was first seen, UTC.
        told: when people were told last; none if never.
        acted: when something was last done about it; none if never.
    """

    since: datetime
    told: datetime | None = None
    acted: datetime | None = None


@dataclass(frozen=True)
class Change:
    """What a look came to.

    Attributes:
        troubles: those that last, by key, for the next look.
        tell: keys to tell people of now.
        act: keys to do something about now.
        over: keys that people were told of and that are over.
    """

    troubles: Mapping[str, Trouble]
    tell: tuple[str, ...]
    act: tuple[str, ...]
    over: tuple[str, ...]


def look(
    before: Mapping[str, Trouble],
    seen: tuple[str, ...],
    *,
    lasting: Collection[str] = (),
    busy: Collection[str] = (),
    now: datetime,
    patience: timedelta,
    again: timedelta,
    pause: timedelta,
) -> Change:
    """What to do about the troubles that are seen now.

    Args:
        before: troubles of the look before.
        seen: keys of those that are there now and to be told of.
        lasting: keys that are not over, though they are not to be told of.
        busy: keys that something is being done about already.
        now: the present instant, UTC.
        patience: a trouble that is over sooner is none.
        again: time after which people are told again.
        pause: time after which something is done again.
    """
    after: dict[str, Trouble] = {}
    tell, act = [], []
    for key in seen:
        trouble = before.get(key, Trouble(now))
        if now - trouble.since >= patience:
            if _is_due(trouble.told, now, again):
                tell.append(key)
                trouble = Trouble(trouble.since, now, trouble.acted)
            if key not in busy and _is_due(trouble.acted, now, pause):
                act.append(key)
                trouble = Trouble(trouble.since, trouble.told, now)
        after[key] = trouble
    # Kept until it is over: who was told of it waits for that.
    after |= {key: before[key] for key in lasting if key in before and key not in after}
    over = tuple(key for key, each in before.items() if key not in after and each.told)
    return Change(after, tuple(tell), tuple(act), over)


def to_text(troubles: Mapping[str, Trouble]) -> str:
    """Troubles as a sensor's cursor."""
    told = {
        key: [None if at is None else at.isoformat() for at in (each.since, each.told, each.acted)]
        for key, each in troubles.items()
    }
    return json.dumps(told, sort_keys=True)


def from_text(text: str | None) -> dict[str, Trouble]:
    """Troubles of a cursor; none where it is of another form."""
    try:
        found = json.loads(text or "{}")
        return {key: Trouble(*map(_instant, times)) for key, times in found.items()}  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        return {}


def _is_due(last: datetime | None, now: datetime, again: timedelta) -> bool:
    # A world's clock can be set back.
    return last is None or not timedelta(0) <= now - last < again


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
