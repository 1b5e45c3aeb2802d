"""What an inference service of an image needs to serve: a registry, features, keys."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cryptoml_serving.security.keys import add_key
from cryptoml_serving.security.roles import Role
from tests.images.container import USER
from tests.sandbox_server import free_port
from tests.serving_client import write_usual_features
from tests.serving_world import NOW, SYMBOLS, ServingWorld, build_templates

_SECONDS = 5.0


@dataclass(frozen=True)
class Served:
    """A home for the service, and how it is asked.

    Attributes:
        folder: to be there, at the same place, in the container.
        environment: of the container.
        key: with the role predict.
        port: where it answers.
    """

    folder: Path
    environment: Mapping[str, str]
    key: str
    port: int

    def is_ready(self) -> bool:
        """Whether it says that it serves predictions."""
        try:
            return self._get("/ready").is_success
        except httpx.TransportError:
            return False

    def ask(self, key: str) -> str:
        """The status and the answer to a request for a prediction."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/predict",
            json={"symbol": SYMBOLS[0]},
            headers=headers,
            timeout=_SECONDS,
            trust_env=False,
        )
        return f"{answer.status_code} {answer.text}"

    def devices(self) -> list[str]:
        """What models run on."""
        return [
            sample.labels["device"]
            for family in text_string_to_metric_families(self._get("/metrics").text)
            for sample in family.samples
            if sample.name == "serving_device" and sample.value
        ]

    def _get(self, path: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(url, headers=headers, timeout=_SECONDS, trust_env=False)


@contextlib.contextmanager
def world() -> Iterator[Served]:
    """An approved champion with features, all of it the container user's."""
    folder = Path(tempfile.mkdtemp(prefix="image-check-world-"))
    try:
        made = ServingWorld(folder / "world", build_templates(folder))
        write_usual_features(made)
        made.publish()
        keys, port = made.folder / "keys.json", free_port()
        key = add_key(keys, "check", roles=[Role.PREDICT], rate=0.0, now=datetime.now(UTC))
        environment = {
            "CRYPTOML_HOME": str(made.folder / "home"),
            "CRYPTOML_NOW": NOW.isoformat(),
            "CRYPTOML_SYMBOLS": ",".join(SYMBOLS),
            "CRYPTOML_SERVING_KEYS": str(keys),
            "CRYPTOML_SERVING_PORT": str(port),
            "CRYPTOML_SERVING_ADMIN_PORT": str(free_port()),
        }
        for each in (made.folder, *made.folder.rglob("*")):
            os.chown(each, USER, USER)
        yield Served(made.folder, environment, key, port)
    finally:
        shutil.rmtree(folder)
