"""The newest deployment seen: one that comes before it was put back by hand, and is refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from cryptoml_serving.runtime.errors import DeploymentRefusedError
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from cryptoml_serving.contract.deployment import Deployment
    from cryptoml_serving.runtime.cache import Cache

_LOG = logging.getLogger(__name__)


class _Mark(BaseModel):
    """Number and digest of the decision a deployment was made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str
    sequence: int
    head: str


class HighWater:
    """Remembers the newest deployment of one model, in memory and in a file.

    The registry's tag is signed, so nobody without the key can invent one. An old one with its
    sound signature can be put back, though, and would bring back a model that was withdrawn.
    """

    def __init__(self, cache: Cache) -> None:
        """Touch nothing yet; the file lies in ``cache``."""
        self._cache = cache
        self._mark: _Mark | None = None
        self._told = False

    def admit(self, deployment: Deployment) -> None:
        """Remember a deployment, unless a newer one was seen.

        Raises:
            DeploymentRefusedError: a newer one was seen, or another one of the same number.
        """
        new = _Mark(
            model_name=deployment.model_name, sequence=deployment.sequence, head=deployment.head
        )
        kept = self._kept()
        marks = [mark for mark in (self._mark, kept) if mark is not None]
        newest = max(marks, key=lambda mark: mark.sequence, default=None)
        if newest is not None and new.sequence < newest.sequence:
            message = (
                f"the deployment of {new.model_name} is of decision {new.sequence}, and that of "
                f"decision {newest.sequence} was seen before: an old one was put back. To begin "
                f"another history, remove {self._cache.newest_file}"
            )
            raise DeploymentRefusedError(message)
        if newest is not None and newest.sequence == new.sequence and newest != new:
            message = (
                f"two deployments of {new.model_name} are of decision {new.sequence}: head "
                f"{new.head}, and {newest.head} seen before. To begin another history, remove "
                f"{self._cache.newest_file}"
            )
            raise DeploymentRefusedError(message)
        self._mark = new
        if kept != new:
            self._keep(new)

    def _kept(self) -> _Mark | None:
        """What the file says; none where it is missing or cut off."""
        data = self._cache.read(self._cache.newest)
        try:
            return None if data is None else _Mark.model_validate_json(data)
        except ValidationError:
            return None

    def _keep(self, mark: _Mark) -> None:
        try:
            self._cache.write(self._cache.newest, mark.model_dump_json().encode())
        except OSError as error:
            # Memory still holds it: only a restart would forget.
            if not self._told:
                message = f"the newest deployment cannot be kept: {error}"
                event(_LOG, logging.WARNING, "error", message, error_type="high_water")
            self._told = True
