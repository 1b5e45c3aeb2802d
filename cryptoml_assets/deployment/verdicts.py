"""The append-only table of verdicts: every time the gate was asked, and what it found.

A person approves on a verdict, so each is signed as a decision is. The columns beside the signed
text are for people and for counting; whoever decides on a verdict reads the signed text alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from cryptoml_assets.deployment.history import Subject
from cryptoml_assets.errors import ApprovalError
from cryptoml_serving.contract.approval import (
    ApprovalInvalidError,
    Criterion,
    SignedDocument,
    sign_document,
    verify_document,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from cryptoml_assets.resources.lake import Lake
    from cryptoml_assets.settings import Settings

#: Lake table with one row per verdict.
TABLE = "gate_verdicts"
_INSTANT = pl.Datetime("us", "UTC")
SCHEMA = pl.Schema(
    {
        "number": pl.Int64(),
        "judged_at": _INSTANT,
        "model_name": pl.String(),
        "model_version": pl.String(),
        "bundle_digest": pl.String(),
        "run_id": pl.String(),
        "claim": pl.String(),
        "approved": pl.Boolean(),
        "criteria": pl.String(),
        "champion_version": pl.String(),
        "source": pl.String(),
        "data_versions": pl.String(),
        "git_commit": pl.String(),
        "test_start": _INSTANT,
        "test_end": _INSTANT,
        "record": pl.String(),
        "signature": pl.String(),
        "key_id": pl.String(),
    }
)
#: Settings that the rules judge by; a verdict holds under no others.
LIMITS = (
    "gate_significance",
    "gate_direction_significance",
    "gate_champion_margin",
    "gate_coverage_tolerance",
    "gate_net_floor_bps",
    "gate_suspected_leak",
    "gate_minimum_rows",
    "gate_latency_budget",
    "fee_bps",
    "slippage_bps",
)
_REPAIR = (
    f"restore the lake table {TABLE}, or keep a copy of it, move it away and materialise "
    "validated_deployment"
)


@dataclass(frozen=True)
class Judged:
    """One verdict.

    Attributes:
        subject: what was judged.
        judged_at: UTC.
        criteria: with their figures; all passed where it was approved.
        champion_version: the champion it was compared with, if there was one.
        limits: what the rules judged by; see :func:`limits_of`.
        decisions: how many decisions of the platform had been made by then.
        source: the world its rows came from; empty where the bundle could not be read, as is
            ``git_commit``.
        data_versions: lake table to the version it was made from.
        git_commit: of the code that made it.
        test: first and last instant it was measured on; none where nothing was measured.
    """

    subject: Subject
    judged_at: datetime
    approved: bool
    criteria: tuple[Criterion, ...]
    champion_version: str | None
    limits: Mapping[str, float]
    decisions: int
    source: str
    data_versions: Mapping[str, int]
    git_commit: str
    test: tuple[datetime, datetime] | None


class VerdictRecord(BaseModel):
    """A verdict as it is signed: :class:`Judged`, flat, and its place among all verdicts."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    number: int = Field(ge=0)
    judged_at: AwareDatetime
    model_name: str
    model_version: str
    bundle_digest: str
    run_id: str
    claim: str
    approved: bool
    criteria: tuple[Criterion, ...]
    champion_version: str | None
    limits: dict[str, FiniteFloat]
    decisions: int = Field(ge=0)
    source: str
    data_versions: dict[str, int]
    git_commit: str
    test_start: AwareDatetime | None
    test_end: AwareDatetime | None


#: Columns for people and for counting, which say again what is signed.
_REPEATED = tuple(name for name in SCHEMA if name in VerdictRecord.model_fields)


def limits_of(configured: Settings) -> dict[str, float]:
    """What the gate judges by now: setting to value, durations in seconds."""
    values = {name: getattr(configured, name) for name in LIMITS}
    return {
        name: value.total_seconds() if isinstance(value, timedelta) else float(value)
        for name, value in values.items()
    }


