"""Rules of access: what roles allow, who is bound to them, what namespaces enforce."""

from __future__ import annotations

from collections.abc import Iterator

from cryptoml_assets.operations.manifest_check.manifests import Manifest, Node
from cryptoml_assets.operations.manifest_check.rules import Finding

_ROLES = ("Role", "ClusterRole")
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")
_READS = {"get", "list", "watch", "*"}
_TAKES = {"escalate", "bind", "impersonate"}
_INTO_PODS = {
    "pods/exec",
    "pods/attach",
    "pods/portforward",
    "pods/ephemeralcontainers",
    "nodes/proxy",
    "serviceaccounts/token",
}
_EVERYBODY = {"system:anonymous", "system:unauthenticated", "system:authenticated"}
_ENFORCE = "pod-security.kubernetes.io/enforce"


def access_findings(manifest: Manifest) -> Iterator[Finding]:
    """What a role, a binding or a namespace is found with."""
    if manifest.kind in _ROLES:
        for rule in manifest.root["rules"].each():
            yield from _rule(rule)
    elif manifest.kind in _BINDINGS:
        yield from _binding(manifest)
    elif manifest.kind == "Namespace":
        labels = manifest.root["metadata"]["labels"]
        if labels[_ENFORCE].value != "restricted":
            yield labels.finding("pod-security", f"{_ENFORCE} is not restricted")


def _rule(rule: Node) -> Iterator[Finding]:
    verbs, resources = set(rule["verbs"].texts()), set(rule["resources"].texts())
    for place in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
        if any("*" in each for each in rule[place].texts()):
            yield rule[place].finding("wildcard-access", "it has *")
    if "secrets" in resources and verbs & _READS and not rule["resourceNames"].value:
        yield rule["resources"].finding("secret-access", "secrets, without resourceNames")
    if reached := resources & _INTO_PODS:
        yield rule["resources"].finding("pod-access", ", ".join(sorted(reached)))
    if taken := verbs & _TAKES:
        yield rule["verbs"].finding("grants-itself", ", ".join(sorted(taken)))


def _binding(manifest: Manifest) -> Iterator[Finding]:
    role = manifest.root["roleRef"]["name"]
    if role.text == "cluster-admin":
        yield role.finding("cluster-admin", "it is cluster-admin")
    for subject in manifest.root["subjects"].each():
        if subject["name"].text in _EVERYBODY:
            yield subject.finding("anonymous-access", f"{subject['name'].text} is everybody")
