"""Loading a model until it can answer: verified, compiled for every batch size, and told."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

from cryptoml_serving.runtime.processes import shortest_turns
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cryptoml_serving.contract.deployment import Placement
    from cryptoml_serving.runtime.device import Device
    from cryptoml_serving.runtime.registry import ApprovedModel, ModelRegistry
    from cryptoml_serving.runtime.state import State

#: Between two programs of a model that is loaded while another one answers: taking one from the
#: cache stops all threads for up to 20 ms.
_PAUSE_SECONDS = 1.5
_LOG = logging.getLogger(__name__)


class Loader:
    """Loads champions and challengers alike."""

    def __init__(self, registry: ModelRegistry, device: Device, state: State) -> None:
        """Touch nothing yet.

        Args:
            registry: verifies what is placed.
            device: that models run on.
            state: says whether callers are answered meanwhile, and are not to notice.
        """
        self._registry = registry
        self._device = device
        self._state = state

    @property
    def _unhurried(self) -> bool:
        """Whether a model answers meanwhile that may go on doing so."""
        snapshot = self._state.snapshot
        return snapshot is not None and (
            snapshot.model.placement.model_version in self._state.models
        )

    def _turns(self) -> AbstractContextManager[None]:
        """How threads take turns while this one works beside those who answer."""
        return shortest_turns() if self._unhurried else nullcontext()

    def load(self, placement: Placement, *, kept: bool) -> ApprovedModel:
        """A model that predicts without compiling anything any more.

        Args:
            placement: a part of a verified deployment.
            kept: take it from this machine's disk alone.

        Raises:
            RegistryUnavailableError: its artifacts cannot be read.
            ModelRefusedError: it is not what a valid approval says.
            BundleError: it is for none of the devices.
        """
        with self._turns():
            model = self._registry.load(placement, kept=kept)
        # A model trained again has the programs of the one that answers.
        gently = (
            self._unhurried
            and not self._device.compiled(model.bundle)
            and self._registry.compile_beside(placement, self._device.sizes)
        )
        with self._turns():
            # Asked before each program: what answers may be withdrawn meanwhile.
            self._device.warm(
                model.bundle, pause=lambda: _PAUSE_SECONDS if gently and self._unhurried else 0.0
            )
        record = model.record
        event(
            _LOG,
            logging.INFO,
            "model_loaded",
            f"{record.model_name} version {record.model_version} is approved and loaded as "
            f"{placement.role}",
            model_version=record.model_version,
            bundle_digest=record.bundle_digest,
            role=record.role,
            decided_by=record.decided_by,
        )
        return model