def record(lake: Lake, judged: Judged, private_key: Ed25519PrivateKey) -> None:
    """Sign one verdict and add it."""

    def more(held: pl.DataFrame) -> pl.DataFrame:
        # Numbered in the order they come: a clock that stands still gives many the same instant.
        row = _row(_record(judged, held.height), private_key)
        return pl.DataFrame([row], schema=SCHEMA)

    lake.extend(TABLE, more, SCHEMA)


def stored(lake: Lake, model_name: str) -> pl.DataFrame:
    """All verdicts on a model, oldest first, as the table has them; nothing is verified."""
    if not lake.exists(TABLE):
        return pl.DataFrame(schema=SCHEMA)
    of_model = lake.scan(TABLE).filter(pl.col("model_name") == model_name)
    return of_model.sort("number").collect()


def newest(
    lake: Lake, model_name: str, model_version: str, public_key: Ed25519PublicKey
) -> Judged | None:
    """The last verdict on a version, if there is one, by the signed texts alone.

    Every row is verified, and that none is missing in between: which version a row is about, and
    which one is the last, is not for a column that anybody can write to say.

    Raises:
        ApprovalError: a verdict was altered, left out or not signed by this platform.
    """
    if not lake.exists(TABLE):
        return None
    columns = pl.col("number", "record", "signature", "key_id")
    rows = lake.scan(TABLE).pipe(_with_signatures).select(columns).sort("number").collect()
    signed = sorted((_verified(row, public_key) for row in rows.rows(named=True)), key=_number)
    if [each.number for each in signed] != list(range(len(signed))):
        message = f"verdicts of the gate are missing or double: {_REPAIR}"
        raise ApprovalError(message)
    about = (model_name, model_version)
    own = [each for each in signed if (each.model_name, each.model_version) == about]
    return _judged(own[-1]) if own else None


def _with_signatures(rows: pl.LazyFrame) -> pl.LazyFrame:
    """A table of before verdicts were signed has none of them."""
    known = rows.collect_schema()
    return rows.with_columns(
        pl.lit(None, pl.String).alias(name)
        for name in ("record", "signature", "key_id")
        if name not in known
    )


def _verified(row: dict[str, Any], public_key: Ed25519PublicKey) -> VerdictRecord:
    try:
        signed = SignedDocument(
            record_json=row["record"], signature=row["signature"], key_id=row["key_id"]
        )
        return verify_document(signed, public_key, VerdictRecord)
    except ValidationError as error:
        message = f"verdict {row['number']} of the gate was never signed: {_REPAIR}"
        raise ApprovalError(message) from error
    except ApprovalInvalidError as error:
        message = f"verdict {row['number']} of the gate is not to be trusted: {error}; {_REPAIR}"
        raise ApprovalError(message) from error


def _number(record: VerdictRecord) -> int:
    return record.number


def _record(judged: Judged, number: int) -> VerdictRecord:
    start, end = judged.test or (None, None)
    subject = {field.name: getattr(judged.subject, field.name) for field in fields(Subject)}
    own = {field.name: getattr(judged, field.name) for field in fields(Judged)}
    del own["subject"], own["test"]
    return VerdictRecord(number=number, test_start=start, test_end=end, **subject, **own)


def _judged(record: VerdictRecord) -> Judged:
    values = {name: getattr(record, name) for name in VerdictRecord.model_fields}
    subject = Subject(**{field.name: values[field.name] for field in fields(Subject)})
    start, end = record.test_start, record.test_end
    kept = {field.name for field in fields(Judged)} - {"subject", "test"}
    return Judged(
        subject=subject,
        test=(start, end) if start is not None and end is not None else None,
        **{name: values[name] for name in kept},
    )


def _row(record: VerdictRecord, private_key: Ed25519PrivateKey) -> dict[str, Any]:
    signed = sign_document(record, private_key)
    return {
        **{name: getattr(record, name) for name in _REPEATED},
        "criteria": json.dumps([each.model_dump() for each in record.criteria]),
        "data_versions": json.dumps(record.data_versions, sort_keys=True),
        "record": signed.record_json,
        "signature": signed.signature,
        "key_id": signed.key_id,
    }
