"""Cursors of sensors that follow several logs: the newest number seen of each."""

from __future__ import annotations

import json
from collections.abc import Mapping


def read(text: str | None) -> dict[str, int]:
    """What was seen; nothing where there is no cursor, or one of another form."""
    try:
        return {str(name): int(number) for name, number in json.loads(text or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def write(seen: Mapping[str, int]) -> str:
    """The cursor that :func:`read` reads."""
    return json.dumps(dict(seen), sort_keys=True)
