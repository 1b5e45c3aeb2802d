"""An earlier version is made champion again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptoml_assets.deployment import promotion
from cryptoml_assets.deployment.moved_alias import teller
from cryptoml_assets.deployment.standing import Standing, standing
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.operations.decisions import (
    check_can_serve,
    private_key,
    sound_entries,
    summary,
    who_decides,
)
from cryptoml_assets.operations.tracking import tracking_client
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.approval import ApprovalInvalidError
from cryptoml_serving.contract.deployment import read_deployment
from cryptoml_serving.contract.registry import DEPLOYMENT_TAG

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cryptoml_assets.deployment.history import Entry
    from cryptoml_assets.deployment.promotion import Tell


def rollback(configured: Settings, *, to: str | None, reason: str) -> Entry:
    """Put an earlier version in the champion's place; the one it replaces is withdrawn.

    Its bundle is fetched, verified and loaded before anything is recorded, and what it reads must
    still be computed by the formulas it was trained on.

    Args:
        configured: says where everything is, and who may decide.
        to: the version, which was approved before; the champion before this one when not given.
        reason: in words.

    Returns:
        The decision in force.

    Raises:
        ApprovalError: there is no champion, no such approved version, or it could not serve.
        IdentityError: nobody can be named as who decides.
        TrainingRecordError: nothing has been tracked.
    """
    decided_by = who_decides(configured, reason)
    client, lake = tracking_client(configured), Lake(configured.lake_uri)
    entries = [e for e in sound_entries(configured) if e.record.model_name == configured.model_name]
    now = standing(entries, configured.model_name)
    key, tell = private_key(configured), teller(configured)
    _check_carried_out(client, lake, key, entries, tell)
    target = _target(entries, now, to)
    check_can_serve(client, target.subject, "choose another with --to VERSION")
    decision = target.again(
        action="rollback",
        role="champion",
        percent=0.0,
        decided_by=decided_by,
        reason=reason.strip(),
        decided_at=configured.clock(),
    )
    try:
        return promotion.decide(client, lake, key, decision, seen=now, tell=tell)
    except ApprovalInvalidError as error:
        raise ApprovalError(f"version {target.record.model_version}: {error}") from error


def _check_carried_out(
    client: Any, lake: Lake, key: Ed25519PrivateKey, entries: list[Entry], tell: Tell
) -> None:
    """That the registry knows the newest decision; else it is told now, and nothing more is done.

    A rollback that died halfway and is asked for again must not go back twice.

    Raises:
        ApprovalError: it did not.
    """
    if not entries:
        return
    newest = entries[-1].record
    text = client.get_registered_model(newest.model_name).tags.get(DEPLOYMENT_TAG, "")
    try:
        known = read_deployment(text, key.public_key()).sequence
    except ApprovalInvalidError:
        known = -1
    if known < newest.sequence:
        promotion.reconcile(client, lake, key, newest.model_name, tell=tell)
        raise ApprovalError(
            f"{summary(entries[-1])}: it had been recorded, but serving was not told; it is now. "
            "Nothing else was done: ask again for what is still wanted"
        )


def _target(entries: list[Entry], now: Standing, to: str | None) -> Entry:
    """The approval to go back to."""
    champion = now.champion_version
    if champion is None:
        raise ApprovalError("there is no champion to roll back from")
    approved = {e.record.model_version: e for e in entries if e.record.role != "none"}
    others = ", ".join(version for version in approved if version != champion) or "none"
    if to is None:
        if now.before is None:
            raise ApprovalError(
                f"there was no champion before version {champion} that was not withdrawn; "
                f"--to VERSION names another of those that were approved: {others}"
            )
        return now.before
    if to == champion:
        raise ApprovalError(f"version {to} is the champion already; approved were also: {others}")
    if to not in approved:
        raise ApprovalError(f"version {to} was never approved; approved were also: {others}")
    return approved[to]
