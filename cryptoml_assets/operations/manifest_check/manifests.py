"""Kubernetes objects as files hold them, and ways to read them that know where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import yaml

from cryptoml_assets.errors import ManifestError
from cryptoml_assets.operations.manifest_check.rules import Finding


class _Loader(yaml.CSafeLoader):
    """Reads a mapping with a key given twice as the fault it is, as the API server does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"{key.value} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


@dataclass(frozen=True)
class Node:
    """A value of an object, which knows where it is.

    Attributes:
        manifest: the object.
        path: of the value in it; empty: the object itself.
        value: as the file has it; none where there is none.
    """

    manifest: Manifest
    path: str
    value: Any

    def __getitem__(self, key: str) -> Self:
        """The value of a key; one without a value where the key is absent.

        Raises:
            ManifestError: this is no mapping.
        """
        if self.value is None:
            return self._at(key, None)
        if not isinstance(self.value, Mapping):
            raise self._unlike("a mapping")
        return self._at(key, self.value.get(key))

    def each(self) -> Iterator[Self]:
        """The values of a list, by their names where they have any; none where there is no list.

        Raises:
            ManifestError: this is no list.
        """
        if self.value is None:
            return
        if not isinstance(self.value, list):
            raise self._unlike("a list")
        for number, value in enumerate(self.value):
            name = value.get("name") if isinstance(value, Mapping) else None
            place = name if isinstance(name, str) else str(number)
            yield type(self)(self.manifest, f"{self.path}[{place}]", value)

    def names(self) -> tuple[str, ...]:
        """The keys of a mapping; none where there is no mapping.

        Raises:
            ManifestError: this is no mapping.
        """
        if self.value is None:
            return ()
        if not isinstance(self.value, Mapping):
            raise self._unlike("a mapping")
        return tuple(map(str, self.value))

    def texts(self) -> tuple[str, ...]:
        """The values of a list of texts.

        Raises:
            ManifestError: this is no such list.
        """
        found = tuple(each.value for each in self.each())
        if not all(isinstance(each, str) for each in found):
            raise self._unlike("a list of texts")
        return found

    @property
    def text(self) -> str:
        """A text; empty where there is no value.

        Raises:
            ManifestError: this is no text.
        """
        if self.value is None:
            return ""
        if not isinstance(self.value, str):
            raise self._unlike("a text")
        return self.value

    def strings(self) -> Iterator[Self]:
        """Every text anywhere below, with its own place."""
        if isinstance(self.value, str):
            yield self
        elif isinstance(self.value, Mapping):
            for key, value in self.value.items():
                yield from self._at(str(key), value).strings()
        elif isinstance(self.value, list):
            for each in self.each():
                yield from each.strings()

    def finding(self, rule: str, message: str) -> Finding:
        """A finding at this place."""
        manifest = self.manifest
        return Finding(rule, manifest.source, manifest.told, self.path, message)

    def _at(self, key: str, value: Any) -> Self:
        path = f"{self.path}.{key}" if self.path else key
        return type(self)(self.manifest, path, value)

    def _unlike(self, accepted: str) -> ManifestError:
        # Its value may be a secret: its type says enough.
        kind = type(self.value).__name__
        where = f"{self.manifest.source}: {self.manifest.told}: {self.path}"
        return ManifestError(f"{where} is a {kind}; accepted is {accepted}")


@dataclass(frozen=True)
class Manifest:
    """One Kubernetes object.

    Attributes:
        source: file that it came from.
        body: all of it.
    """

    source: str
    body: Mapping[str, Any]

    @property
    def root(self) -> Node:
        """Its outermost value."""
        return Node(self, "", self.body)

    @property
    def kind(self) -> str:
        """What it is."""
        return self.root["kind"].text

    @property
    def name(self) -> str:
        """Its name, or what its name begins with."""
        metadata = self.root["metadata"]
        return metadata["name"].text or metadata["generateName"].text

    @property
    def namespace(self) -> str:
        """Its namespace; empty: that of whoever installs it."""
        return self.root["metadata"]["namespace"].text

    @property
    def told(self) -> str:
        """Kind, namespace and name in one text."""
        body = self.body
        metadata = body.get("metadata")
        about = metadata if isinstance(metadata, Mapping) else {}
        name = about.get("name") or about.get("generateName") or "?"
        space = about.get("namespace")
        return f"{body.get('kind')} {f'{space}/' if space else ''}{name}"


def read(text: str, source: str) -> tuple[Manifest, ...]:
    """The objects of a file, those of lists among them.

    Args:
        text: one or more YAML documents.
        source: what to call the file.

    Raises:
        ManifestError: it is no YAML, has aliases, holds something else, or no object at all.
    """
    try:
        if any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(text, yaml.CSafeLoader)):
            # A few lines of them can stand for more than any memory holds.
            raise ManifestError(f"{source} has YAML aliases, which are not accepted")
        documents = list(yaml.load_all(text, _Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # What PyYAML prints of the place may be a secret.
        hint = "; a template? render it first, as with helm template" if "{{" in text else ""
        raise ManifestError(f"{source} is no YAML: {_problem(error)}{hint}") from None
    found = tuple(each for body in documents for each in _objects(body, source))
    if not found:
        raise ManifestError(f"{source} holds no Kubernetes object")
    return found


def _problem(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return type(error).__name__
    line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
    return f"{line}{error.problem}"


def _objects(body: Any, source: str) -> Iterator[Manifest]:
    if body is None:
        return
    if not isinstance(body, Mapping) or not isinstance(body.get("kind"), str):
        kind = "a mapping without a kind" if isinstance(body, Mapping) else type(body).__name__
        raise ManifestError(f"{source} holds a document that is {kind}, no Kubernetes object")
    if body["kind"].endswith("List") and isinstance(body.get("items"), list):
        for each in body["items"]:
            yield from _objects(each, source)
        return
    yield Manifest(source, body)
