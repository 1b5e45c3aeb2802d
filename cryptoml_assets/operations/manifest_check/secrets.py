"""Rules of secrets: what stands in a manifest is read by everybody who reads the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cryptoml_assets.operations.manifest_check.manifests import Manifest, Node
from cryptoml_assets.operations.manifest_check.pods import Pod
from cryptoml_assets.operations.manifest_check.rules import Finding

#: Names whose value is a secret unless it only says where one is.
_NAME = re.compile(
    r"(?:^|[_.-])(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|APIKEY|KEY)$",
    re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(r"PUBLIC[_.-]?KEY$", re.IGNORECASE)
#: Values that name a place, refer to another variable, or are a switch or a number.
_NO_SECRET = re.compile(
    r"^(?:|\.{0,2}/\S*|[a-z]+://[^@]*|\$\(\w+\)|\$\{\w+\}|true|false|yes|no|none|null|\d{1,6}"
    r"|[\w.-]+\.(?:pem|key|json|ya?ml|txt|crt))$",
    re.IGNORECASE,
)
_ARGUMENT = re.compile(
    r"^--?[\w-]*(?:password|passphrase|secret|token|api-?key)=(?P<value>.+)$", re.IGNORECASE
)
#: What secrets look like wherever they stand.
_SHAPES = {
    "an address with a password": re.compile(
        r"[a-z][\w+.-]*://[^\s/:@]*:(?!\*+@|\$\(|\$\{|<)[^\s/@]+@", re.IGNORECASE
    ),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,})"),
    "a Slack token": re.compile(r"\bxox[abeprs]-[\w-]{10,}"),
    "a Slack webhook": re.compile(r"hooks\.slack\.com/services/\w+/\w+/\w+"),
    "a Teams webhook": re.compile(r"webhook\.office\.com/webhookb2/[\w-]+"),
    "a Google API key": re.compile(r"\bAIza[\w-]{35}\b"),
    "a signed token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
}


def secret_findings(manifest: Manifest) -> Iterator[Finding]:
    """What an object of any kind is found with; each place once."""
    if manifest.kind == "Secret":
        yield from _secret(manifest)
        return
    if manifest.kind == "ConfigMap":
        data = manifest.root["data"]
        for key in data.names():
            if isinstance(data[key].value, str) and _tells(key, data[key].value):
                yield data[key].finding("exposed-secret", "its name says that it is a secret")
    for node in manifest.root.strings():
        if found := next((name for name, shape in _SHAPES.items() if shape.search(node.value)), ""):
            yield node.finding("exposed-secret", f"holds {found}")


def environment_findings(pod: Pod) -> Iterator[Finding]:
    """Secrets that containers are given by name as plain variables or arguments."""
    for container in pod.containers():
        for variable in container["env"].each():
            value = variable["value"]
            if isinstance(value.value, str) and _tells(variable["name"].text, value.value):
                yield value.finding("exposed-secret", "its name says that it is a secret")
        for place in ("command", "args"):
            yield from _arguments(container[place])


def _arguments(arguments: Node) -> Iterator[Finding]:
    for each in arguments.each():
        said = _ARGUMENT.match(each.value) if isinstance(each.value, str) else None
        if said is not None and not _NO_SECRET.match(said["value"]):
            yield each.finding("exposed-secret", "the argument's name says that it is a secret")


def _secret(manifest: Manifest) -> Iterator[Finding]:
    for place in ("data", "stringData"):
        values = manifest.root[place]
        for key in values.names():
            if values[key].value not in (None, ""):
                message = "its value stands in the manifest; refer to one that is made elsewhere"
                yield values[key].finding("exposed-secret", message)


def _tells(name: str, value: str) -> bool:
    """Whether a name says that its value is a secret, and the value is more than a place."""
    named = _NAME.search(name) is not None and _PUBLIC_NAME.search(name) is None
    shaped = any(shape.search(value) for shape in _SHAPES.values())
    # What has the shape of a secret is found by that.
    return named and not shaped and _NO_SECRET.match(value.strip()) is None
