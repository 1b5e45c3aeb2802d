"""What requests read: the newest snapshots, and what keeps them from being newer."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptoml_serving.contract.deployment import Deployment
    from cryptoml_serving.runtime.registry import ApprovedModel
    from cryptoml_serving.runtime.snapshot import Snapshot

#: Tells a worker that its server is about to stop; see ``serving_drain``.
DRAIN_SIGNAL = signal.SIGUSR1
Part = Literal["model", "features", "alias", "challengers", "cache"]
_OTHER_ANSWERS = "the version that answers is not the deployed champion"


@dataclass
class State:
    """What requests read. The background threads alone write it, one attribute at a time.

    Attributes:
        snapshot: what is answered, once there is anything to answer.
        challengers: the newest snapshot of each challenger that can predict.
        champion: the model whose predictions are answered; explicit rows are for it too.
        models: version to each model that is loaded, warm and may predict: the champion and its
            challengers. Replaced as a whole, never changed.
        deployment: the newest valid deployment seen, loaded or not.
        from_disk: whether the registry has not answered since the start, so that what this machine
            kept of it is served.
        model_loaded: whether an approved champion is loaded, be it with a snapshot or not.
        alias_moved: whether the registry's alias names another version than the signed champion.
        draining: whether the service was told to stop, and still answers.
        problems: what keeps a part from being as it should, as last seen, in words for callers.
        refreshed: monotonic second at which each part was last found or made current.
    """

    snapshot: Snapshot | None = None
    challengers: tuple[Snapshot, ...] = ()
    champion: ApprovedModel | None = None
    models: Mapping[str, ApprovedModel] = field(default_factory=lambda: MappingProxyType({}))
    deployment: Deployment | None = None
    from_disk: bool = False
    model_loaded: bool = False
    alias_moved: bool = False
    draining: bool = False
    problems: dict[Part, str] = field(default_factory=dict)
    refreshed: dict[Part, float] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether there is anything to answer: a prediction, be it of one symbol only.

        Its age has no say. Features that grow old do so for every instance alike; taking all of
        them out of rotation would cost callers the answer that says so.
        """
        return self.snapshot is not None and bool(self.snapshot.predictions)

    @property
    def accepting(self) -> bool:
        """Whether whoever spreads requests is to send some here."""
        return self.ready and not self.draining

    @property
    def other_answers(self) -> bool:
        """Whether the version that answers is another than the deployed champion.

        So it is while a new champion is loaded, or for as long as that is refused or cannot
        predict.
        """
        snapshot, deployment = self.snapshot, self.deployment
        if snapshot is None or deployment is None:
            return False
        return snapshot.model.placement != deployment.champion

    @property
    def troubles(self) -> dict[str, str]:
        """What is not as it should be, by part, in words for callers."""
        # Copied in one step: the background threads go on changing it.
        told = {str(part): why for part, why in self.problems.copy().items()}
        if self.other_answers:
            told["champion"] = _OTHER_ANSWERS
        return told

    @property
    def not_ready(self) -> str:
        """Why nothing can be answered yet, or will soon be, in words for callers."""
        if self.draining and self.ready:
            return "the service is about to stop"
        if not self.model_loaded:
            return self.problems.get("model", "the approved model is being loaded")
        if self.snapshot is None:
            return self.problems.get("features", "the first features are being read")
        return "the feature store holds current features of no served symbol"

    def age(self, part: Part) -> float | None:
        """Seconds since a part was last current; none before the first time."""
        instant = self.refreshed.get(part)
        return None if instant is None else time.monotonic() - instant
