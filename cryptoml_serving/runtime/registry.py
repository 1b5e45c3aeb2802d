"""The approved model: found through the registry's alias, trusted only for its signature.

The alias says which version *should* serve. Whether it *may* is decided here, from the signed
approval and the public key alone: the registry and its artifact store are not trusted.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cryptoml_serving.contract.approval import (
    ApprovalInvalidError,
    ApprovalRecord,
    load_public_key,
    read_signed,
    verify,
)
from cryptoml_serving.contract.bundle import Bundle, BundleError, load_bundle
from cryptoml_serving.contract.feature_store import PRICE_VIEW
from cryptoml_serving.contract.registry import (
    APPROVAL_FOLDER,
    BUNDLE_FOLDER,
    CHAMPION_ALIAS,
    DIGEST_TAG,
    MLFLOW_ENVIRONMENT,
    approval_file,
    champion_uri,
)
from cryptoml_serving.runtime.errors import (
    ModelRefusedError,
    NoChampionError,
    RegistryUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: MLflow's own defaults wait for minutes; a poll that fails is simply repeated. A connection kept
#: open would go on reading a database file that was replaced since. Log lines are left to this
#: service's own format.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_PRIVATE = 0o700
_INCOMING = ".incoming-"
#: Age at which a download belongs to no living process any more.
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Champion:
    """What the alias points at, on the registry's word alone.

    Attributes:
        version: the registry's version of the model.
        run_id: the training run that holds bundle and approval.
        digest: the bundle's digest as tagged on the version; empty when untagged.
    """

    version: str
    run_id: str
    digest: str


@dataclass(frozen=True)
class ApprovedModel:
    """A bundle that a verified approval names.

    Attributes:
        record: the verified approval.
        bundle: the verified bundle, able to predict.
    """

    record: ApprovalRecord
    bundle: Bundle

    @property
    def identity(self) -> tuple[str, str]:
        """Version and digest: what must change for another model to be loaded."""
        return self.record.model_version, self.record.bundle_digest


class ModelRegistry:
    """Reads the approved model from MLflow, and keeps verified bundles on disk by digest."""

    def __init__(
        self, *, address: str, model_name: str, public_key: Path, cache: Path, world: str
    ) -> None:
        """Touch nothing yet.

        Args:
            address: MLflow's tracking and registry address.
            model_name: name of the registered model.
            public_key: PEM file of the key that must have signed the approval.
            cache: folder of verified bundles.
            world: the world served; a model that learned from another one is refused.
        """
        self._address = address
        self._model_name = model_name
        self._public_key = public_key
        self._cache = cache
        self._world = world
        self._client: Any = None

    def prepare(self) -> None:
        """Import what loading a model needs, which takes seconds.

        MLflow reads parts of its environment when it is first imported, so that comes first.
        """
        os.environ.update(MLFLOW_ENVIRONMENT)
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        importlib.import_module("mlflow")
        importlib.import_module("jax")

    def champion(self) -> Champion:
        """What the champion alias points at now.

        Raises:
            RegistryUnavailableError: the registry does not answer.
            NoChampionError: no version carries the alias.
            ModelRefusedError: the version is no number, and part of paths later on.
        """
        client = self._connect()
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

        with self._answering("the model registry"):
            try:
                version = client.get_model_version_by_alias(self._model_name, CHAMPION_ALIAS)
            except MlflowException as error:
                if error.error_code not in _ABSENT:
                    raise
                message = f"{champion_uri(self._model_name)} is no model yet: {error.message}"
                raise NoChampionError(message) from error
        found = Champion(str(version.version), version.run_id, version.tags.get(DIGEST_TAG, ""))
        if not (found.version.isascii() and found.version.isdigit()):
            self._refuse(found, "a version is a number")
        return found

    def load(self, champion: Champion) -> ApprovedModel:
        """Verify the champion's approval and bundle, and load it.

        Raises:
            RegistryUnavailableError: artifacts cannot be read.
            ModelRefusedError: anything about it is not what a valid approval says.
        """
        record = self._approval(champion)
        bundle = self._bundle(champion, record.bundle_digest)
        manifest = bundle.manifest
        if manifest.model_name != self._model_name:
            self._refuse(champion, f"the bundle is of model {manifest.model_name}")
        if self._world not in re.findall(r"[a-z]+", manifest.source):
            self._refuse(champion, f"it learned from {manifest.source} data, not {self._world}")
        if PRICE_VIEW not in {feature.view for feature in manifest.features}:
            self._refuse(champion, f"it reads nothing of {PRICE_VIEW}, so no answer has a date")
        return ApprovedModel(record, bundle)

    def _approval(self, champion: Champion) -> ApprovalRecord:
        name = approval_file(champion.version)
        client = self._connect()
        with (
            self._answering("the artifact store"),
            tempfile.TemporaryDirectory(prefix="cryptoml-approval-") as folder,
        ):
            present = client.list_artifacts(champion.run_id, APPROVAL_FOLDER)
            if name not in {file.path for file in present}:
                self._refuse(champion, "no approval was recorded for it")
            local = client.download_artifacts(champion.run_id, name, folder)
            data = Path(local).read_bytes()
        try:
            record = verify(read_signed(data), load_public_key(self._public_key))
        except ApprovalInvalidError as error:
            self._refuse(champion, str(error), error)
        claims = {
            "model": (record.model_name, self._model_name),
            "version": (record.model_version, champion.version),
            "digest": (record.bundle_digest, champion.digest),
            "run": (record.run_id, champion.run_id),
        }
        for what, (approved, found) in claims.items():
            if approved != found:
                self._refuse(champion, f"the approval is for {what} {approved}, not {found}")
        return record

    def _bundle(self, champion: Champion, digest: str) -> Bundle:
        """The bundle of this digest, from the cache or, once verified, into it."""
        kept = self._cache / digest
        if kept.exists():
            try:
                return load_bundle(kept, expected_digest=digest)
            except BundleError:
                # Half written or altered on this disk; the artifact store may hold a sound one.
                shutil.rmtree(kept, ignore_errors=True)
        client = self._connect()
        self._make_cache()
        with (
            self._answering("the artifact store"),
            tempfile.TemporaryDirectory(dir=self._cache, prefix=_INCOMING) as folder,
        ):
            local = client.download_artifacts(champion.run_id, BUNDLE_FOLDER, folder)
            try:
                bundle = load_bundle(Path(local), expected_digest=digest)
            except BundleError as error:
                # Told without the folder's random name: the same refusal reads the same each time.
                self._refuse(champion, str(error).replace(f"{folder}/", ""), error)
            # Another process may have been as quick; then its copy is as good.
            with suppress(OSError):
                Path(local).rename(kept)
        return bundle

    def _make_cache(self) -> None:
        """The folder of bundles, without what a killed process left half downloaded."""
        self._cache.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        for left in self._cache.glob(f"{_INCOMING}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(left)

    def _connect(self) -> Any:
        """The MLflow client; a SQLite registry that is not there is never created."""
        if self._address.startswith("sqlite:///"):
            path = Path(self._address.removeprefix("sqlite:///"))
            if not path.exists():
                message = f"there is no model registry at {path}"
                raise RegistryUnavailableError(message)
        if self._client is None:
            self.prepare()
            from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

            with self._answering("the model registry"):
                self._client = MlflowClient(self._address, self._address)
        return self._client

    @contextmanager
    def _answering(self, part: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - comes with MLflow

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            message = f"{part} of {self._model_name} does not answer: {error}"
            raise RegistryUnavailableError(message) from error

    def _refuse(self, champion: Champion, why: str, cause: Exception | None = None) -> NoReturn:
        message = f"{self._model_name} version {champion.version} is refused: {why}"
        raise ModelRefusedError(message) from cause
