"""The append-only table of approvals."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.approval import (
    ApprovalInvalidError,
    ApprovalRecord,
    SignedApproval,
    load_public_key,
    verify,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from cryptoml_assets.settings import Settings

#: Lake table with one row per approval, in the order they were decided.
TABLE = "deployments"
SCHEMA = pl.Schema(
    {
        "model_name": pl.String(),
        "model_version": pl.String(),
        "bundle_digest": pl.String(),
        "decided_at": pl.Datetime("us", "UTC"),
        "decided_by": pl.String(),
        "reason": pl.String(),
        "record": pl.String(),
        "signature": pl.String(),
        "key_id": pl.String(),
    }
)


@dataclass(frozen=True)
class Subject:
    """What an approval is about: one version made from one bundle by one run, and its claim."""

    model_name: str
    model_version: str
    run_id: str
    bundle_digest: str
    claim: str


def subject(record: ApprovalRecord) -> Subject:
    """What a record is about."""
    return Subject(**{field.name: getattr(record, field.name) for field in fields(Subject)})


def append(lake: Lake, record: ApprovalRecord, signed: SignedApproval) -> None:
    """Add one approval."""
    row = {
        **{name: getattr(record, name) for name in SCHEMA if name in ApprovalRecord.model_fields},
        "record": signed.record_json,
        "signature": signed.signature,
        "key_id": signed.key_id,
    }
    lake.append(TABLE, pl.DataFrame([row], schema=SCHEMA))


def find(lake: Lake, wanted: Subject, public_key: Ed25519PublicKey) -> SignedApproval | None:
    """The newest approval of a subject that this key signed, as it was signed, or none.

    Only what is signed counts: the columns beside it are for people.
    """
    for signed in _signed(lake, wanted.model_name):
        try:
            record = verify(signed, public_key)
        except ApprovalInvalidError:
            continue
        if subject(record) == wanted:
            return signed
    return None


def newest_approval(configured: Settings) -> ApprovalRecord | None:
    """The last approval of the configured model, verified, or none.

    Raises:
        ApprovalInvalidError: the last one in the table was not signed with the platform's key.
    """
    approvals = _signed(Lake(configured.lake_uri), configured.model_name)
    if not approvals:
        return None
    return verify(approvals[0], load_public_key(configured.public_key_path))


def _signed(lake: Lake, model_name: str) -> list[SignedApproval]:
    """Approvals of one model as they were signed, newest first."""
    if not lake.exists(TABLE):
        return []
    rows = (
        lake.scan(TABLE)
        .filter(pl.col("model_name") == model_name)
        .sort("decided_at", pl.col("model_version").cast(pl.Int64), descending=True)
        .select("signature", "key_id", record_json="record")
        .collect()
    )
    return [SignedApproval(**row) for row in rows.iter_rows(named=True)]
