from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "audit"
SOUND: dict[str, Any] = {"name": "sound", "version": "1.0", "vulns": []}
SKIPPED: dict[str, Any] = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}
HOLED: dict[str, Any] = {
    "name": "holed",
    "version": "2.0",
    "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2.1"]}],
}


@pytest.fixture(scope="module")
def audit() -> Any:
    loader = SourceFileLoader("audit_script", str(SCRIPT))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([SOUND], 0, "1 of 1 packages looked up, 0 vulnerable"),
        ([SOUND, SKIPPED], 2, "NOT AUDITED: 1 packages"),
        ([], 2, "NOT AUDITED"),
        ([HOLED, SKIPPED], 1, "holed 2.0: CVE-2026-1; fixed in: 2.1"),
    ],
)
def test_what_was_not_looked_up_is_not_sound(
    audit: Any, packages: list[dict[str, Any]], status: int, told: str
) -> None:
    lines, found = audit.verdict(packages)
    assert found == status
    assert told in "\n".join(lines)
