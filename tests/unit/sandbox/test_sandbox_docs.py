from __future__ import annotations

from pathlib import Path

import pytest

from cryptoml_sandbox.app import create_app
from cryptoml_sandbox.settings import Faults, SandboxSettings

PAGE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text()


@pytest.mark.parametrize(("name", "meaning"), SandboxSettings.variables().items())
def test_every_setting_is_on_the_page_with_its_meaning(name, meaning):
    assert f"| `{name}` | {meaning} |" in PAGE


@pytest.mark.parametrize("name", Faults.model_fields)
def test_every_fault_is_on_the_page(name):
    assert f"`{name}`" in PAGE


def test_every_address_is_on_the_page():
    paths = [route.path for route in create_app(SandboxSettings()).routes]
    public = [path for path in paths if path != "/rpc/reorg"]
    assert len(public) > 8
    assert all(path.removeprefix("/api/v3/") in PAGE for path in public)
