"""The approved models: found through the registry, trusted only for their signatures.

The signed deployment says which versions serve, in which roles; the signed approval of each says
that it may. The registry and its artifact store are not trusted, nor is the alias, which anybody
who can write to the registry can move: it is only compared.
"""

from __future__ import annotations

import importlib
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from weakref import WeakValueDictionary

from cryptoml_serving.contract.approval import (
    ApprovalInvalidError,
    ApprovalRecord,
    load_public_key,
    read_signed,
    verify,
)
from cryptoml_serving.contract.bundle import Bundle, load_bundle
from cryptoml_serving.contract.compilation import use_compilation_cache
from cryptoml_serving.contract.deployment import Deployment, Placement, read_deployment
from cryptoml_serving.contract.feature_store import PRICE_VIEW
from cryptoml_serving.contract.manifest import BundleError
from cryptoml_serving.contract.private_folder import UnsafeFolderError
from cryptoml_serving.contract.registry import (
    APPROVAL_FOLDER,
    BUNDLE_FOLDER,
    CHAMPION_ALIAS,
    DEPLOYMENT_TAG,
    approval_file,
)
from cryptoml_serving.runtime.cache import SETTING, Cache
from cryptoml_serving.runtime.errors import (
    DeploymentRefusedError,
    ModelRefusedError,
    NoChampionError,
    OlderApprovalError,
    RegistryUnavailableError,
)
from cryptoml_serving.runtime.forerunner import compile_beside
from cryptoml_serving.runtime.high_water import HighWater
from cryptoml_serving.runtime.registry_limits import LimitedRegistry
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_serving.runtime.registry_client import Artifacts

_LOG = logging.getLogger(__name__)
_MOST_APPROVAL_BYTES = 2**20
#: Most bytes of one file of a bundle, and most files.
_MOST_BUNDLE_BYTES = 512 * 2**20
_MOST_BUNDLE_FILES = 16


@dataclass(frozen=True)
class Found:
    """What the registry says is deployed.

    Attributes:
        deployment: verified, and not older than one seen before.
        alias: version the champion alias points at, on the registry's word alone; empty: none.
        kept: whether it comes from this machine's disk, and not from the registry.
    """

    deployment: Deployment
    alias: str
    kept: bool = False

    @property
    def alias_moved(self) -> bool:
        """Whether the alias names another version than the signed placement."""
        champion = self.deployment.champion
        named = "" if champion is None else champion.model_version
        return not self.kept and self.alias != named


@dataclass(frozen=True)
class ApprovedModel:
    """A bundle that a verified approval names, in a role that approval gives it.

    Attributes:
        placement: the part of the signed deployment that it was loaded for; less where less is
            deployed by now.
        record: the verified approval.
        bundle: the verified bundle, able to predict.
    """

    placement: Placement
    record: ApprovalRecord
    bundle: Bundle


