"""The pods that objects make: those of any workload, whoever defined its kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cryptoml_assets.operations.manifest_check.manifests import Manifest, Node

#: Where objects keep what their pods are made from, outermost first.
_TEMPLATES = (("spec", "jobTemplate", "spec", "template"), ("spec", "template"), ("template",))
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True)
class Pod:
    """What an object makes pods from.

    Attributes:
        manifest: the object.
        metadata: of the pods.
        spec: of the pods.
    """

    manifest: Manifest
    metadata: Node
    spec: Node

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of the pods."""
        node = self.metadata["labels"]
        return {key: node[key].text for key in node.names()}

    @property
    def account(self) -> str:
        """Name of the service account the pods run as."""
        return self.spec["serviceAccountName"].text or self.spec["serviceAccount"].text or "default"

    def containers(self) -> Iterator[Node]:
        """Every container, those that run first and those put in later among them."""
        for kind in _CONTAINERS:
            yield from self.spec[kind].each()


def pods(manifests: Iterable[Manifest]) -> tuple[Pod, ...]:
    """What every object makes pods from."""
    return tuple(each for manifest in manifests for each in _pods(manifest))


def _pods(manifest: Manifest) -> Iterator[Pod]:
    if manifest.kind == "Pod":
        yield Pod(manifest, manifest.root["metadata"], manifest.root["spec"])
        return
    for path in _TEMPLATES:
        node: Node | None = manifest.root
        for key in path:
            node = node[key] if node is not None and isinstance(node.value, Mapping) else None
        # Other kinds have a spec.template too: one of pods has containers.
        if node is not None and isinstance(node.value, Mapping) and _makes_pods(node):
            yield Pod(manifest, node["metadata"], node["spec"])
            return


def _makes_pods(template: Node) -> bool:
    spec = template.value.get("spec")
    return isinstance(spec, Mapping) and "containers" in spec
