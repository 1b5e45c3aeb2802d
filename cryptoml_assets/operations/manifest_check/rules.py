"""What is looked for, how bad each is, and the risk of all that was found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def weight(self) -> float:
        """Share of what is still sound that one such finding takes away."""
        return {"critical": 0.5, "high": 0.2, "medium": 0.05, "low": 0.005}[self.value]


@dataclass(frozen=True)
class Rule:
    """One thing that is looked for.

    Attributes:
        severity: how bad it is.
        meaning: what a finding says, for a person.
    """

    severity: Severity
    meaning: str


_CRITICAL, _HIGH, _MEDIUM, _LOW = Severity
RULES = {
    "privileged": Rule(_CRITICAL, "a container runs privileged"),
    "host-process": Rule(_CRITICAL, "a container is a process of its Windows node"),
    "host-namespace": Rule(_CRITICAL, "a pod shares network, processes or IPC with its node"),
    "host-path": Rule(_CRITICAL, "a pod mounts a path of its node"),
    "exposed-secret": Rule(_CRITICAL, "a secret stands in the manifest"),
    "cluster-admin": Rule(_CRITICAL, "somebody is bound to cluster-admin"),
    "anonymous-access": Rule(_CRITICAL, "everybody who reaches the API server is bound to a role"),
    "grants-itself": Rule(_CRITICAL, "a role may take rights that it was not given"),
    "privilege-escalation": Rule(_HIGH, "a container's processes may gain privileges"),
    "added-capability": Rule(_HIGH, "a container has a capability that it was given"),
    "root-user": Rule(_HIGH, "a container may run as root"),
    "unconfined": Rule(_HIGH, "a container runs without its confinement"),
    "host-port": Rule(_HIGH, "a container takes a port of its node"),
    "sysctl": Rule(_HIGH, "a pod sets a kernel parameter that is not safe"),
    "wildcard-access": Rule(_HIGH, "a role is given with *"),
    "secret-access": Rule(_HIGH, "a role reads secrets that are not named"),
    "pod-access": Rule(_HIGH, "a role reaches into pods, nodes or tokens"),
    "unrestricted-egress": Rule(_HIGH, "a pod may open connections to anywhere"),
    "external-address": Rule(_HIGH, "a service takes over addresses that are not its own"),
    "kept-capabilities": Rule(_MEDIUM, "a container does not drop all capabilities"),
    "writable-root": Rule(_MEDIUM, "a container can write to its root file system"),
    "no-seccomp": Rule(_MEDIUM, "a container runs without a seccomp profile"),
    "missing-limits": Rule(_MEDIUM, "a container has no limit of CPU or memory"),
    "missing-requests": Rule(_MEDIUM, "a container requests no CPU or memory"),
    "volume-kind": Rule(_MEDIUM, "a volume is of a kind that a restricted pod may not have"),
    "moving-image": Rule(_MEDIUM, "an image has no tag, or latest"),
    "unneeded-token": Rule(_MEDIUM, "a pod holds a token that no role is bound to"),
    "unrestricted-ingress": Rule(_MEDIUM, "anybody may open connections to a pod"),
    "metadata-egress": Rule(_MEDIUM, "a pod may reach the cloud's metadata address"),
    "public-service": Rule(_MEDIUM, "a service is open to every address"),
    "plain-ingress": Rule(_MEDIUM, "an ingress takes requests without TLS"),
    "pod-security": Rule(_MEDIUM, "a namespace does not enforce restricted pods"),
    "undigested-image": Rule(_LOW, "an image is named by a tag, which can be moved"),
    "default-account": Rule(_LOW, "a pod runs as the namespace's default service account"),
}


@dataclass(frozen=True)
class Finding:
    """One place that a rule found.

    Attributes:
        rule: its name, one of :data:`RULES`.
        source: file that the object came from.
        object: kind, namespace and name.
        path: in the object, by names where things have names.
        message: what is wrong there; never a secret itself.
    """

    rule: str
    source: str
    object: str
    path: str
    message: str

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return RULES[self.rule].severity


def risk(findings: Iterable[Finding]) -> float:
    """The risk of all findings together, 0 (none) to below 100.

    Each takes a share of what is still sound, as if it were one more independent way in: more
    findings never lower it, and many small ones weigh less than one that is critical.
    """
    return 100 * (1 - math.prod(1 - each.severity.weight for each in findings))
