"""Which requests a canary answers: a fixed share, the same for a request that is repeated."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptoml_serving.contract.deployment import Deployment, Placement
    from cryptoml_serving.runtime.answers import Answer
    from cryptoml_serving.runtime.snapshot import Snapshot
    from cryptoml_serving.runtime.state import State

_BYTES = 8


def position(request_id: str, symbol: str) -> float:
    """Where a request falls in [0, 100): uniformly, and each time in the same place."""
    digest = hashlib.sha256(f"{request_id}|{symbol}".encode()).digest()
    return int.from_bytes(digest[:_BYTES], "big") / float(2 ** (8 * _BYTES)) * 100


def turn(deployment: Deployment, request_id: str, symbol: str) -> tuple[Placement, float] | None:
    """The canary a request is for, and how many percent into its range the request falls.

    Each canary has a range of its own, in the deployment's order, whether or not it can answer now.

    Returns:
        None where it is the champion's turn.
    """
    canaries = [each for each in deployment.challengers if each.role == "canary"]
    if not canaries:
        return None
    left = position(request_id, symbol)
    for each in canaries:
        if left < each.percent:
            return each, left
        left -= each.percent
    return None


def choose(state: State, snapshot: Snapshot, symbol: str, request_id: str) -> Answer | None:
    """What answers a request: a canary's prediction where it is its turn, else the champion's.

    A canary that has no prediction of the symbol, or one of older features than the champion's, is
    passed over: callers get the champion's. So is one that is not loaded yet as a canary, or for so
    large a share.

    Args:
        state: says which challengers there are.
        snapshot: of the champion.
        symbol: asked for.
        request_id: of the request.

    Returns:
        None where the champion has none.
    """
    champion = snapshot.answers.get(symbol)
    # Each read once: the background threads replace them.
    if not (challengers := state.challengers):
        return champion
    deployment = state.deployment
    if champion is None or deployment is None:
        return champion
    if (chosen := turn(deployment, request_id, symbol)) is None:
        return champion
    placement, into = chosen
    for each in challengers:
        own = each.model.placement
        if own.subject == placement.subject and own.role == "canary" and into < own.percent:
            found = each.answers.get(symbol)
            if found and found.feature_second >= champion.feature_second:
                return found
    return champion
