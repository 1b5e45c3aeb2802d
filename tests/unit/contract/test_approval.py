from __future__ import annotations

import base64
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError

from cryptoml_serving.contract.approval import (
    NO_RECORD,
    ApprovalInvalidError,
    ApprovalRecord,
    Criterion,
    SignedDocument,
    generate_keys,
    key_id,
    load_private_key,
    load_public_key,
    read_signed,
    sign,
    verify,
    write_signed,
)
from cryptoml_serving.contract.manifest import canonical_json

KEY = Ed25519PrivateKey.generate()
PASS = Criterion(name="skill", passed=True, figure=0.01, threshold=0.0, rule="above 0")
FAIL = PASS.model_copy(update={"name": "coverage", "passed": False})


def record(*criteria: Criterion, **changes: object) -> ApprovalRecord:
    fields = {
        "sequence": 0,
        "previous": NO_RECORD,
        "action": "approve",
        "role": "champion",
        "data_versions": {"price_features": 3},
        "git_commit": "abc",
        "model_name": "cryptoml-return",
        "model_version": "3",
        "bundle_digest": "a" * 64,
        "run_id": "run",
        "claim": "direction",
        "source": "simulated",
        "criteria": criteria,
        "decided_by": "policy:automatic",
        "reason": "because",
        "decided_at": datetime(2024, 1, 1, tzinfo=UTC),
        **changes,
    }
    return ApprovalRecord.model_validate(fields)


def forge(text: bytes, key: Ed25519PrivateKey = KEY) -> SignedDocument:
    """Sign any text with a trusted key, as a broken or malicious signer would."""
    signature = base64.b64encode(key.sign(text)).decode()
    return SignedDocument(
        record_json=text.decode(), signature=signature, key_id=key_id(key.public_key())
    )


def test_what_was_signed_comes_back_through_its_file() -> None:
    signed = read_signed(write_signed(sign(record(PASS), KEY)))
    assert verify(signed, KEY.public_key()) == record(PASS)


def test_signing_is_deterministic() -> None:
    assert sign(record(PASS), KEY) == sign(record(PASS), KEY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"model_version":"3"', '"model_version":"4"'),
        ("a" * 64, "b" * 64),
        ('"claim":"direction"', '"claim":"distribution"'),
        ('"reason":"because"', '"reason":"because "'),
    ],
)
def test_a_changed_record_does_not_verify(old: str, new: str) -> None:
    signed = sign(record(PASS), KEY)
    assert old in signed.record_json
    altered = signed.model_copy(update={"record_json": signed.record_json.replace(old, new)})
    with pytest.raises(ApprovalInvalidError, match="signature"):
        verify(altered, KEY.public_key())


@pytest.mark.parametrize("signature", ["", "AAAA", "no base64!", "é"])
def test_a_changed_signature_does_not_verify(signature: str) -> None:
    altered = sign(record(PASS), KEY).model_copy(update={"signature": signature})
    with pytest.raises(ApprovalInvalidError, match="signature"):
        verify(altered, KEY.public_key())


def test_another_key_is_not_trusted_even_under_the_trusted_name() -> None:
    other = Ed25519PrivateKey.generate()
    signed = sign(record(PASS), other)
    with pytest.raises(ApprovalInvalidError, match="signed by key"):
        verify(signed, KEY.public_key())
    renamed = signed.model_copy(update={"key_id": key_id(KEY.public_key())})
    with pytest.raises(ApprovalInvalidError, match="signature"):
        verify(renamed, KEY.public_key())


@pytest.mark.parametrize("criteria", [(), (FAIL,), (PASS, FAIL)])
def test_an_approval_without_a_pass_from_every_criterion_never_verifies(
    criteria: tuple[Criterion, ...],
) -> None:
    with pytest.raises(ApprovalInvalidError, match="criteria"):
        sign(record(*criteria), KEY)
    with pytest.raises(ApprovalInvalidError, match="criteria"):
        verify(forge(canonical_json(record(*criteria))), KEY.public_key())


