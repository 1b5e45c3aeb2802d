"""Making a decision take effect: table, then artifacts, alias, and last the signed deployment.

Serving follows the deployment alone, so it changes when everything else is there. Each step can be
repeated: a process that died between two of them is finished by whoever comes next.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoml_assets.deployment import history
from cryptoml_assets.deployment.options import NOT_WITHDRAWN
from cryptoml_assets.deployment.standing import Standing, deployment, standing
from cryptoml_assets.errors import ApprovalError
from cryptoml_serving.contract.approval import (
    ApprovalInvalidError,
    SignedDocument,
    read_signed,
    write_signed,
)
from cryptoml_serving.contract.deployment import read_deployment, sign_deployment
from cryptoml_serving.contract.registry import CHAMPION_ALIAS, DEPLOYMENT_TAG, approval_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cryptoml_assets.deployment.history import Decision, Entry
    from cryptoml_assets.resources.lake import Lake
    from cryptoml_serving.contract.deployment import Deployment

    #: Tells people of an alias that was moved by hand, and never raises.
    Tell = Callable[["Reconciled"], None]

_LOG = logging.getLogger(__name__)
_ALL_PERCENT = 100.0
#: Decisions that may be made while the registry is brought in step, before it is given up.
_ROUNDS = 5


@dataclass(frozen=True)
class Reconciled:
    """What was found when the registry was brought in step with the table.

    Attributes:
        alias_before: version the champion alias pointed at, if at any.
        alias_now: version it points at now.
        moved_by_hand: whether it had been moved by somebody else than this code.
        changed: whether anything had to be written.
    """

    alias_before: str | None
    alias_now: str | None
    moved_by_hand: bool
    changed: bool


def decide(
    client: Any,
    lake: Lake,
    private_key: Ed25519PrivateKey,
    decision: Decision,
    *,
    seen: Standing | None = None,
    tell: Tell | None = None,
) -> Entry:
    """Record a decision and let the registry follow it.

    A decision that stands already, about the same subject in the same role, is not made again.

    Args:
        client: of the tracker.
        lake: holds the table of decisions.
        private_key: signs it.
        decision: what is decided.
        seen: what stood when it was made; with another champion by now it is refused, and so is
            the approval of a version that was taken back since.
        tell: see `reconcile`.

    Returns:
        The decision in force.

    Raises:
        ApprovalError: the champion has changed, the decision takes a role that is none, promotes
            what is no challenger, or approves what was taken back; or the history is not sound.
        ApprovalInvalidError: the record would never verify.
    """
    name = decision.subject.model_name
    deployed = _deployed(client.get_registered_model(name), private_key)
    stands: list[Entry] = []

    def build(entries: Sequence[Entry]) -> Decision | None:
        history.require_not_behind(entries, deployed)
        stands[:] = _stands_already(entries, decision)
        if stands:
            return None
        require_possible(standing(entries, name), decision, seen)
        return decision

    entries = history.append(lake, private_key, build)
    reconcile(client, lake, private_key, name, tell=tell)
    return stands[-1] if stands else entries[-1]


def reconcile(
    client: Any,
    lake: Lake,
    private_key: Ed25519PrivateKey,
    model_name: str,
    *,
    tell: Tell | None = None,
) -> Reconciled:
    """Bring the registry in step with the table of decisions, which alone is true.

    Args:
        client: of the tracker.
        lake: holds the table.
        private_key: signs the deployment.
        model_name: the registered model, which must exist.
        tell: told of an alias that was moved by hand, as soon as it is put back: nobody who comes
            later can see that it was.

    Raises:
        ApprovalError: the history is not sound, lacks what the registry's signed deployment
            follows, or never stays still.
    """

    def moved(found: Reconciled) -> None:
        _LOG.error(
            "ALERT: the champion alias of %s had been moved by hand to %s; it follows the table of "
            "decisions again, to %s",
            model_name,
            found.alias_before,
            found.alias_now,
        )
        if tell is not None:
            tell(found)

    first: Reconciled | None = None
    for _ in range(_ROUNDS):
        # The registry first: what it follows was in the table before.
        model = client.get_registered_model(model_name)
        entries = history.read(lake, private_key.public_key())
        history.require_not_behind(entries, _deployed(model, private_key))
        # Later on, what is found may be another process's work.
        found = _reconcile(client, model, entries, private_key, moved if first is None else None)
        first = first or found
        # Another process may have decided meanwhile, and been put back by this one.
        if lake.exists(history.TABLE) and history.rows(lake).height != len(entries):
            continue
        return Reconciled(
            first.alias_before, found.alias_now, first.moved_by_hand, first.changed or found.changed
        )
    message = f"decisions about {model_name} are made faster than the registry can follow"
    raise ApprovalError(message)


def _stands_already(entries: Sequence[Entry], decision: Decision) -> list[Entry]:
    """The entry that says the same of the same subject, where one is in force."""
    now = standing(entries, decision.subject.model_name)
    if decision.action == "withdraw":
        own = [entry for entry in entries if entry.subject == decision.subject]
        return own[-1:] if own and own[-1].record.role == "none" else []
    entry = now.entry_of(decision.subject)
    same = (decision.role, decision.percent)
    return [entry] if entry and (entry.record.role, entry.record.percent) == same else []


def require_possible(now: Standing, decision: Decision, seen: Standing | None) -> None:
    """Refuse a decision that does not fit what stands.

    Raises:
        ApprovalError: saying why, and what would be possible.
    """
    version, entry = decision.subject.model_version, now.entry_of(decision.subject)
    _require_not_taken_back(now, decision, seen)
    if decision.action == "withdraw" and entry is None:
        message = f"version {version} has no role to be taken away"
        raise ApprovalError(message)
    if decision.role in {"shadow", "canary"} and entry is not None and entry == now.champion:
        message = (
            f"version {version} is the champion: what answers is no challenger; roll back to "
            "another version instead"
        )
        raise ApprovalError(message)
    others = sum(
        each.record.percent for each in now.challengers if each.record.model_version != version
    )
    if others + decision.percent >= _ALL_PERCENT:
        message = (
            f"version {version} cannot answer {decision.percent:g} % of the requests: other "
            f"canaries answer {others:g} %, and the champion needs a share"
        )
        raise ApprovalError(message)
    if seen is not None and seen.champion_version != now.champion_version:
        message = (
            f"version {version} was held against champion {seen.champion_version}, which is "
            f"{now.champion_version} by now: judge it again"
        )
        raise ApprovalError(message)


def _require_not_taken_back(now: Standing, decision: Decision, seen: Standing | None) -> None:
    """Refuse to raise what somebody withdrew or rolled back while the decision was being made.

    An approval is refused where it says that the version was not withdrawn, or where it was not
    yet when the decision was made. Without both, a verdict newer than the withdrawal stands.

    Raises:
        ApprovalError: it was taken back.
    """
    version = decision.subject.model_version
    if decision.action == "promote" and now.entry_of(decision.subject) not in now.challengers:
        message = (
            f"version {version} is no challenger by now, so that it cannot be promoted; "
            f"`cryptoml rollback --to {version}` makes it champion all the same"
        )
        raise ApprovalError(message)
    if decision.action != "approve" or version not in now.withdrawn:
        return
    denied = any(criterion.name == NOT_WITHDRAWN for criterion in decision.criteria)
    if denied or (seen is not None and version not in seen.withdrawn):
        message = (
            f"version {version} was rolled back or withdrawn since its verdict: "
            f"`cryptoml rollback --to {version}` puts it back as champion"
        )
        raise ApprovalError(message)


def _reconcile(
    client: Any,
    model: Any,
    entries: Sequence[Entry],
    private_key: Ed25519PrivateKey,
    tell: Tell | None,
) -> Reconciled:
    name = model.name
    alias = model.aliases.get(CHAMPION_ALIAS)
    before = None if alias is None else str(alias)
    tag, deployed = model.tags.get(DEPLOYMENT_TAG), _deployed(model, private_key)
    wanted, now = deployment(entries, name), standing(entries, name)
    text = sign_deployment(wanted, private_key) if wanted is not None else None
    attached = [_attach(client, entry) for entry in now.entries]
    version = now.champion_version
    told = deployed.champion.model_version if deployed and deployed.champion else None
    found = Reconciled(
        alias_before=before,
        alias_now=version,
        # This code sets the alias before the tag: it is at one of the two, or was moved.
        moved_by_hand=before not in {version, told},
        changed=any(attached) or before != version or (text is not None and tag != text),
    )
    if before != version:
        if version is None:
            client.delete_registered_model_alias(name, CHAMPION_ALIAS)
        else:
            client.set_registered_model_alias(name, CHAMPION_ALIAS, version)
    try:
        if text is not None and tag != text:
            client.set_registered_model_tag(name, DEPLOYMENT_TAG, text)
    finally:
        # After serving, which is not to wait. The alias is back: nobody else can tell of it.
        if found.moved_by_hand and tell is not None:
            tell(found)
    return found


def _deployed(model: Any, private_key: Ed25519PrivateKey) -> Deployment | None:
    """The deployment in the registry, if there is one and it is genuine."""
    tag = model.tags.get(DEPLOYMENT_TAG)
    if tag is None:
        return None
    try:
        return read_deployment(tag, private_key.public_key())
    except ApprovalInvalidError:
        return None


def _attach(client: Any, entry: Entry) -> bool:
    """Put the approval beside the bundle; whether it was not there."""
    record = entry.record
    if _attached(client, record.run_id, record.model_version) == entry.signed:
        return False
    name = Path(approval_file(record.model_version))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name.name)
        path.write_bytes(write_signed(entry.signed))
        client.log_artifact(record.run_id, str(path), str(name.parent))
    return True


def _attached(client: Any, run_id: str, version: str) -> SignedDocument | None:
    """The approval among the run's artifacts, or none."""
    name = approval_file(version)
    present = client.list_artifacts(run_id, str(Path(name).parent))
    if name not in {entry.path for entry in present}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data = Path(client.download_artifacts(run_id, name, folder)).read_bytes()
    try:
        return read_signed(data)
    except ApprovalInvalidError:
        return None
