"""Rules of the network: who may open connections to a pod, and where it may open them itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from cryptoml_assets.errors import ManifestError
from cryptoml_assets.operations.manifest_check.manifests import Manifest, Node
from cryptoml_assets.operations.manifest_check.pods import Pod
from cryptoml_assets.operations.manifest_check.rules import Finding

#: Where clouds tell a machine its credentials.
_METADATA = (ipaddress.ip_address("169.254.169.254"), ipaddress.ip_address("fd00:ec2::254"))
#: A network of so few bits is half of all addresses.
_ANYWHERE_BITS = 1
_INTERNAL = {"true", "internal", "0.0.0.0/0"}


def isolation_findings(pods: Iterable[Pod], manifests: Iterable[Manifest]) -> Iterator[Finding]:
    """Pods that no policy isolates, one way or the other."""
    policies = [each for each in manifests if each.kind == "NetworkPolicy"]
    for pod in pods:
        own = [each for each in policies if _selects(each, pod)]
        ways = {way for each in own for way in _ways(each)}
        if "Egress" not in ways:
            message = "no network policy restricts where its pods connect to"
            yield pod.spec.finding("unrestricted-egress", message)
        if "Ingress" not in ways:
            message = "no network policy restricts who connects to its pods"
            yield pod.spec.finding("unrestricted-ingress", message)


def network_findings(manifest: Manifest) -> Iterator[Finding]:
    """What a policy, a service or an ingress is found with."""
    spec = manifest.root["spec"]
    if manifest.kind == "NetworkPolicy":
        for rule in spec["egress"].each():
            yield from _egress(rule)
        for rule in spec["ingress"].each():
            if not rule["from"].value and not rule["ports"].value:
                yield rule.finding("unrestricted-ingress", "takes any connection from anywhere")
    elif manifest.kind == "Service":
        yield from _service(manifest, spec)
    elif manifest.kind == "Ingress" and not spec["tls"].value:
        yield spec["tls"].finding("plain-ingress", "there is none")


def _egress(rule: Node) -> Iterator[Finding]:
    ports = bool(rule["ports"].value)
    if not rule["to"].value:
        if ports:
            yield rule.finding("metadata-egress", "these ports of any address may be connected to")
        else:
            yield rule.finding("unrestricted-egress", "any port of any address may be connected to")
        return
    for peer in rule["to"].each():
        if peer["ipBlock"].value is not None:
            yield from _block(peer["ipBlock"], ports=ports)
        elif (
            not ports
            and peer.names() == ("namespaceSelector",)
            and not peer["namespaceSelector"].value
        ):
            yield peer.finding("unrestricted-egress", "any port of any pod may be connected to")


def _block(block: Node, *, ports: bool) -> Iterator[Finding]:
    network = _network(block["cidr"])
    if network.prefixlen <= _ANYWHERE_BITS and not ports:
        message = f"any port of {network} may be connected to"
        yield block["cidr"].finding("unrestricted-egress", message)
        return
    excepted = [_network(each) for each in block["except"].each()]
    for address in _METADATA:
        if address in network and not any(address in each for each in excepted):
            message = f"{network} holds {address}; put it into except"
            yield block["cidr"].finding("metadata-egress", message)


def _network(node: Node) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(node.text)
    except ValueError as error:
        where = f"{node.manifest.source}: {node.manifest.told}: {node.path}"
        raise ManifestError(f"{where}: {error}; accepted is a CIDR such as 10.0.0.0/8") from None


def _service(manifest: Manifest, spec: Node) -> Iterator[Finding]:
    if spec["externalIPs"].value:
        yield spec["externalIPs"].finding("external-address", "it takes addresses of others")
    kind = spec["type"]
    if kind.text == "NodePort":
        yield kind.finding("public-service", "every node opens a port for it")
    elif (
        kind.text == "LoadBalancer"
        and not spec["loadBalancerSourceRanges"].value
        and not _internal(manifest.root["metadata"]["annotations"])
    ):
        yield kind.finding("public-service", "it has no loadBalancerSourceRanges")


def _internal(annotations: Node) -> bool:
    """Whether the cloud is told to keep a load balancer within its own network."""
    for key in annotations.names():
        value = annotations[key].text.lower()
        if "internal" in key and value in _INTERNAL:
            return True
        if key.endswith(("load-balancer-scheme", "load-balancer-type")) and value == "internal":
            return True
    return False


def _ways(policy: Manifest) -> set[str]:
    """What a policy isolates of: Ingress, Egress or both."""
    spec = policy.root["spec"]
    named = set(spec["policyTypes"].texts())
    if named:
        return named
    return {"Ingress", "Egress"} if spec["egress"].value is not None else {"Ingress"}


def _selects(policy: Manifest, pod: Pod) -> bool:
    selector = policy.root["spec"]["podSelector"]
    labels = pod.labels
    wanted = selector["matchLabels"]
    return (
        policy.namespace == pod.manifest.namespace
        and all(labels.get(key) == wanted[key].text for key in wanted.names())
        and all(_matches(each, labels) for each in selector["matchExpressions"].each())
    )


def _matches(expression: Node, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"].text, expression["values"].texts()
    match expression["operator"].text:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            where = f"{expression.manifest.source}: {expression.manifest.told}: {expression.path}"
            accepted = "In, NotIn, Exists or DoesNotExist"
            raise ManifestError(f"{where}: operator {other!r}; accepted is {accepted}")