def test_a_record_of_another_schema_does_not_verify() -> None:
    text = canonical_json(record(PASS, schema_version=99))
    with pytest.raises(ApprovalInvalidError, match="schema 99"):
        verify(forge(text), KEY.public_key())


def test_only_the_canonical_spelling_verifies() -> None:
    spaced = json.dumps(json.loads(canonical_json(record(PASS))), sort_keys=True).encode()
    with pytest.raises(ApprovalInvalidError, match="canonical"):
        verify(forge(spaced), KEY.public_key())


@pytest.mark.parametrize("text", [b"{}", b"[]", b"not json"])
def test_a_signed_text_that_is_no_record_does_not_verify(text: bytes) -> None:
    with pytest.raises(ApprovalInvalidError, match="not an approval record"):
        verify(forge(text), KEY.public_key())


def test_a_figure_must_be_a_number_and_a_criterion_appear_once() -> None:
    with pytest.raises(ValidationError):
        Criterion(name="x", passed=True, figure=float("nan"), threshold=0.0, rule="")
    with pytest.raises(ValidationError, match="twice"):
        record(PASS, PASS)


def test_a_file_that_is_no_approval_is_refused() -> None:
    with pytest.raises(ApprovalInvalidError, match="not a signed approval"):
        read_signed(b'{"record_json": 1}')


def test_generated_keys_work_are_private_and_are_never_overwritten(tmp_path: Path) -> None:
    private, public = tmp_path / "keys" / "approval.key", tmp_path / "keys" / "approval.pub"
    generate_keys(private, public)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    signed = sign(record(PASS), load_private_key(private))
    assert verify(signed, load_public_key(public)) == record(PASS)
    before = private.read_bytes()
    with pytest.raises(FileExistsError):
        generate_keys(private, public)
    public.unlink()
    with pytest.raises(FileExistsError):
        generate_keys(private, public)
    assert private.read_bytes() == before


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    private, public = tmp_path / "approval.key", tmp_path / "approval.pub"
    generate_keys(private, public)
    private.chmod(0o640)
    with pytest.raises(ApprovalInvalidError, match="chmod 600"):
        load_private_key(private)


def test_files_that_hold_no_ed25519_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ApprovalInvalidError, match="cannot be read"):
        load_private_key(path)
    with pytest.raises(ApprovalInvalidError, match="cannot be read"):
        load_public_key(path)
    other = X25519PrivateKey.generate()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    path.touch(mode=0o600)
    path.write_bytes(other.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    with pytest.raises(ApprovalInvalidError, match="not an Ed25519 key"):
        load_private_key(path)
    path.write_bytes(other.public_key().public_bytes(pem, spki))
    with pytest.raises(ApprovalInvalidError, match="not an Ed25519 key"):
        load_public_key(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ApprovalInvalidError, match="not an unencrypted PEM key"):
        load_private_key(path)


@pytest.mark.parametrize(
    ("mode", "owner", "user", "group", "refused"),
    [
        (0o440, 0, 10001, 4242424, False),  # a Secret in a pod
        (0o460, 0, 10001, 4242424, True),
        (0o444, 0, 10001, 4242424, True),
        (0o440, 0, 10001, 0, True),
        (0o440, 10002, 10001, 4242424, True),
        (0o440, 10001, 10001, 4242424, True),
        (0o440, 0, 0, 4242424, True),
        (0o400, 10001, 10001, 0, False),
    ],
)
def test_a_mounted_secret_may_be_read_by_a_group_that_nobody_else_is_in(  # noqa: PLR0917 - cases
    mode: int, owner: int, user: int, group: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptoml_serving.contract.approval import _is_open  # noqa: PLC0415

    monkeypatch.setattr(os, "geteuid", lambda: user)
    found = os.stat_result((0o100000 | mode, 1, 1, 1, owner, group, 10, 0, 0, 0))
    assert _is_open(found) is refused
