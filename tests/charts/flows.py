"""What network policies let through: the rules of Kubernetes over labels and ports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Labels = dict[str, str]


@dataclass(frozen=True)
class End:
    """A pod: its labels, and those of its namespace."""

    labels: tuple[tuple[str, str], ...]
    namespace: str = "cryptoml"

    @staticmethod
    def of(labels: Labels, namespace: str = "cryptoml") -> End:
        """A pod with these labels."""
        return End(tuple(sorted(labels.items())), namespace)


def allowed(policies: list[dict[str, Any]], source: End, target: End, port: int) -> bool:
    """Whether a connection over TCP gets out of one pod and into the other.

    Policies hold for the pods of the release's namespace alone.
    """
    out = _passes(policies, "egress", source, target, port)
    return out and admitted(policies, source, target, port)


def admitted(policies: list[dict[str, Any]], source: End, target: End, port: int) -> bool:
    """Whether a pod's own policies let a connection in, whatever the other end's say."""
    return _passes(policies, "ingress", target, source, port)


def _passes(policies: list[dict[str, Any]], way: str, own: End, other: End, port: int) -> bool:
    if own.namespace != "cryptoml":
        return True
    kind, peers = ("Egress", "to") if way == "egress" else ("Ingress", "from")
    chosen = [
        each["spec"]
        for each in policies
        if kind in each["spec"]["policyTypes"] and selects(each["spec"]["podSelector"], own)
    ]
    return not chosen or any(
        _rule_passes(rule, peers, other, port) for spec in chosen for rule in spec.get(way, [])
    )


def _rule_passes(rule: dict[str, Any], peers: str, other: End, port: int) -> bool:
    ports = [(each.get("protocol", "TCP"), each["port"]) for each in rule.get("ports", [])]
    if ports and ("TCP", port) not in ports:
        return False
    return not rule.get(peers) or any(_is_peer(peer, other) for peer in rule[peers])


def _is_peer(peer: dict[str, Any], other: End) -> bool:
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"].get("matchLabels", {})
        if wanted.get("kubernetes.io/metadata.name", other.namespace) != other.namespace:
            return False
    elif other.namespace != "cryptoml":
        return False
    return selects(peer.get("podSelector", {}), other)


def selects(selector: dict[str, Any], end: End) -> bool:
    """Whether a selector of labels chooses a pod."""
    labels = dict(end.labels)
    exact = selector.get("matchLabels", {}).items()
    among = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in among)
    return all(labels.get(key) == value for key, value in exact) and all(
        labels.get(each["key"]) in each["values"] for each in among
    )
