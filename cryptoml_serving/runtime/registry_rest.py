"""MLflow's tracking server, read by its REST interface, and its artifact store behind it.

A server that is silent, slow without end or talks without end is given up: the limits are on the
time until it is reached, on each silence, on a whole answer, and on its size.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from cryptoml_serving.contract.stores import masked
from cryptoml_serving.runtime.errors import RegistryUnavailableError
from cryptoml_serving.runtime.registry_client import (
    PATIENCE_SECONDS,
    Artifacts,
    RegisteredModel,
    artifacts_at,
    nothing_of_run,
    too_large,
)

_API = "api/2.0/mlflow"
_PROXY = "api/2.0/mlflow-artifacts/artifacts"
#: Scheme of artifacts that the tracking server itself hands out.
_PROXIED = "mlflow-artifacts"
#: Seconds for a whole answer, and for a whole file.
_ANSWER_SECONDS = 10.0
_FILE_SECONDS = 60.0
_ANSWER_BYTES = 16 * 2**20
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_NOT_FOUND = 404


class _AbsentError(Exception):
    """The server says that there is no such thing."""


class RestRegistry:
    """A tracking server; no connection outlives its answer, as looks are seconds apart."""

    def __init__(self, address: str) -> None:
        """Connect to nothing yet.

        Args:
            address: of the server; credentials come from it or, as for MLflow's own client, from
                ``MLFLOW_TRACKING_USERNAME`` and ``_PASSWORD``, or ``_TOKEN``.
        """
        self._tracking = address
        self._address = masked(address)
        headers = {}
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            headers["Authorization"] = f"Bearer {token}"
        user, password = (os.environ.get(f"MLFLOW_TRACKING_{n}") for n in ("USERNAME", "PASSWORD"))
        self._client = httpx.Client(
            base_url=address.rstrip("/") + "/",
            headers=headers,
            auth=(user, password) if user and password else None,
            timeout=PATIENCE_SECONDS,
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=_certificates(),
            follow_redirects=True,
        )

    def model(self, name: str) -> RegisteredModel | None:
        """What is registered by a name, if anything is."""
        try:
            answer = self._json(f"{_API}/registered-models/get", {"name": name})
        except _AbsentError:
            return None
        try:
            model = answer["registered_model"]
            return RegisteredModel(
                {str(tag["key"]): str(tag.get("value", "")) for tag in model.get("tags", ())},
                {str(each["alias"]): str(each["version"]) for each in model.get("aliases", ())},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise self._unavailable(f"it answers what is no registered model: {error!r}") from error

    def artifacts(self, run_id: str) -> Artifacts:
        """Where the files of a run are: with the server, or where it says."""
        try:
            run = self._json(f"{_API}/runs/get", {"run_id": run_id})["run"]
            uri = str(run["info"]["artifact_uri"])
        except _AbsentError as error:
            raise self._unavailable(f"it has no run {run_id}") from error
        except (KeyError, TypeError) as error:
            raise self._unavailable(f"it answers what is no run: {error!r}") from error
        parts = urlsplit(uri)
        if parts.scheme == _PROXIED and not parts.netloc:
            return _ProxiedArtifacts(self, parts.path.strip("/"))
        return artifacts_at(uri, self._tracking)

    def listing(self, folder: str) -> list[str]:
        """Names of what the server's artifact store has in a folder."""
        try:
            files = self._json(_PROXY, {"path": folder}).get("files", ())
        except _AbsentError:
            return []
        try:
            return [str(file["path"]) for file in files]
        except (KeyError, TypeError) as error:
            raise self._unavailable(f"it answers what is no list of files: {error!r}") from error

    def content(self, path: str, limit: int) -> bytes:
        """A file of the server's artifact store."""
        try:
            data = self._get(f"{_PROXY}/{quote(path)}", {}, limit, _FILE_SECONDS)
        except _AbsentError as error:
            raise self._unavailable(f"it has no file {path}") from error
        if data is None:
            raise too_large(path, limit)
        return data

    def _json(self, path: str, query: dict[str, str]) -> Any:
        data = self._get(path, query, _ANSWER_BYTES, _ANSWER_SECONDS)
        if data is None:
            raise self._unavailable(f"its answer has more than {_ANSWER_BYTES:,} bytes")
        try:
            return json.loads(data)
        except ValueError as error:
            raise self._unavailable(f"its answer is no JSON: {error}") from error

    def _get(self, path: str, query: dict[str, str], limit: int, seconds: float) -> bytes | None:
        """The body of a successful answer; none where it is larger than ``limit``."""
        deadline = time.monotonic() + seconds
        data = bytearray()
        try:
            with self._client.stream("GET", path, params=query) as response:
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > limit:
                        return None
                    if time.monotonic() > deadline:
                        raise self._unavailable(f"its answer takes longer than {seconds:g} s")
                if response.is_success:
                    return bytes(data)
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unavailable(f"{type(error).__name__}: {error}") from error
        code, message = _told(bytes(data))
        if code in _ABSENT or (status == _NOT_FOUND and path.startswith(_PROXY)):
            raise _AbsentError
        raise self._unavailable(f"it answers {status} {code} {message}".rstrip())

    def _unavailable(self, why: str) -> RegistryUnavailableError:
        return RegistryUnavailableError(
            f"the model registry at {self._address} does not answer: {masked(why)}"
        )


class _ProxiedArtifacts:
    """Files of a run that the tracking server hands out."""

    def __init__(self, registry: RestRegistry, root: str) -> None:
        self._registry = registry
        self._root = root

    def names(self, folder: str) -> list[str]:
        """Names of what lies in a folder; none where there is no such folder."""
        names = self._registry.listing(f"{self._root}/{folder}")
        if not names and not self._registry.listing(self._root):
            # The server says the same of a store that is not mounted.
            raise nothing_of_run(self._root)
        return names

    def read(self, path: str, limit: int) -> bytes:
        """Content of a file."""
        return self._registry.content(f"{self._root}/{path}", limit)


def _told(body: bytes) -> tuple[str, str]:
    """Error code and message of an answer, where it has them."""
    try:
        answer = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(answer, dict):
        return "", ""
    return str(answer.get("error_code", "")), str(answer.get("message", ""))


def _certificates() -> Any:
    """What TLS certificates are checked against: MLflow's own file of them, or the system's."""
    file = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    if not file:
        return True
    import ssl  # noqa: PLC0415

    return ssl.create_default_context(cafile=file)
