"""What the registry's own word is held to before it becomes part of a path."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoml_serving.runtime.errors import ModelRefusedError
from cryptoml_serving.runtime.registry import ModelRegistry


class Hostile:
    """A registry that names its versions as it likes."""

    def __init__(self, version: str) -> None:
        self.version = version

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        del name, alias
        return SimpleNamespace(version=self.version, run_id="run", tags={})


@pytest.mark.parametrize("version", ["../../keys/approval", "1/../2", "", "\u0661", "-1"])
def test_a_version_that_is_no_number_is_refused(tmp_path: Path, version: str) -> None:
    registry = ModelRegistry(
        address="http://127.0.0.1:1",
        model_name="m",
        public_key=tmp_path / "key",
        cache=tmp_path / "cache",
        world="simulated",
    )
    registry._client = Hostile(version)
    with pytest.raises(ModelRefusedError, match="a version is a number"):
        registry.champion()
