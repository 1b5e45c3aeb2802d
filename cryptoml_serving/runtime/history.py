"""The table of decisions as serving trusts it: every record verified, and its place in the chain.

The asset graph writes the table ``deployments`` and serving only shows it: what may serve follows
from the signed deployment in the registry alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cryptoml_serving.contract.approval import (
    NO_RECORD,
    ApprovalInvalidError,
    ApprovalRecord,
    SignedDocument,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from cryptoml_serving.contract.deployment import Deployment

#: The lake table with one row per decision.
DEPLOYMENTS = "deployments"
COLUMNS = ("sequence", "record", "signature", "key_id")


@dataclass(frozen=True)
class Decision:
    """One row of the table.

    Attributes:
        place: in the order, from 0.
        record: as it was signed; none where it does not verify.
        digest: what the next record must name; empty where the row is no signed document.
        fault: what is wrong with it or its place, in words for callers; empty: nothing.
    """

    place: int
    record: ApprovalRecord | None
    digest: str
    fault: str


@dataclass(frozen=True)
class History:
    """All decisions, oldest first."""

    decisions: Sequence[Decision] = ()

    @property
    def faults(self) -> int:
        """Rows that do not verify, or are not where their record says."""
        return sum(bool(each.fault) for each in self.decisions)

    def record_of(self, sequence: int, bundle_digest: str) -> ApprovalRecord | None:
        """The verified decision of that number, if it is about that bundle."""
        for each in self.decisions:
            record = each.record
            if record and not each.fault and record.sequence == sequence:
                return record if record.bundle_digest == bundle_digest else None
        return None

    def lacks(self, deployment: Deployment | None) -> bool:
        """Whether the decision that the registry's deployment follows is not among them."""
        if deployment is None:
            return False
        held = self.decisions[deployment.sequence : deployment.sequence + 1]
        return not held or held[0].digest != deployment.head


def verified(rows: Iterable[Mapping[str, Any]], public_key: Ed25519PublicKey) -> History:
    """Verify each row against the key and against the row before it.

    Args:
        rows: with ``COLUMNS``, in any order.
        public_key: whose signatures are trusted.
    """
    decisions: list[Decision] = []
    previous = NO_RECORD
    # A row without a number is nobody's: it comes last, and does not verify.
    last = float("inf")
    ordered = sorted(rows, key=lambda row: last if row["sequence"] is None else row["sequence"])
    for place, row in enumerate(ordered):
        decisions.append(_decision(place, row, previous, public_key))
        previous = decisions[-1].digest
    return History(tuple(decisions))


def _decision(
    place: int, row: Mapping[str, Any], previous: str, public_key: Ed25519PublicKey
) -> Decision:
    try:
        signed = SignedDocument(
            record_json=row["record"], signature=row["signature"], key_id=row["key_id"]
        )
    except ValidationError:
        return Decision(place, None, "", "the row is no signed document")
    try:
        record = verify(signed, public_key)
    except ApprovalInvalidError as error:
        return Decision(place, None, signed.digest, str(error))
    fault = ""
    if record.sequence != place:
        fault = f"it is decision {record.sequence}: rows are missing, double or replaced"
    elif record.previous != previous:
        fault = "it does not follow the row before it"
    return Decision(place, record, signed.digest, fault)
