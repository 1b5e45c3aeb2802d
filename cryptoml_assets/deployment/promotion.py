"""Making an approval take effect: record, table, artifact, and last of all the alias.

Each step can be repeated, so that a run that died halfway is finished by the next one with the very
record it had signed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoml_assets.deployment import history
from cryptoml_serving.contract.approval import (
    ApprovalInvalidError,
    read_signed,
    sign,
    verify,
    write_signed,
)
from cryptoml_serving.contract.registry import CHAMPION_ALIAS, approval_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from cryptoml_assets.deployment.history import Subject
    from cryptoml_assets.resources.lake import Lake
    from cryptoml_serving.contract.approval import ApprovalRecord, SignedApproval


def promote(
    client: Any, lake: Lake, record: ApprovalRecord, private_key: Ed25519PrivateKey
) -> ApprovalRecord:
    """Sign a decision and let serving follow it; an approval signed before is used again.

    Args:
        client: of the tracker.
        lake: holds the table of approvals.
        record: the decision.
        private_key: signs it.

    Returns:
        The record that stands.

    Raises:
        ApprovalInvalidError: the record would never verify.
    """
    key = private_key.public_key()
    signed = history.find(lake, history.subject(record), key)
    if signed is None:
        signed = sign(record, private_key)
        history.append(lake, record, signed)
    _attach(client, record, signed)
    client.set_registered_model_alias(record.model_name, CHAMPION_ALIAS, record.model_version)
    return verify(signed, key)


def standing_approval(
    client: Any, lake: Lake, subject: Subject, public_key: Ed25519PublicKey
) -> ApprovalRecord | None:
    """The approval under which this very bundle is champion already, or none.

    The alias alone proves nothing: the table and the run's artifact must hold the same approval.
    """
    aliases = client.get_registered_model(subject.model_name).aliases
    if str(aliases.get(CHAMPION_ALIAS)) != subject.model_version:
        return None
    signed = history.find(lake, subject, public_key)
    if signed is None or _attached(client, subject) != signed:
        return None
    return verify(signed, public_key)


def _attach(client: Any, record: ApprovalRecord, signed: SignedApproval) -> None:
    name = Path(approval_file(record.model_version))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name.name)
        path.write_bytes(write_signed(signed))
        client.log_artifact(record.run_id, str(path), str(name.parent))


def _attached(client: Any, subject: Subject) -> SignedApproval | None:
    """The approval among the run's artifacts, or none."""
    name = approval_file(subject.model_version)
    present = client.list_artifacts(subject.run_id, str(Path(name).parent))
    if name not in {entry.path for entry in present}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data = Path(client.download_artifacts(subject.run_id, name, folder)).read_bytes()
    try:
        return read_signed(data)
    except ApprovalInvalidError:
        return None
