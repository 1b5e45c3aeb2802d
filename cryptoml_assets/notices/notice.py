"""A notice: one thing that people should know of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal

from cryptoml_serving.contract.stores import masked

#: How bad it is: worth knowing, worth a look today, worth waking somebody for.
Severity = Literal["info", "warning", "critical"]
#: Longest text of a notice; channels cut further.
LONGEST = 3000


@dataclass(frozen=True)
class Notice:
    """One thing that people should know of.

    Attributes:
        kind: what sort of thing, such as ``run_failed``.
        severity: how bad it is.
        title: one line.
        body: a few sentences.
        key: the same for the same trouble; within the quiet time it is sent once.
        at: when it happened, UTC; with the key, what tells this notice from all others.
        facts: figures by name.
        links: addresses by what is found there.
        resolved: whether it says that the trouble of this key is over.
    """

    kind: str
    severity: Severity
    title: str
    body: str
    key: str
    at: datetime
    facts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    resolved: bool = False

    @property
    def headline(self) -> str:
        """The title, with how bad it is before it."""
        return f"[{'resolved' if self.resolved else self.severity}] {one_line(self.title)}"


def to_json(notice: Notice) -> str:
    """The notice as a JSON object, the same text each time."""
    return json.dumps({**asdict(notice), "at": instant(notice.at)}, sort_keys=True)


def from_json(text: str) -> Notice:
    """The notice that :func:`to_json` wrote."""
    values = json.loads(text)
    return Notice(**{**values, "at": datetime.fromisoformat(values["at"])})


def instant(moment: datetime) -> str:
    """A UTC instant as a text that sorts as time does, in microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def one_line(text: str) -> str:
    """``text`` without line breaks or runs of blanks."""
    return " ".join(text.split())


def safe(text: str, longest: int = LONGEST) -> str:
    """``text`` of others, as an error's: the credentials of addresses hidden, cut to a length."""
    hidden = masked(text.strip())
    return hidden if len(hidden) <= longest else f"{hidden[: longest - 1]}…"
