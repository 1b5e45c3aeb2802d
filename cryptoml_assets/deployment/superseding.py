"""The policy keeps one challenger of a role: the newest that passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptoml_assets.deployment.history import Decision
    from cryptoml_assets.deployment.standing import Standing

#: Who decides where no person is asked.
POLICY = "policy:automatic"


def superseded(now: Standing, decision: Decision) -> list[Decision]:
    """The withdrawals that make room for a challenger of the policy.

    Its earlier ones of the same role go, a person's stay. They are to be decided first: the
    canaries of one policy could ask for more than all requests together.

    Args:
        now: what stands.
        decision: of the policy.
    """
    if decision.role not in {"shadow", "canary"}:
        return []
    return [
        entry.again(
            action="withdraw",
            role="none",
            percent=0.0,
            decided_by=POLICY,
            reason=f"superseded by version {decision.subject.model_version}",
            decided_at=decision.decided_at,
        )
        for entry in now.challengers
        if (entry.record.decided_by, entry.record.role) == (POLICY, decision.role)
    ]
