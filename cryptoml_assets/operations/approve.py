"""A person lets a version serve that passed the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cryptoml_assets.deployment import promotion, verdicts
from cryptoml_assets.deployment.criteria import not_withdrawn
from cryptoml_assets.deployment.history import Decision
from cryptoml_assets.deployment.moved_alias import teller
from cryptoml_assets.deployment.standing import Standing, standing
from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.operations.decisions import (
    check_can_serve,
    private_key,
    public_key,
    registered_digest,
    sound_entries,
    who_decides,
)
from cryptoml_assets.operations.tracking import tracking_client
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.approval import ApprovalInvalidError
from cryptoml_serving.contract.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoml_assets.deployment.history import Entry
    from cryptoml_assets.deployment.verdicts import Judged
    from cryptoml_serving.contract.approval import Criterion

AGAIN = "materialise validated_deployment, so that the gate judges it again"


def approve(
    configured: Settings,
    version: str,
    *,
    reason: str,
    role: Literal["champion", "shadow", "canary"],
    percent: float | None,
) -> Entry:
    """Record that a version may serve, on the gate's verdict, and let the registry follow.

    Args:
        configured: says where everything is, and who may decide.
        version: the registry's own.
        reason: in words.
        role: what it may do from now on.
        percent: of the requests, for a canary; the setting's where not given.

    Returns:
        The decision in force, which may be an earlier one that says the same.

    Raises:
        ApprovalError: there is no passing verdict that still holds, or the role cannot be given.
        IdentityError: nobody can be named as who decides.
        SettingsError: a percentage for another role than canary.
        TrainingRecordError: nothing has been tracked.
    """
    if role != "canary" and percent is not None:
        raise SettingsError(f"--percent {percent:g} is for --as canary: a {role} has no share")
    share = (percent or configured.gate_canary_percent) if role == "canary" else 0.0
    decided_by = who_decides(configured, reason)
    client, lake = tracking_client(configured), Lake(configured.lake_uri)
    tell = teller(configured)
    digest = registered_digest(client, configured.model_name, version)
    entries = sound_entries(configured)
    now = standing(entries, configured.model_name)
    if (same := _standing(now, version, role, share, digest)) is not None:
        # A command that died after it had decided is finished by the next one.
        key = private_key(configured)
        promotion.reconcile(client, lake, key, configured.model_name, tell=tell)
        return same
    _check_role(version, role, now)
    judged = _verdict(configured, lake, version)
    criteria = _criteria(judged, now)
    _check_holds(judged, configured, digest, now)
    _check_newer(judged, entries, now)
    check_can_serve(client, judged.subject, "train another candidate")
    decision = Decision(
        subject=judged.subject,
        action="approve",
        role=role,
        percent=share,
        source=judged.source,
        data_versions=judged.data_versions,
        git_commit=judged.git_commit,
        criteria=criteria,
        decided_by=decided_by,
        reason=reason.strip(),
        decided_at=configured.clock(),
    )
    try:
        key = private_key(configured)
        return promotion.decide(client, lake, key, decision, seen=now, tell=tell)
    except ApprovalInvalidError as error:
        raise ApprovalError(f"version {version}: {error}") from error


def _standing(now: Standing, version: str, role: str, percent: float, digest: str) -> Entry | None:
    """The decision in force that already says all of this."""
    wanted = (version, role, percent, digest)
    for entry in now.entries:
        record = entry.record
        told = (record.model_version, record.role, record.percent, record.bundle_digest)
        if told == wanted:
            return entry
    return None


def _verdict(configured: Settings, lake: Lake, version: str) -> Judged:
    judged = verdicts.newest(lake, configured.model_name, version, public_key(configured))
    if judged is None:
        raise ApprovalError(f"version {version} was never judged: {AGAIN}")
    if not judged.approved or not all(each.passed for each in judged.criteria):
        failed = ", ".join(each.name for each in judged.criteria if not each.passed)
        raise ApprovalError(
            f"version {version} did not pass the gate at {judged.judged_at:%Y-%m-%d %H:%M} UTC "
            f"({failed or 'no criteria'}): nobody can approve it; train another candidate"
        )
    return judged


def _check_holds(judged: Judged, configured: Settings, digest: str, now: Standing) -> None:
    """That a verdict is about this bundle, under these rules and limits, beside this champion."""
    version, verdict = judged.subject.model_version, f"of {judged.judged_at:%Y-%m-%d %H:%M} UTC"
    if judged.subject.bundle_digest != digest:
        raise ApprovalError(
            f"version {version}: the verdict {verdict} is about bundle "
            f"{judged.subject.bundle_digest[:12]}, registered is {digest[:12]}: {AGAIN}"
        )
    if judged.subject.claim != configured.gate_claim:
        raise ApprovalError(
            f"version {version}: the verdict {verdict} is about {judged.subject.claim}, "
            f"CRYPTOML_GATE_CLAIM={configured.gate_claim}: {AGAIN}"
        )
    names = {each.name for each in judged.criteria}
    if missing := [name for name in configured.gate_required if name not in names]:
        raise ApprovalError(
            f"version {version}: the verdict {verdict} says nothing of {', '.join(missing)}, which "
            f"CRYPTOML_GATE_REQUIRED asks for: {AGAIN}"
        )
    limits = verdicts.limits_of(configured)
    if other := [name for name in limits if judged.limits.get(name) != limits[name]]:
        told = ", ".join(
            f"CRYPTOML_{name.upper()} of {_told(judged.limits.get(name))}, which is "
            f"{_told(limits[name])} now"
            for name in other
        )
        raise ApprovalError(f"version {version}: the verdict {verdict} is by {told}: {AGAIN}")
    if judged.champion_version != now.champion_version:
        raise ApprovalError(
            f"version {version}: the verdict {verdict} compared it with champion "
            f"{judged.champion_version or 'none'}, which is {now.champion_version or 'none'} now: "
            f"{AGAIN}"
        )


def _told(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:g}"


def _check_newer(judged: Judged, entries: Sequence[Entry], now: Standing) -> None:
    """That a verdict on a version without a role is newer than what was decided about it.

    A challenger may be given another role on the verdict it came in with.
    """
    if now.entry_of(judged.subject) is not None:
        return
    about = (judged.subject.model_name, judged.subject.model_version)
    own = [e.record for e in entries if (e.record.model_name, e.record.model_version) == about]
    if own and own[-1].sequence >= judged.decisions:
        raise ApprovalError(
            f"version {about[1]}: the verdict of {judged.judged_at:%Y-%m-%d %H:%M} UTC is older "
            f"than decision {own[-1].sequence} about it ({own[-1].action}): {AGAIN}"
        )


def _criteria(judged: Judged, now: Standing) -> tuple[Criterion, ...]:
    """The criteria to sign; whether it was withdrawn is answered anew."""
    subject = judged.subject
    by_now = not_withdrawn(subject.model_version, now.withdrawn)
    if not by_now.passed and any(each.name == by_now.name for each in judged.criteria):
        raise ApprovalError(
            f"version {subject.model_version} was rolled back or withdrawn since its verdict: "
            f"`cryptoml rollback --to {subject.model_version}` puts it back as champion"
        )
    return tuple(by_now if each.name == by_now.name else each for each in judged.criteria)


def _check_role(version: str, role: str, now: Standing) -> None:
    if role == "champion":
        return
    if now.champion_version is None:
        raise ApprovalError(f"there is no champion that a {role} could stand beside: --as champion")
    if now.champion_version == version:
        raise ApprovalError(
            f"version {version} is the champion, not its challenger: `cryptoml rollback` puts the "
            "one before in its place"
        )
