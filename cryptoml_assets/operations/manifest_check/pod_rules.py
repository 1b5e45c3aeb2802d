"""Rules of pods as a whole: what they share with their node, volumes, and their token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptoml_assets.operations.manifest_check.manifests import Manifest
from cryptoml_assets.operations.manifest_check.pods import Pod
from cryptoml_assets.operations.manifest_check.rules import Finding

_HOST = ("hostNetwork", "hostPID", "hostIPC")
#: Kinds of volumes that a restricted pod may have.
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_ARMOUR = "container.apparmor.security.beta.kubernetes.io/"
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")


def pod_findings(pod: Pod, manifests: Iterable[Manifest]) -> Iterator[Finding]:
    """What a pod is found with, given all other objects."""
    yield from _shared(pod)
    yield from _volumes(pod)
    yield from _token(pod, tuple(manifests))


def _shared(pod: Pod) -> Iterator[Finding]:
    for key in _HOST:
        if pod.spec[key].value not in (None, False):
            yield pod.spec[key].finding("host-namespace", "it is set")
    windows = pod.spec["securityContext"]["windowsOptions"]["hostProcess"]
    if windows.value not in (None, False):
        yield windows.finding("host-process", "it is set")
    for each in pod.spec["securityContext"]["sysctls"].each():
        if each["name"].text not in _SAFE_SYSCTLS:
            yield each.finding("sysctl", f"{each['name'].text} is not among the safe ones")
    annotations = pod.metadata["annotations"]
    for key in annotations.names():
        if key.startswith(_ARMOUR) and annotations[key].text == "unconfined":
            yield annotations[key].finding("unconfined", "AppArmor is unconfined")


def _volumes(pod: Pod) -> Iterator[Finding]:
    for volume in pod.spec["volumes"].each():
        for kind in volume.names():
            if kind == "hostPath":
                path = volume[kind]["path"]
                yield path.finding("host-path", f"mounts {path.text or 'a path'} of the node")
            elif kind not in _VOLUMES | {"name"}:
                yield volume[kind].finding("volume-kind", f"{kind} is none of the restricted kinds")


def _token(pod: Pod, manifests: tuple[Manifest, ...]) -> Iterator[Finding]:
    account, namespace = pod.account, pod.manifest.namespace
    place = pod.spec["serviceAccountName"]
    if account == "default":
        yield place.finding("default-account", "it runs as the account default")
    mounts = pod.spec["automountServiceAccountToken"].value
    if mounts is None:
        mounts = next((each for each in _mounting(account, namespace, manifests)), True)
    if mounts is not False and not _bound(account, namespace, manifests):
        mounted = pod.spec["automountServiceAccountToken"]
        message = f"{account} is bound to no role, yet its token is mounted"
        yield mounted.finding("unneeded-token", message)


def _mounting(account: str, namespace: str, manifests: tuple[Manifest, ...]) -> Iterator[object]:
    """What the service account itself says of mounting its token."""
    for each in manifests:
        if (each.kind, each.name, each.namespace) == ("ServiceAccount", account, namespace):
            said = each.root["automountServiceAccountToken"].value
            if said is not None:
                yield said


def _bound(account: str, namespace: str, manifests: tuple[Manifest, ...]) -> bool:
    for each in manifests:
        if each.kind not in _BINDINGS:
            continue
        for subject in each.root["subjects"].each():
            space = subject["namespace"].text or each.namespace
            if (subject["kind"].text, subject["name"].text) == ("ServiceAccount", account) and (
                space == namespace or not namespace
            ):
                return True
    return False
