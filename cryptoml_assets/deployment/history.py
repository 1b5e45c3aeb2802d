"""The append-only table of decisions: a chain in which an edit shows.

Each row is one signed record. A record names its place in the order and the digest of the one
before, signature included, so that no row can be changed, left out or put in between without the
chain saying so. That the newest rows are missing, only the signed deployment in the registry says.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import ValidationError

from cryptoml_assets.errors import ApprovalError
from cryptoml_serving.contract.approval import (
    NO_RECORD,
    Action,
    ApprovalInvalidError,
    ApprovalRecord,
    Criterion,
    Role,
    SignedDocument,
    sign,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from cryptoml_assets.resources.lake import Lake
    from cryptoml_serving.contract.deployment import Deployment

#: Lake table with one row per decision.
TABLE = "deployments"
SCHEMA = pl.Schema(
    {
        "sequence": pl.Int64(),
        "decided_at": pl.Datetime("us", "UTC"),
        "action": pl.String(),
        "role": pl.String(),
        "percent": pl.Float64(),
        "model_name": pl.String(),
        "model_version": pl.String(),
        "bundle_digest": pl.String(),
        "decided_by": pl.String(),
        "reason": pl.String(),
        "record": pl.String(),
        "signature": pl.String(),
        "key_id": pl.String(),
    }
)
#: Columns for people, which say again what is signed.
_REPEATED = tuple(name for name in SCHEMA if name in ApprovalRecord.model_fields)


@dataclass(frozen=True)
class Subject:
    """What a decision is about: one version made from one bundle by one run, and its claim."""

    model_name: str
    model_version: str
    run_id: str
    bundle_digest: str
    claim: str


@dataclass(frozen=True)
class Decision:
    """A record before it has its place in the chain; see :class:`ApprovalRecord`.

    Attributes:
        subject: what is decided about.
        action: approve, promote, rollback or withdraw.
        role: what the version may do from then on.
        percent: of the requests, for a canary; else 0.
        source: the world its rows came from.
        data_versions: lake table to the version it was made from.
        git_commit: of the code that made it.
        criteria: what it was held against.
        decided_by: a person or a policy.
        reason: in words.
        decided_at: UTC.
    """

    subject: Subject
    action: Action
    role: Role
    percent: float
    source: str
    data_versions: Mapping[str, int]
    git_commit: str
    criteria: tuple[Criterion, ...]
    decided_by: str
    reason: str
    decided_at: datetime

    def record(self, sequence: int, previous: str) -> ApprovalRecord:
        """The record at one place of the chain.

        Raises:
            ApprovalError: no such record can be made, as of a role that the action cannot give.
        """
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        subject = {field.name: getattr(self.subject, field.name) for field in fields(Subject)}
        del own["subject"]
        try:
            return ApprovalRecord(sequence=sequence, previous=previous, **subject, **own)
        except ValueError as error:
            message = f"version {self.subject.model_version}: no such decision: {error}"
            raise ApprovalError(message) from error


@dataclass(frozen=True)
class Entry:
    """One row: the record, and as it was signed."""

    record: ApprovalRecord
    signed: SignedDocument

    @property
    def digest(self) -> str:
        """What the next record names as the one before."""
        return self.signed.digest

    @property
    def subject(self) -> Subject:
        """What the record is about."""
        values = {field.name: getattr(self.record, field.name) for field in fields(Subject)}
        return Subject(**values)

    def again(self, **changes: Any) -> Decision:
        """A new decision about the same version, made from the same data."""
        kept = {field.name: getattr(self.record, field.name) for field in fields(Decision)[1:]}
        return Decision(subject=self.subject, **{**kept, **changes})


def rows(lake: Lake) -> pl.DataFrame:
    """The table as it is stored, in order; nothing is verified.

    Raises:
        ApprovalError: it has not the columns of a history.
    """
    if not lake.exists(TABLE):
        return pl.DataFrame(schema=SCHEMA)
    found = lake.schema(TABLE)
    if lacking := [name for name in SCHEMA if found.get(name) != SCHEMA[name]]:
        message = (
            f"the lake table {TABLE} has no {', '.join(lacking)} as this code writes them: it was "
            "made by an earlier version or altered; keep a copy, move it away together with the "
            "deployment tag of the registered model, and materialise validated_deployment"
        )
        raise ApprovalError(message)
    return lake.scan(TABLE).sort("sequence", maintain_order=True).collect()


def read(lake: Lake, public_key: Ed25519PublicKey) -> list[Entry]:
    """All decisions, verified, oldest first.

    Raises:
        ApprovalError: the history is not sound; nothing may be concluded from it.
    """
    return _entries(rows(lake), public_key)


def faults(
    stored: pl.DataFrame, public_key: Ed25519PublicKey, deployment: Deployment | None = None
) -> list[str]:
    """Everything that is wrong with a history; empty when it is sound.

    Args:
        stored: :func:`rows`.
        public_key: verifies the signatures.
        deployment: the signed deployment of the registry: it names a decision that must be there.

    Returns:
        One sentence per fault, with the place in the order.
    """
    found: list[str] = []
    previous, digests = NO_RECORD, {}
    for place, row in enumerate(stored.sort("sequence", maintain_order=True).iter_rows(named=True)):
        told = f"row {place} (sequence {row['sequence']}, version {row['model_version']})"
        signed = None
        try:
            signed = _signed(row)
            record = verify(signed, public_key)
        except (ApprovalInvalidError, ValidationError) as error:
            found.append(f"{told}: {error}")
        else:
            found += [f"{told}: {why}" for why in _misfits(record, row, place, previous)]
            digests[record.sequence] = signed.digest
        previous = signed.digest if signed is not None else NO_RECORD
    if deployment is not None and digests.get(deployment.sequence) != deployment.head:
        found.append(_behind(deployment))
    return found


def require_not_behind(entries: Sequence[Entry], deployment: Deployment | None) -> None:
    """Refuse a history that lacks the decision which the registry's signed deployment follows.

    The table is written first, so read the deployment before it: then it is never behind, unless
    its newest rows were cut off. To go on from such a table would make that good.

    Raises:
        ApprovalError: it lacks that decision.
    """
    if deployment is None:
        return
    held = entries[deployment.sequence : deployment.sequence + 1]
    if not held or held[0].digest != deployment.head:
        message = f"the history of deployments is not sound: {_behind(deployment)}"
        raise ApprovalError(message)


def append(
    lake: Lake,
    private_key: Ed25519PrivateKey,
    decide: Callable[[Sequence[Entry]], Decision | None],
) -> list[Entry]:
    """Add what ``decide`` makes of the history, if anything, as one commit.

    Args:
        lake: holds the table.
        private_key: signs the record.
        decide: gets all decisions, oldest first; called again where another writer was faster.

    Returns:
        All decisions as of then, the new one last.

    Raises:
        ApprovalError: the history is not sound, or the decision is none.
        ApprovalInvalidError: the record would never verify.
    """
    entries: list[Entry] = []

    def more(stored: pl.DataFrame) -> pl.DataFrame:
        entries[:] = _entries(stored, private_key.public_key())
        decision = decide(entries)
        if decision is None:
            return pl.DataFrame(schema=SCHEMA)
        record = decision.record(len(entries), entries[-1].digest if entries else NO_RECORD)
        entries.append(Entry(record, sign(record, private_key)))
        return pl.DataFrame([_row(entries[-1])], schema=SCHEMA)

    lake.extend(TABLE, more, SCHEMA)
    return entries


def _behind(deployment: Deployment) -> str:
    return (
        f"the registry's deployment follows decision {deployment.sequence} "
        f"({deployment.head[:12]}), which is not in the table: rows are missing or replaced"
    )


def _entries(stored: pl.DataFrame, public_key: Ed25519PublicKey) -> list[Entry]:
    if found := faults(stored, public_key):
        message = f"the history of deployments is not sound: {'; '.join(found)}"
        raise ApprovalError(message)
    ordered = stored.sort("sequence").iter_rows(named=True)
    return [Entry(verify(_signed(row), public_key), _signed(row)) for row in ordered]


def _misfits(
    record: ApprovalRecord, row: Mapping[str, Any], place: int, previous: str
) -> list[str]:
    """What a genuine record says that its row, or its place, does not."""
    found = [
        f"the column {name} says {row[name]!r}, signed is {getattr(record, name)!r}"
        for name in _REPEATED
        if row[name] != getattr(record, name)
    ]
    if record.sequence != place:
        found.append(f"it is decision {record.sequence}, so rows are missing, double or replaced")
    elif record.previous != previous:
        found.append(f"it follows {record.previous[:12]}, the row before is {previous[:12]}")
    return found


def _signed(row: Mapping[str, Any]) -> SignedDocument:
    return SignedDocument(
        record_json=row["record"], signature=row["signature"], key_id=row["key_id"]
    )


def _row(entry: Entry) -> dict[str, Any]:
    return {
        **{name: getattr(entry.record, name) for name in _REPEATED},
        "record": entry.signed.record_json,
        "signature": entry.signed.signature,
        "key_id": entry.signed.key_id,
    }
