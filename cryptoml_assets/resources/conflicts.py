"""Commits that several writers try at once: who comes second tries again on what is there now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from deltalake.exceptions import CommitFailedError

from cryptoml_assets.errors import LakeError

Result = TypeVar("Result")
#: Seconds to wait before each new try after another writer's commit won.
_DELAYS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8, 0.8)


def committed(table: str, commit: Callable[[], Result]) -> Result:
    """Run ``commit``, again where another writer's commit came first.

    Raises:
        LakeError: other writers came first every time.
    """
    for delay in _DELAYS:
        try:
            return commit()
        except CommitFailedError:
            time.sleep(delay)
    try:
        return commit()
    except CommitFailedError as error:
        message = f"lake table {table}: other writers won {len(_DELAYS) + 1} times: {error}"
        raise LakeError(message) from error