class ModelRegistry:
    """Reads what is deployed from MLflow, and keeps on disk what it takes to start without it."""

    def __init__(
        self, *, address: str, model_name: str, public_key: Path, cache: Path, world: str
    ) -> None:
        """Touch nothing yet.

        Args:
            address: MLflow's tracking and registry address.
            model_name: name of the registered model.
            public_key: PEM file of the key that must have signed the approval.
            cache: folder of what is kept on this machine.
            world: the world served; a model that learned from another one is refused.
        """
        self._model_name = model_name
        self._public_key = public_key
        self._cache = Cache(cache, model_name)
        self._world = world
        self._client = LimitedRegistry(address)
        self._seen = HighWater(self._cache)
        self._kept_text = ""
        #: The newest deployment and its signed text.
        self._newest: tuple[Deployment, str] | None = None
        #: Placements that were loaded while nothing could be kept.
        self._unkept: set[Placement] = set()
        #: Bundles somebody still predicts with: a challenger that is promoted is not loaded again.
        self._loaded: WeakValueDictionary[str, Bundle] = WeakValueDictionary()

    @property
    def problem(self) -> str:
        """Why nothing is kept on this machine; empty: it is."""
        return self._cache.problem

    def prepare(self) -> None:
        """Import what loading a model needs, which takes a second, and find compiled programs."""
        importlib.import_module("jax.export")
        try:
            use_compilation_cache(self._cache.programs, SETTING)
        except (UnsafeFolderError, OSError) as error:
            message = f"compiled programs are not kept: {error}"
            event(_LOG, logging.ERROR, "error", message, error_type="model_cache", part="cache")

    def deployment(self) -> Found:
        """What is deployed now, in one look at the registry.

        Raises:
            RegistryUnavailableError: the registry does not answer.
            NoChampionError: nothing was ever deployed.
            OlderApprovalError: nothing but an alias says what is.
            DeploymentRefusedError: what the registry holds is not signed, or an old one.
        """
        model = self._client.model(self._model_name)
        if model is None:
            message = f"{self._model_name} is no model of the registry yet"
            raise NoChampionError(message)
        alias = model.aliases.get(CHAMPION_ALIAS, "")
        if not (text := model.tags.get(DEPLOYMENT_TAG, "")):
            message = f"nothing is deployed of {self._model_name}: no tag {DEPLOYMENT_TAG}"
            if not alias:
                raise NoChampionError(message)
            message += (
                f", though alias {CHAMPION_ALIAS} names version {alias}: an older version of this "
                f"platform approved it, or the tag was removed; materialise validated_deployment"
            )
            raise OlderApprovalError(message)
        deployment = self._admitted(text)
        self._newest = deployment, text
        self._keep(text, deployment)
        return Found(deployment, alias)

    def kept(self) -> Found | None:
        """What was deployed when the registry last answered, as this machine's disk has it.

        Raises:
            DeploymentRefusedError: what is kept is not signed, or an old one.
        """
        text = self._cache.deployment()
        if text is None:
            return None
        deployment = self._admitted(text)
        self._kept_text = text
        self._newest = deployment, text
        return Found(deployment, "", kept=True)

    def load(self, placement: Placement, *, kept: bool = False) -> ApprovedModel:
        """Verify the approval and the bundle of a placement, and load it.

        Args:
            placement: a part of a verified deployment.
            kept: take both from this machine's disk alone.

        Raises:
            RegistryUnavailableError: artifacts cannot be read, and are not on disk either.
            ModelRefusedError: anything about it is not what a valid approval says.
        """
        record = self._approval(placement, kept=kept)
        bundle = self._bundle(placement, kept=kept)
        manifest = bundle.manifest
        if manifest.model_name != self._model_name:
            self._refuse(placement, f"the bundle is of model {manifest.model_name}")
        if self._world not in re.findall(r"[a-z]+", manifest.source):
            self._refuse(placement, f"it learned from {manifest.source} data, not {self._world}")
        if PRICE_VIEW not in {feature.view for feature in manifest.features}:
            self._refuse(placement, f"it reads nothing of {PRICE_VIEW}, so no answer has a date")
        self._keep_champion(placement)
        if self._cache.problem:
            self._unkept.add(placement)
        return ApprovedModel(placement, record, bundle)

    def keep_later(self, placement: Placement) -> None:
        """Keep what a placement in use takes, where that could not be done when it was loaded.

        Raises:
            RegistryUnavailableError: artifacts cannot be read; that is tried once.
            ModelRefusedError: they were altered meanwhile.
        """
        if placement not in self._unkept or self._cache.problem:
            return
        self._unkept.discard(placement)
        self._approval(placement, kept=False)
        if self._cache.bundle(placement.bundle_digest) is None:
            self._read_bundle(placement, placement.bundle_digest)
        self._keep_champion(placement)

    def stand_in(self, deployment: Deployment) -> Placement | None:
        """The champion that was loaded last, where it may answer until the deployed one can.

        Args:
            deployment: the newest one, verified.

        Returns:
            None where there is none but the deployed one, or where it was withdrawn.
        """
        text = self._cache.champion()
        if text is None or deployment.champion is None:
            return None
        try:
            champion = self._verified(text).champion
        except DeploymentRefusedError:
            # Altered on this disk: nothing of it counts.
            return None
        if champion is None or champion == deployment.champion:
            return None
        return None if champion.model_version in deployment.withdrawn else champion

    def _admitted(self, text: str) -> Deployment:
        """The deployment in a text, once it is verified and none older than one seen."""
        deployment = self._verified(text)
        self._seen.admit(deployment)
        return deployment

    def _verified(self, text: str) -> Deployment:
        try:
            deployment = read_deployment(text, load_public_key(self._public_key))
        except ApprovalInvalidError as error:
            message = f"the deployment of {self._model_name} is refused: {error}"
            raise DeploymentRefusedError(message) from error
        if deployment.model_name != self._model_name:
            message = f"the deployment is of {deployment.model_name}, not of {self._model_name}"
            raise DeploymentRefusedError(message)
        return deployment

    def _keep(self, text: str, deployment: Deployment) -> None:
        """Keep a deployment for a start without the registry; one that cannot be is no trouble."""
        if text == self._kept_text:
            return
        before = self.stand_in(deployment)
        # The champion before is kept until the new one is loaded.
        placements = deployment.placements if before is None else (*deployment.placements, before)
        with suppress(OSError):
            if self._cache.keep_deployment(text, placements):
                self._kept_text = text
                if before is None:
                    self._drop_withdrawn(deployment)

    def _drop_withdrawn(self, deployment: Deployment) -> None:
        """Forget the champion loaded last, unless it is the deployed one."""
        newest = self._cache.champion()
        with suppress(DeploymentRefusedError):
            if newest is None or self._verified(newest).champion == deployment.champion:
                return
        self._cache.drop_champion()

    def _keep_champion(self, placement: Placement) -> None:
        """Keep the deployment of a champion that was loaded: the one before is needed no more."""
        newest = self._newest
        with suppress(OSError):
            if newest is not None and newest[0].champion == placement:
                self._cache.keep_champion(newest[1])

    def _approval(self, placement: Placement, *, kept: bool) -> ApprovalRecord:
        data = self._cache.approval(placement) if kept else self._read_approval(placement)
        if data is None:
            message = f"no approval of version {placement.model_version} is on this machine"
            raise RegistryUnavailableError(message)
        try:
            record = verify(read_signed(data), load_public_key(self._public_key))
        except ApprovalInvalidError as error:
            self._refuse(placement, str(error), error)
        claims = {
            "model": (record.model_name, self._model_name),
            "version": (record.model_version, placement.model_version),
            "digest": (record.bundle_digest, placement.bundle_digest),
            "run": (record.run_id, placement.run_id),
            "role": (record.role, placement.role),
            "percent": (record.percent, placement.percent),
        }
        for what, (approved, found) in claims.items():
            if approved != found:
                self._refuse(placement, f"the approval is for {what} {approved}, not {found}")
        with suppress(OSError):
            self._cache.keep_approval(placement, data)
        return record

    def _read_approval(self, placement: Placement) -> bytes:
        """The signed approval in the artifact store or, where that does not answer, on disk."""
        name = approval_file(placement.model_version)
        try:
            artifacts = self._artifacts(placement)
            if Path(name).name in artifacts.names(APPROVAL_FOLDER):
                return artifacts.read(name, _MOST_APPROVAL_BYTES)
        except RegistryUnavailableError:
            if (data := self._cache.approval(placement)) is None:
                raise
            return data
        # A store that is not mounted may look like one that has nothing.
        if (data := self._cache.approval(placement)) is None:
            self._refuse(placement, "no approval was recorded for it")
        return data

    def _bundle(self, placement: Placement, *, kept: bool) -> Bundle:
        """The bundle placed: the one in use, the one on disk, or a verified one."""
        digest = placement.bundle_digest
        bundle = self._loaded.get(digest) or self._bundle_on_disk(digest)
        if bundle is None and kept:
            message = f"no sound bundle of version {placement.model_version} is on this machine"
            raise RegistryUnavailableError(message)
        bundle = self._loaded[digest] = bundle or self._read_bundle(placement, digest)
        return bundle

    def compile_beside(self, placement: Placement, sizes: Sequence[int]) -> bool:
        """Have a model that was loaded compiled by another process; see :mod:`.forerunner`.

        Returns:
            Whether that was done: it is not where nothing is kept on this machine.
        """
        folder = self._cache.bundle(placement.bundle_digest)
        if folder is None:
            return False
        return compile_beside(folder, placement.bundle_digest, self._cache.programs, sizes)

    def _bundle_on_disk(self, digest: str) -> Bundle | None:
        folder = self._cache.bundle(digest)
        if folder is None:
            return None
        try:
            return load_bundle(folder, expected_digest=digest)
        except BundleError:
            # Half written or altered on this disk; the artifact store may hold a sound one.
            self._cache.drop_bundle(digest)
            return None

    def _read_bundle(self, placement: Placement, digest: str) -> Bundle:
        """The bundle of this digest from the artifact store, and once verified into the cache."""
        with self._cache.incoming() as folder:
            local = folder / BUNDLE_FOLDER
            local.mkdir()
            artifacts = self._artifacts(placement)
            names = artifacts.names(BUNDLE_FOLDER)
            if len(names) > _MOST_BUNDLE_FILES:
                self._refuse(placement, f"its bundle has {len(names)} files")
            for name in names:
                if Path(name).name != name or name in {"", ".."}:
                    self._refuse(placement, f"its bundle has {name!r}, which is no file's name")
                data = artifacts.read(f"{BUNDLE_FOLDER}/{name}", _MOST_BUNDLE_BYTES)
                (local / name).write_bytes(data)
            try:
                bundle = load_bundle(local, expected_digest=digest)
            except BundleError as error:
                # Told without the folder's random name: the same refusal reads the same each time.
                self._refuse(placement, str(error).replace(f"{folder}/", ""), error)
            self._cache.keep_bundle(local, digest)
        return bundle

    def _artifacts(self, placement: Placement) -> Artifacts:
        """The files of the run that a placement names."""
        return self._client.artifacts(placement.run_id)

    def _refuse(self, placement: Placement, why: str, cause: Exception | None = None) -> NoReturn:
        message = f"{self._model_name} version {placement.model_version} is refused: {why}"
        raise ModelRefusedError(message) from cause
