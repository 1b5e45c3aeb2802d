"""What the service keeps on this machine, so that it can start where no registry answers.

::

    <digest>/                  a verified bundle
    deployment-<model>.json    the newest signed deployment
    approval-<model>-<placement>.json   the signed approval of each version placed in it
    champion-<model>.json      the signed deployment whose champion was loaded last
    newest-<model>.json        number of the newest decision ever seen
    compiled/                  programs that JAX compiled

A bundle that nobody used for 30 days and no deployment names goes when another comes in.
Everything but the programs is verified again when it is read. Programs are machine code: a folder
that others can write to, or one below such a folder, is not used at all.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from cryptoml_serving.contract.private_folder import Purpose, UnsafeFolderError, private_folder
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cryptoml_serving.contract.deployment import Placement

_LOG = logging.getLogger(__name__)
SETTING = "CRYPTOML_SERVING_MODEL_CACHE"
_PURPOSE = Purpose("the service starts from what is in it", f"CRYPTOML_HOME or {SETTING}")
_INCOMING = ".incoming-"
_DIGEST = re.compile("[0-9a-f]{64}")
#: Age at which a download belongs to no living process any more.
_ABANDONED_SECONDS = 3600.0
#: Time since its last use after which a bundle that is not deployed goes: till then, a way back to
#: it needs no artifact store.
_FORGOTTEN_SECONDS = 30 * 86400.0


class Cache:
    """One model's part of the folder; several models and processes may share it.

    Attributes:
        problem: why the folder is not used; empty: it is.
    """

    def __init__(self, folder: Path, model_name: str) -> None:
        """Touch nothing yet."""
        self._folder = folder
        self._model = _short(model_name)
        self.problem = ""

    @property
    def programs(self) -> Path:
        """Folder of compiled programs, there or not."""
        return self._folder / "compiled"

    @property
    def newest(self) -> str:
        """Name of the file with the number of the newest decision."""
        return f"newest-{self._model}.json"

    @property
    def newest_file(self) -> Path:
        """The same with its folder, for people."""
        return self._folder / self.newest

    def folder(self) -> Path | None:
        """The folder, made if need be; none where it must not or cannot be used, which is told."""
        try:
            folder = private_folder(self._folder, _PURPOSE)
        except (UnsafeFolderError, OSError) as error:
            if self.problem != str(error):
                message = f"nothing is kept on this machine: {error}"
                event(_LOG, logging.ERROR, "error", message, error_type="model_cache", part="cache")
            self.problem = str(error)
            return None
        self.problem = ""
        return folder

    def read(self, name: str) -> bytes | None:
        """Content of a file of the folder; none where there is none to be used."""
        folder = self.folder()
        with suppress(OSError):
            return None if folder is None else (folder / name).read_bytes()
        return None

    def write(self, name: str, data: bytes) -> bool:
        """Replace a file of the folder as a whole; nothing where the folder is not used.

        Returns:
            Whether it was written.

        Raises:
            OSError: it cannot be written.
        """
        folder = self.folder()
        if folder is None:
            return False
        incoming = folder / f"{name}.{uuid4().hex}"
        try:
            with incoming.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            incoming.replace(folder / name)
        except OSError:
            incoming.unlink(missing_ok=True)
            raise
        return True

    def keep_deployment(self, text: str, placements: Iterable[Placement]) -> bool:
        """Keep the newest signed deployment.

        Args:
            text: of it.
            placements: whose approvals are kept; others are dropped.

        Returns:
            Whether it was kept: not where the folder is not used.

        Raises:
            OSError: it cannot be written.
        """
        wrote = self.write(f"deployment-{self._model}.json", text.encode())
        folder = self.folder()
        if folder is None or not wrote:
            return False
        placed = {self._approval(each) for each in placements}
        for file in folder.glob(f"approval-{self._model}-*.json"):
            if file.name not in placed:
                file.unlink(missing_ok=True)
        return True

    def deployment(self) -> str | None:
        """The signed deployment that was kept, if one was; not verified."""
        return self._text(f"deployment-{self._model}.json")

    def keep_champion(self, text: str) -> None:
        """Keep the signed deployment whose champion was loaded.

        Raises:
            OSError: it cannot be written.
        """
        if self.champion() != text:
            self.write(f"champion-{self._model}.json", text.encode())

    def champion(self) -> str | None:
        """The signed deployment whose champion was loaded last, if one was; not verified."""
        return self._text(f"champion-{self._model}.json")

    def drop_champion(self) -> None:
        """Forget the champion that was loaded last."""
        folder = self.folder()
        with suppress(OSError):
            if folder is not None:
                (folder / f"champion-{self._model}.json").unlink(missing_ok=True)

    def _text(self, name: str) -> str | None:
        data = self.read(name)
        return None if data is None else data.decode(errors="replace")

    def keep_approval(self, placement: Placement, data: bytes) -> None:
        """Keep the signed approval of a placement.

        Raises:
            OSError: it cannot be written.
        """
        if self.read(self._approval(placement)) != data:
            self.write(self._approval(placement), data)

    def approval(self, placement: Placement) -> bytes | None:
        """The signed approval that was kept of a placement, if one was; not verified."""
        return self.read(self._approval(placement))

    def bundle(self, digest: str) -> Path | None:
        """The folder of a bundle, if there is one; not verified."""
        folder = self.folder()
        kept = None if folder is None else folder / digest
        if kept is None or not kept.exists():
            return None
        with suppress(OSError):
            os.utime(kept)
        return kept

    def drop_bundle(self, digest: str) -> None:
        """Remove a bundle that turned out to be no sound one."""
        if (kept := self.bundle(digest)) is not None:
            shutil.rmtree(kept, ignore_errors=True)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new folder to put a bundle into: one of ours, else of the system's temporary ones."""
        folder = self.folder()
        if folder is not None:
            _drop_abandoned(folder)
            _drop_forgotten(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_INCOMING) as made:
            yield Path(made)

    def keep_bundle(self, incoming: Path, digest: str) -> None:
        """Move a verified bundle from where it came in to where it is looked for."""
        folder = self.folder()
        # Another process may have been as quick; then its copy is as good.
        with suppress(OSError):
            if folder is not None:
                incoming.rename(folder / digest)

    def _approval(self, placement: Placement) -> str:
        return f"approval-{self._model}-{_short(placement.model_dump_json())}.json"


def _drop_abandoned(folder: Path) -> None:
    """Remove what a killed process left half downloaded."""
    for left in folder.glob(f"{_INCOMING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left)


def _drop_forgotten(folder: Path) -> None:
    """Remove bundles that no model's deployment names and nobody used for long."""
    with suppress(OSError):
        kept = [*folder.glob("deployment-*.json"), *folder.glob("champion-*.json")]
        named = "".join(file.read_text(errors="replace") for file in kept)
        for bundle in folder.iterdir():
            old = time.time() - bundle.stat().st_mtime > _FORGOTTEN_SECONDS
            if old and _DIGEST.fullmatch(bundle.name) and bundle.name not in named:
                shutil.rmtree(bundle, ignore_errors=True)


def _short(text: str) -> str:
    """A name for a file that stands for any text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
