"""All rules over all objects, and what is told of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cryptoml_assets.operations.manifest_check.access import access_findings
from cryptoml_assets.operations.manifest_check.containers import container_findings
from cryptoml_assets.operations.manifest_check.manifests import Manifest
from cryptoml_assets.operations.manifest_check.network import isolation_findings, network_findings
from cryptoml_assets.operations.manifest_check.pod_rules import pod_findings
from cryptoml_assets.operations.manifest_check.pods import pods
from cryptoml_assets.operations.manifest_check.rules import RULES, Finding, Severity, risk
from cryptoml_assets.operations.manifest_check.secrets import environment_findings, secret_findings


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        objects: how many were looked at.
        findings: the worst first.
    """

    objects: int
    findings: tuple[Finding, ...]

    @property
    def risk(self) -> float:
        """Of all findings together, 0 to 100, to one decimal."""
        return round(risk(self.findings), 1)

    @property
    def severities(self) -> dict[str, int]:
        """How many findings there are of each severity, the worst first."""
        counted = Counter(each.severity for each in self.findings)
        return {each.value: counted[each] for each in Severity}

    def lines(self) -> Iterator[str]:
        """The report for a person."""
        for each in self.findings:
            place = f"{each.source}: {each.object}: {each.path}".rstrip(": ")
            meaning = RULES[each.rule].meaning
            yield f"{each.severity.upper():8} {each.rule}: {place}: {each.message} ({meaning})"
        counts = ", ".join(f"{number} {name}" for name, number in self.severities.items())
        yield f"{self.objects} objects, {counts}; risk {self.risk:g} of 100"

    def told(self) -> dict[str, Any]:
        """The report for a program."""
        return {
            "risk": self.risk,
            "objects": self.objects,
            "severities": self.severities,
            "findings": [
                {
                    "rule": each.rule,
                    "severity": each.severity.value,
                    "file": each.source,
                    "object": each.object,
                    "path": each.path,
                    "message": each.message,
                }
                for each in self.findings
            ],
        }


def check(manifests: Sequence[Manifest]) -> Report:
    """Look for everything in all of these objects, which are one deployment.

    Policies, accounts and bindings count for the pods of the same namespace, whichever file each
    is from.

    Raises:
        ManifestError: an object is not built as its kind is.
    """
    order = list(Severity)
    found = sorted(_findings(manifests), key=lambda each: order.index(each.severity))
    return Report(len(manifests), tuple(found))


def _findings(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    workloads = pods(manifests)
    for pod in workloads:
        yield from container_findings(pod)
        yield from pod_findings(pod, manifests)
        yield from environment_findings(pod)
    yield from isolation_findings(workloads, manifests)
    for manifest in manifests:
        yield from secret_findings(manifest)
        yield from network_findings(manifest)
        yield from access_findings(manifest)
