"""The policy keeps one challenger of a role: the newest that passed, once the one before had time.

A challenger is judged at looks that its outcomes lay down, days apart. One that had to go before
them, whenever a newer one passed, would never be decided about; so for a while it stays, and the
newer one is not let in.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptoml_assets.deployment import history, promotion
from cryptoml_assets.deployment.standing import Standing, standing
from cryptoml_serving.contract.approval import NO_RECORD, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cryptoml_assets.deployment.history import Decision, Entry
    from cryptoml_assets.deployment.promotion import Tell
    from cryptoml_assets.resources.lake import Lake

#: Who decides where no person is asked.
POLICY = "policy:automatic"
#: Least time that a challenger of the policy is compared with one champion: at default settings
#: four looks in bars of five minutes of one symbol, and eight in those of five.
LEAST_STAY = timedelta(days=7)


def place(
    client: Any,
    lake: Lake,
    private_key: Ed25519PrivateKey,
    decision: Decision,
    *,
    seen: Standing,
    tell: Tell | None = None,
) -> Entry:
    """Let a decision of the policy take effect, and its earlier challengers make room for it.

    Nothing is withdrawn for a decision that is refused.

    Args:
        client: of the tracker.
        lake: holds the table of decisions.
        private_key: signs.
        decision: of the policy.
        seen: what stood when it was made.
        tell: see :func:`promotion.reconcile`.

    Raises:
        ApprovalError: as :func:`promotion.decide`, and nothing has changed.
        ApprovalInvalidError: the record would never verify.
    """
    entries = history.read(lake, private_key.public_key())
    now = standing(entries, decision.subject.model_name)
    gone = superseded(now, decision)
    promotion.require_possible(_without(now, gone), decision, seen)
    sign(decision.record(len(entries), entries[-1].digest if entries else NO_RECORD), private_key)
    for each in gone:
        promotion.decide(client, lake, private_key, each, seen=seen, tell=tell)
    return promotion.decide(client, lake, private_key, decision, seen=seen, tell=tell)


def superseded(now: Standing, decision: Decision) -> list[Decision]:
    """The withdrawals that make room for a challenger of the policy.

    Its earlier ones of the same role go, a person's stay. They are to be decided first: the
    canaries of one policy could ask for more than all requests together.

    Args:
        now: what stands.
        decision: of the policy.
    """
    return [
        entry.again(
            action="withdraw",
            role="none",
            percent=0.0,
            decided_by=POLICY,
            reason=f"superseded by version {decision.subject.model_version}",
            decided_at=decision.decided_at,
        )
        for entry in _of_policy(now, decision)
    ]


def too_young(now: Standing, decision: Decision) -> list[Entry]:
    """Those challengers in the way of one of the policy that have not stood long enough to go.

    What counts is how long they are compared with the present champion.

    Args:
        now: what stands.
        decision: of the policy.
    """
    champion = [now.champion.record.decided_at] if now.champion else []
    return [
        entry
        for entry in _of_policy(now, decision)
        if decision.decided_at - max([entry.record.decided_at, *champion]) < LEAST_STAY
    ]


def _of_policy(now: Standing, decision: Decision) -> list[Entry]:
    """The policy's challengers of the role that a decision gives."""
    if decision.role not in {"shadow", "canary"}:
        return []
    asked = (POLICY, decision.role)
    return [e for e in now.challengers if (e.record.decided_by, e.record.role) == asked]


def _without(now: Standing, gone: list[Decision]) -> Standing:
    """What stands once some challengers were withdrawn."""
    versions = tuple(each.subject.model_version for each in gone)
    left = tuple(e for e in now.challengers if e.record.model_version not in versions)
    return replace(now, challengers=left, withdrawn=(*now.withdrawn, *versions))
