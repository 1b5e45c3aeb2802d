"""The signed deployment: what it can say, and that nobody else can say it."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from cryptoml_serving.contract.approval import ApprovalInvalidError, sign_document, write_signed
from cryptoml_serving.contract.deployment import (
    Deployment,
    Placement,
    read_deployment,
    sign_deployment,
)
from tests.deployment_world import decision

KEY = Ed25519PrivateKey.generate()


def placed(version: str, role: str, percent: float = 0.0) -> Placement:
    return Placement.model_validate(
        {
            "model_version": version,
            "bundle_digest": "a" * 64,
            "run_id": "run",
            "role": role,
            "percent": percent,
        }
    )


def deployed(**changes: Any) -> Deployment:
    fields = {
        "model_name": "m",
        "sequence": 4,
        "head": "b" * 64,
        "champion": placed("1", "champion"),
        "challengers": (placed("2", "canary", 10.0), placed("3", "shadow")),
    }
    return Deployment(**{**fields, **changes})


def test_it_reads_as_it_was_signed() -> None:
    assert read_deployment(sign_deployment(deployed(), KEY), KEY.public_key()) == deployed()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        sign_deployment(deployed(), Ed25519PrivateKey.generate()),
        sign_deployment(deployed(), KEY).replace('sequence\\":4', 'sequence\\":5'),
        # A genuine signature of this key, below something else.
        write_signed(sign_document(decision(1).record(0, "0" * 64), KEY)).decode(),
        sign_deployment(deployed(schema_version=2), KEY),
    ],
    ids=["empty", "object", "foreign_key", "altered", "other_document", "other_schema"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ApprovalInvalidError):
        read_deployment(text, KEY.public_key())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"champion": placed("1", "shadow")}, "placed as shadow"),
        ({"challengers": (placed("2", "champion"),)}, "placed as champion"),
        ({"challengers": (placed("1", "shadow"),)}, "placed twice"),
        (
            {"challengers": (placed("2", "canary", 60.0), placed("3", "canary", 40.0))},
            "nothing to answer",
        ),
    ],
)
def test_roles_that_contradict_each_other_cannot_be_written(
    wrong: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        deployed(**wrong)
