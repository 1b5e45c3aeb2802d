"""Rules of containers: what the Pod Security standard *restricted* asks for, resources, images."""

from __future__ import annotations

from collections.abc import Iterator

from cryptoml_assets.operations.manifest_check.manifests import Node
from cryptoml_assets.operations.manifest_check.pods import Pod
from cryptoml_assets.operations.manifest_check.rules import Finding

_ALLOWED_CAPABILITIES = {"NET_BIND_SERVICE"}
_SECCOMP = {"RuntimeDefault", "Localhost"}
_RESOURCES = ("cpu", "memory")


def container_findings(pod: Pod) -> Iterator[Finding]:
    """What every container of a pod is found with."""
    for container in pod.containers():
        security = container["securityContext"]
        yield from _privileges(security)
        yield from _capabilities(security["capabilities"])
        yield from _user(pod, security)
        yield from _confinement(pod, security)
        yield from _ports(container)
        yield from _resources(pod, container)
        yield from _image(container["image"])


def _privileges(security: Node) -> Iterator[Finding]:
    if security["privileged"].value not in (None, False):
        yield security["privileged"].finding("privileged", "it is privileged")
    if security["windowsOptions"]["hostProcess"].value not in (None, False):
        yield security["windowsOptions"]["hostProcess"].finding("host-process", "it is set")
    escalation = security["allowPrivilegeEscalation"]
    if escalation.value is not False:
        yield escalation.finding("privilege-escalation", "it is not false")
    if security["readOnlyRootFilesystem"].value is not True:
        yield security["readOnlyRootFilesystem"].finding("writable-root", "it is not true")


def _capabilities(capabilities: Node) -> Iterator[Finding]:
    added = set(capabilities["add"].texts()) - _ALLOWED_CAPABILITIES
    if added:
        told = ", ".join(sorted(added))
        yield capabilities["add"].finding("added-capability", f"adds {told}")
    if "ALL" not in capabilities["drop"].texts():
        yield capabilities["drop"].finding("kept-capabilities", "does not drop ALL")


def _user(pod: Pod, security: Node) -> Iterator[Finding]:
    user = _effective(pod, security, "runAsUser")
    if user.value == 0:
        yield user.finding("root-user", "it is 0, root")
    elif _effective(pod, security, "runAsNonRoot").value is not True:
        yield security["runAsNonRoot"].finding("root-user", "neither it nor the pod's is true")


def _confinement(pod: Pod, security: Node) -> Iterator[Finding]:
    seccomp = _effective(pod, security, "seccompProfile")["type"]
    if seccomp.value == "Unconfined":
        yield seccomp.finding("unconfined", "seccomp is Unconfined")
    elif seccomp.value not in _SECCOMP:
        yield seccomp.finding("no-seccomp", "it is neither RuntimeDefault nor Localhost")
    armour = _effective(pod, security, "appArmorProfile")["type"]
    if armour.value == "Unconfined":
        yield armour.finding("unconfined", "AppArmor is Unconfined")
    if security["procMount"].value not in (None, "Default"):
        yield security["procMount"].finding("unconfined", "/proc is not masked")
    linux = _effective(pod, security, "seLinuxOptions")
    if linux["user"].value or linux["role"].value:
        yield linux.finding("unconfined", "SELinux user or role are its own")


def _ports(container: Node) -> Iterator[Finding]:
    for port in container["ports"].each():
        if port["hostPort"].value not in (None, 0):
            yield port["hostPort"].finding("host-port", f"takes port {port['hostPort'].value}")


def _resources(pod: Pod, container: Node) -> Iterator[Finding]:
    own, shared = container["resources"], pod.spec["resources"]

    def lacks(kind: str, instead: str = "") -> str:
        given = {*own[kind].names(), *shared[kind].names()}
        if instead:
            given |= {*own[instead].names(), *shared[instead].names()}
        return " and ".join(each for each in _RESOURCES if each not in given)

    if missing := lacks("limits"):
        yield own["limits"].finding("missing-limits", f"no limit of {missing}")
    # What is not requested is what it is limited to.
    if missing := lacks("requests", instead="limits"):
        yield own["requests"].finding("missing-requests", f"no request of {missing}")


def _image(image: Node) -> Iterator[Finding]:
    name, _, digest = image.text.partition("@")
    _, _, tag = name.rpartition("/")[2].partition(":")
    if digest.startswith("sha256:"):
        return
    if tag in ("", "latest"):
        yield image.finding("moving-image", f"{image.text or 'no image'}: no tag but latest")
    else:
        yield image.finding("undigested-image", f"{image.text}: without a digest")


def _effective(pod: Pod, security: Node, key: str) -> Node:
    """The container's own value, or the pod's where it has none."""
    own = security[key]
    inherited = pod.spec["securityContext"][key]
    return own if own.value is not None or inherited.value is None else inherited
