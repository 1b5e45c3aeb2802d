"""The approval record: who let which bundle serve, on what evidence, signed with Ed25519.

A record is one decision about one bundle: its role from then on, every criterion with its figure,
and its place in the chain of all decisions. It is signed as canonical JSON; what verifies is
exactly what was signed. A record that gives a role without criteria, or with one that did not pass,
never verifies, whoever signed it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Literal, Self, TypeVar

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

from cryptoml_serving.contract.manifest import canonical_json
from cryptoml_serving.contract.private_folder import is_ours_alone

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 2
#: What the first record of a chain names as the one before it.
NO_RECORD = "0" * 64
_PRIVATE_MODE = 0o600
_OTHERS = 0o077
_DIGEST = r"^[0-9a-f]{64}$"

#: What a version may do: answer, be scored beside the one that answers, answer a share, or nothing.
Role = Literal["champion", "shadow", "canary", "none"]
#: What a decision does: give a role to a version that passed, move a challenger that proved itself
#: up, put an earlier version back, or take a role away.
Action = Literal["approve", "promote", "rollback", "withdraw"]

_Document = TypeVar("_Document", bound=BaseModel)
_NAMES = {
    "ApprovalRecord": "an approval record",
    "Deployment": "a deployment",
    "VerdictRecord": "a verdict of the gate",
}


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
    """A decision about what one bundle may do from then on.

    ``sequence`` counts all decisions of a platform from 0; ``previous`` is the digest of the one
    before. ``percent`` is the share of requests, in percent, that a canary answers, else 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = SCHEMA_VERSION
    sequence: int = Field(ge=0)
    previous: str = Field(pattern=_DIGEST)
    action: Action
    role: Role
    percent: FiniteFloat = Field(0.0, ge=0, lt=100)
    model_name: str
    model_version: str
    bundle_digest: str = Field(pattern=_DIGEST)
    run_id: str
    #: The skill the model has shown: direction or distribution.
    claim: Literal["direction", "distribution"]
    source: str
    #: Lake table → version of it that the bundle was made from.
    data_versions: dict[str, int]
    #: Commit of the code that made the bundle.
    git_commit: str
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

    @model_validator(mode="after")
    def _role_fits(self) -> Self:
        if (self.role == "canary") != (self.percent > 0):
            message = f"a {self.role} that answers {self.percent:g} % of the requests"
            raise ValueError(message)
        if (self.action == "withdraw") != (self.role == "none"):
            message = f"the action {self.action} cannot give the role {self.role}"
            raise ValueError(message)
        if self.action in {"promote", "rollback"} and self.role != "champion":
            message = f"the action {self.action} makes a champion, not a {self.role}"
            raise ValueError(message)
        if (self.sequence == 0) != (self.previous == NO_RECORD):
            message = f"record {self.sequence} cannot follow {self.previous}"
            raise ValueError(message)
        return self


class SignedDocument(BaseModel):
    """A record as it was signed: its JSON, the signature in base64, and whose key it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_json: str
    signature: str
    key_id: str

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the document with its signature: what the next record names."""
        return hashlib.sha256(canonical_json(self)).hexdigest()


def sign(record: ApprovalRecord, private_key: Ed25519PrivateKey) -> SignedDocument:
    """Sign a record's canonical JSON.

    Raises:
        ApprovalInvalidError: the record would never verify.
    """
    _require_passes(record)
    return sign_document(record, private_key)


def verify(signed: SignedDocument, public_key: Ed25519PublicKey) -> ApprovalRecord:
    """The record, if this key signed exactly it and every criterion that it needs passed.

    Raises:
        ApprovalInvalidError: in every other case.
    """
    record = verify_document(signed, public_key, ApprovalRecord)
    if record.schema_version != SCHEMA_VERSION:
        message = f"approval schema {record.schema_version}; this code reads {SCHEMA_VERSION}"
        raise ApprovalInvalidError(message)
    _require_passes(record)
    return record


def sign_document(document: BaseModel, private_key: Ed25519PrivateKey) -> SignedDocument:
    """Sign the canonical JSON of any document."""
    text = canonical_json(document)
    return SignedDocument(
        record_json=text.decode(),
        signature=base64.b64encode(private_key.sign(text)).decode(),
        key_id=key_id(private_key.public_key()),
    )


def verify_document(
    signed: SignedDocument, public_key: Ed25519PublicKey, kind: type[_Document]
) -> _Document:
    """The document, if this key signed exactly it and it is of that kind.

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
        document = kind.model_validate_json(text)
    except ValidationError as error:
        message = f"the signed text is not {_NAMES.get(kind.__name__, kind.__name__)}: {error}"
        raise ApprovalInvalidError(message) from error
    if canonical_json(document) != text:
        message = "the signed text is not canonical JSON"
        raise ApprovalInvalidError(message)
    return document


def read_signed(data: bytes) -> SignedDocument:
    """Parse the file an approval is kept in; verifying is a step of its own.

    Raises:
        ApprovalInvalidError: it is not such a file.
    """
    try:
        return SignedDocument.model_validate_json(data)
    except ValidationError as error:
        message = f"not a signed approval: {error}"
        raise ApprovalInvalidError(message) from error


def write_signed(signed: SignedDocument) -> bytes:
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
        data, found = path.read_bytes(), path.stat()
    except OSError as error:
        message = f"signing key {path} cannot be read: {error}"
        raise ApprovalInvalidError(message) from error
    if _is_open(found):
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


def _is_open(found: os.stat_result) -> bool:
    """Whether others than this user can read or write a file.

    A Secret in a pod is root's, and the group of its volume, in which nobody else is, may read it.
    """
    mounted = found.st_uid == 0 != os.geteuid() and is_ours_alone(found.st_gid)
    return bool(found.st_mode & _OTHERS & ~(stat.S_IRGRP if mounted else 0))


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
    if record.role == "none":
        return
    if not record.criteria:
        message = "an approval without criteria is no approval"
        raise ApprovalInvalidError(message)
    if failed := [criterion.name for criterion in record.criteria if not criterion.passed]:
        message = f"criteria not passed: {', '.join(failed)}"
        raise ApprovalInvalidError(message)
