"""One limit on every whole question to a registry, whatever its client waits for.

A database's driver may wait for ever, a server may say a word a second, a network folder may hang.
A question that takes too long is left to its thread, which nobody waits for, and is told as a
registry that does not answer.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from cryptoml_serving.runtime.errors import RegistryUnavailableError, ServingError
from cryptoml_serving.runtime.registry_client import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoml_serving.runtime.registry_client import Artifacts, RegisteredModel, RegistryClient

#: Seconds for one question, the import of MLflow included where that is the client.
_ANSWER_SECONDS = 15.0
#: Seconds for one file.
_FILE_SECONDS = 90.0
#: Longest pause between two questions while earlier ones hang: each costs a thread.
_LONGEST_PAUSE = 600.0
_Answer = TypeVar("_Answer")


class LimitedRegistry:
    """A registry that answers in time, or is told not to."""

    def __init__(self, address: str) -> None:
        """Connect to nothing yet; ``address`` is MLflow's."""
        self._address = address
        self._client: RegistryClient | None = None
        self._looks, self._files = _Limit("the model registry"), _Limit("the artifact store")

    def model(self, name: str) -> RegisteredModel | None:
        """What is registered by a name, if anything is."""
        return self._looks.within(_ANSWER_SECONDS, lambda: self._connected().model(name))

    def artifacts(self, run_id: str) -> Artifacts:
        """Where the files of a run are."""
        found = self._looks.within(_ANSWER_SECONDS, lambda: self._connected().artifacts(run_id))
        return _LimitedArtifacts(found, self._files)

    def _connected(self) -> RegistryClient:
        if self._client is None:
            self._client = connect(self._address)
        return self._client


class _LimitedArtifacts:
    """Files of one run, within the same limits."""

    def __init__(self, artifacts: Artifacts, limit: _Limit) -> None:
        self._artifacts = artifacts
        self._limit = limit

    def names(self, folder: str) -> list[str]:
        """Names of what lies in a folder; none where there is no such folder."""
        return self._limit.within(_ANSWER_SECONDS, lambda: self._artifacts.names(folder))

    def read(self, path: str, limit: int) -> bytes:
        """Content of a file."""
        return self._limit.within(_FILE_SECONDS, lambda: self._artifacts.read(path, limit))


class _Limit:
    """Calls what may hang. While some do, others are made at pauses that grow."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._lock = threading.Lock()
        self._hanging: list[threading.Thread] = []
        self._next = 0.0

    def within(self, seconds: float, call: Callable[[], _Answer]) -> _Answer:
        """What ``call`` gives, if it does in time.

        Raises:
            RegistryUnavailableError: it does not, or raises what is no error of this package.
        """
        self._check()
        future: Future[_Answer] = Future()
        thread = threading.Thread(
            target=_settle, args=(future, call), name="registry-question", daemon=True
        )
        thread.start()
        try:
            return future.result(seconds)
        except ServingError:
            raise
        except Exception as error:
            if future.done():
                why = f"{type(error).__name__}: {error}"
            else:
                why = f"nothing within {seconds:g} s"
                self._hangs(thread)
            raise RegistryUnavailableError(f"{self._part} does not answer: {why}") from error

    def _check(self) -> None:
        with self._lock:
            self._hanging = [thread for thread in self._hanging if thread.is_alive()]
            if self._hanging and time.monotonic() < self._next:
                message = f"{self._part} does not answer: {len(self._hanging)} questions to it hang"
                raise RegistryUnavailableError(message)

    def _hangs(self, thread: threading.Thread) -> None:
        with self._lock:
            self._hanging.append(thread)
            self._next = time.monotonic() + min(_LONGEST_PAUSE, 2.0 ** len(self._hanging))


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        answer = call()
    except Exception as error:  # noqa: BLE001 - it is the caller's to handle
        future.set_exception(error)
    else:
        future.set_result(answer)
