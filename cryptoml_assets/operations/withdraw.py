"""A challenger is taken out of service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptoml_assets.deployment import promotion
from cryptoml_assets.deployment.moved_alias import teller
from cryptoml_assets.deployment.standing import standing
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.operations.decisions import private_key, sound_entries, who_decides
from cryptoml_assets.operations.tracking import tracking_client
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_assets.deployment.history import Entry
    from cryptoml_assets.deployment.standing import Standing


def withdraw(configured: Settings, version: str, *, reason: str) -> Entry:
    """Take a challenger's role away; the policy does not give the version one again.

    Args:
        configured: says where everything is, and who may decide.
        version: of a shadow or a canary.
        reason: in words.

    Returns:
        The decision in force, which may be an earlier one that says the same.

    Raises:
        ApprovalError: the version is no challenger.
        IdentityError: nobody can be named as who decides.
        TrainingRecordError: nothing has been tracked.
    """
    decided_by = who_decides(configured, reason)
    client, lake = tracking_client(configured), Lake(configured.lake_uri)
    key, tell = private_key(configured), teller(configured)
    entries = [e for e in sound_entries(configured) if e.record.model_name == configured.model_name]
    if (same := _withdrawn(entries, version)) is not None:
        # A command that died after it had decided is finished by the next one.
        promotion.reconcile(client, lake, key, configured.model_name, tell=tell)
        return same
    now = standing(entries, configured.model_name)
    decision = _challenger(now, version).again(
        action="withdraw",
        role="none",
        percent=0.0,
        decided_by=decided_by,
        reason=reason.strip(),
        decided_at=configured.clock(),
    )
    return promotion.decide(client, lake, key, decision, tell=tell)


def _withdrawn(entries: Sequence[Entry], version: str) -> Entry | None:
    """The newest decision about a version, where it took its role away."""
    own = [entry for entry in entries if entry.record.model_version == version]
    return own[-1] if own and own[-1].record.role == "none" else None


def _challenger(now: Standing, version: str) -> Entry:
    """The decision under which a version is a challenger."""
    if version == now.champion_version:
        raise ApprovalError(
            f"version {version} is the champion, not its challenger: `cryptoml rollback` puts "
            "another in its place"
        )
    known = {entry.record.model_version: entry for entry in now.challengers}
    if version not in known:
        raise ApprovalError(
            f"version {version} is no challenger; challengers are: {', '.join(known) or 'none'}"
        )
    return known[version]
