"""The approval record: who let which bundle serve, on what evidence, signed with Ed25519.

A record names one bundle by digest and every criterion with its figure. It is signed as canonical
JSON; what verifies is exactly what was signed. A record without criteria, or with one that did not
pass, never verifies, whoever signed it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING, Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from cryptoml_serving.contract.bundle import canonical_json

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
_PRIVATE_MODE = 0o600
_OTHERS = 0o077


class ApprovalInvalidError(Exception):
    """An approval, a signature or a key cannot be trusted; the message says which and why."""


class Criterion(BaseModel):
    """One rule a model was held against.

    ``figure`` is what was measured and ``threshold`` what the rule asks for, in the units the
    ``rule`` states in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    figure: FiniteFloat
    threshold: FiniteFloat
    rule: str


class ApprovalRecord(BaseModel):
    """A decision that one bundle may serve."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = SCHEMA_VERSION
    model_name: str
    model_version: str
    bundle_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    run_id: str
    #: The skill the model has shown: direction or distribution.
    claim: Literal["direction", "distribution"]
    source: str
    criteria: tuple[Criterion, ...]
    decided_by: str
    reason: str
    decided_at: AwareDatetime

    @model_validator(mode="after")
    def _criteria_are_distinct(self) -> Self:
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) != len(names):
            message = f"a criterion appears twice: {names}"
            raise ValueError(message)
        return self


class SignedApproval(BaseModel):
    """A record as it was signed: its JSON, the signature in base64, and whose key it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_json: str
    signature: str
    key_id: str


def sign(record: ApprovalRecord, private_key: Ed25519PrivateKey) -> SignedApproval:
    """Sign a record's canonical JSON.

    Raises:
        ApprovalInvalidError: the record would never verify.
    """
    _require_passes(record)
    text = canonical_json(record)
    return SignedApproval(
        record_json=text.decode(),
        signature=base64.b64encode(private_key.sign(text)).decode(),
        key_id=key_id(private_key.public_key()),
    )


def verify(signed: SignedApproval, public_key: Ed25519PublicKey) -> ApprovalRecord:
    """The record, if this key signed exactly it and every criterion in it passed.

    Raises:
        ApprovalInvalidError: in every other case.
    """
    if signed.key_id != key_id(public_key):
        message = f"signed by key {signed.key_id}, trusted is {key_id(public_key)}"
        raise ApprovalInvalidError(message)
    try:
        text = signed.record_json.encode()
        public_key.verify(base64.b64decode(signed.signature, validate=True), text)
    except (InvalidSignature, ValueError) as error:  # ValueError: neither text nor base64
        message = "the signature is not that of this record"
        raise ApprovalInvalidError(message) from error
    try:
        record = ApprovalRecord.model_validate_json(text)
    except ValidationError as error:
        message = f"the signed text is not an approval record: {error}"
        raise ApprovalInvalidError(message) from error
    if canonical_json(record) != text:
        message = "the signed text is not canonical JSON"
        raise ApprovalInvalidError(message)
    if record.schema_version != SCHEMA_VERSION:
        message = f"approval schema {record.schema_version}; this code reads {SCHEMA_VERSION}"
        raise ApprovalInvalidError(message)
    _require_passes(record)
    return record


def read_signed(data: bytes) -> SignedApproval:
    """Parse the file an approval is kept in; verifying is a step of its own.

    Raises:
        ApprovalInvalidError: it is not such a file.
    """
    try:
        return SignedApproval.model_validate_json(data)
    except ValidationError as error:
        message = f"not a signed approval: {error}"
        raise ApprovalInvalidError(message) from error


def write_signed(signed: SignedApproval) -> bytes:
    """The file an approval is kept in."""
    return canonical_json(signed)


def key_id(public_key: Ed25519PublicKey) -> str:
    """Short name of a key: the first 16 hex digits of the SHA-256 of its raw bytes."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]


def generate_keys(private_path: Path, public_path: Path) -> None:
    """Create a key pair as PEM files, the private one readable by its owner only.

    Raises:
        FileExistsError: either file is there already; nothing is ever overwritten.
    """
    if public_path.exists():
        message = f"{public_path} exists; a key is never overwritten"
        raise FileExistsError(message)
    private_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    public_path.parent.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(private_path, flags, _PRIVATE_MODE), "wb") as file:
        file.write(pem)
    write_public_key(key, public_path)


def write_public_key(private_key: Ed25519PrivateKey, public_path: Path) -> None:
    """Write the public half of a key as PEM.

    Raises:
        FileExistsError: the file is there already.
    """
    public = private_key.public_key()
    with public_path.open("xb") as file:
        file.write(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a signing key.

    Raises:
        ApprovalInvalidError: missing, not Ed25519, or readable by others than its owner.
    """
    try:
        data, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        message = f"signing key {path} cannot be read: {error}"
        raise ApprovalInvalidError(message) from error
    if mode & _OTHERS:
        message = f"signing key {path} is open to others than its owner: chmod 600 it"
        raise ApprovalInvalidError(message)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = f"signing key {path} is not an unencrypted PEM key: {error}"
        raise ApprovalInvalidError(message) from error
    if not isinstance(key, Ed25519PrivateKey):
        message = f"signing key {path} is not an Ed25519 key"
        raise ApprovalInvalidError(message)
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a verifying key.

    Raises:
        ApprovalInvalidError: missing or not Ed25519.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        message = f"verifying key {path} cannot be read: {error}"
        raise ApprovalInvalidError(message) from error
    if not isinstance(key, Ed25519PublicKey):
        message = f"verifying key {path} is not an Ed25519 key"
        raise ApprovalInvalidError(message)
    return key


def _require_passes(record: ApprovalRecord) -> None:
    if not record.criteria:
        message = "an approval without criteria is no approval"
        raise ApprovalInvalidError(message)
    if failed := [criterion.name for criterion in record.criteria if not criterion.passed]:
        message = f"criteria not passed: {', '.join(failed)}"
        raise ApprovalInvalidError(message)
