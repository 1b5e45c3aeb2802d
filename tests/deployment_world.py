"""Decisions made for real: a key pair, a lake, and subjects to decide about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cryptoml_assets.deployment import history
from cryptoml_assets.deployment.history import Decision, Entry, Subject
from cryptoml_serving.contract.approval import Criterion

if TYPE_CHECKING:
    from cryptoml_assets.resources.lake import Lake

MODEL = "cryptoml-return"
BEGAN = datetime(2024, 3, 1, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
PASSED = Criterion(name="significance", passed=True, figure=0.01, threshold=0.05, rule="p at most")
FAILED = PASSED.model_copy(update={"passed": False, "figure": 0.5})


def subject(version: int, *, run_id: str | None = None) -> Subject:
    return Subject(MODEL, str(version), run_id or f"run{version}", f"{version:064x}", "direction")


def decision(
    version: int, action: str = "approve", role: str = "champion", **other: Any
) -> Decision:
    given: dict[str, Any] = {
        "subject": subject(version),
        "action": action,
        "role": role,
        "percent": 10.0 if role == "canary" else 0.0,
        "source": "simulated",
        "data_versions": {"price_features": version},
        "git_commit": "abc",
        "criteria": (PASSED,),
        "decided_by": "policy:automatic",
        "reason": "passed",
        "decided_at": BEGAN + timedelta(hours=version),
    }
    return Decision(**{**given, **other})


def decided(lake: Lake, *decisions: Decision) -> list[Entry]:
    """Append decisions one after another; the whole history."""
    entries: list[Entry] = []
    for each in decisions:
        entries = history.append(lake, KEY, lambda _, made=each: made)
    return entries
