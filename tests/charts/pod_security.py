"""The Pod Security Standard *restricted*, as its page lists it, over a pod's specification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
_PROFILES = {"RuntimeDefault", "Localhost"}


def violations(spec: dict[str, Any]) -> Iterator[str]:
    """What keeps a pod out of a namespace that enforces the profile.

    Args:
        spec: of the pod, with the names of Kubernetes' own JSON.
    """
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(flag):
            yield f"{flag} is true"
    for volume in spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is of the kind {', '.join(sorted(kinds))}"
    pod = spec.get("securityContext", {})
    if pod.get("sysctls"):
        yield "sysctls are set"
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group, []):
            own = container.get("securityContext", {})
            if own.get("procMount", "Default") != "Default":
                yield f"container {container['name']}: procMount is not Default"
            for problem in _of_container({**pod, **own}, own, container):
                yield f"container {container['name']}: {problem}"


def _of_container(
    both: dict[str, Any], own: dict[str, Any], container: dict[str, Any]
) -> Iterator[str]:
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities.drop lacks ALL"
    if added := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capabilities.add has {', '.join(sorted(added))}"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if both.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if both.get("seccompProfile", {}).get("type") not in _PROFILES:
        yield "seccompProfile is neither RuntimeDefault nor Localhost"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"hostPort {port['hostPort']}"
