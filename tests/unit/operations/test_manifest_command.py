"""The manifest check as a command, and what it reads: all that is no manifest is named."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cryptoml_assets.cli import app
from cryptoml_assets.errors import ManifestError
from cryptoml_assets.operations.manifest_check.check import check
from cryptoml_assets.operations.manifest_check.manifests import read
from tests.sound_manifests import (
    SOUND,
    look,
    objects,
    written,
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no Kubernetes object"),
        ("# nothing\n---\n", "holds no Kubernetes object"),
        ("a: 1", "a mapping without a kind"),
        ("- 1", "document that is list"),
        ("kind: A\nkind: B", "line 2: kind is given twice"),
        ("kind: [", "is no YAML: line 2"),
        ("kind: Pod\nspec: {{ .Values.x }}", "render it first"),
        ("kind: A\nx: &a [*a]", "YAML aliases"),
        ("kind: A\nwhen: 2024-13-45", "is no YAML"),
        ("kind: Pod\nspec: {containers: 7}", "spec.containers is a int; accepted is a list"),
        ("kind: Pod\nspec: {containers: [secret]}", "containers[0] is a str; accepted is a map"),
        ("kind: Role\nrules: [{verbs: [1]}]", "rules[0].verbs is a list; accepted is a list of"),
        ("kind: Service\nspec: {type: {}}", "spec.type is a dict; accepted is a text"),
        (
            "kind: NetworkPolicy\nspec: {egress: [{to: [{ipBlock: {cidr: nowhere}}]}]}",
            "'nowhere' does not appear to be an IPv4 or IPv6 network; accepted is a CIDR",
        ),
    ],
)
def test_what_is_no_manifest_is_named(text: str, why: str) -> None:
    with pytest.raises(ManifestError) as raised:
        check(read(text, "a.yaml"))
    assert str(raised.value).startswith("a.yaml")
    assert why in str(raised.value)


def test_lists_are_what_they_hold() -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": objects()}
    assert look(items).objects == len(objects())


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_is_put_in_is_looked_at_or_named(data: st.DataObject) -> None:
    """No value anywhere of a sound deployment makes the check stumble over it."""
    found = objects()
    node: Any = data.draw(st.sampled_from(found))
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        deeper = node[key] and isinstance(node[key], dict | list) and data.draw(st.booleans())
        if not deeper:
            break
        node = node[key]
    odd = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()) | st.just({})
    node[key] = data.draw(odd)
    with contextlib.suppress(ManifestError):
        assert 0 <= check(read(written(found), "a.yaml")).risk <= 100


def command(*arguments: str, text: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["manifest-check", *arguments], input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_the_command_fails_above_the_risk_that_is_accepted(tmp_path: Path) -> None:
    sound, other = tmp_path / "sound.yaml", tmp_path / "other.yaml"
    sound.write_text(SOUND)
    other.write_text("kind: Ingress\nmetadata: {name: web}")
    code, told = command(str(sound))
    assert code == 0
    assert told.endswith("0 critical, 0 high, 0 medium, 0 low; risk 0 of 100\n")
    code, told = command(str(sound), str(other))
    assert code == 1
    assert f"MEDIUM   plain-ingress: {other}: Ingress web: spec.tls: there is none" in told
    assert "risk 5 of 100" in told
    assert command(str(sound), str(other), "--max-risk", "5")[0] == 0
    assert command("-", text=other.read_text())[0] == 1
    code, told = command(str(other), "--json", "--max-risk", "4.9")
    assert code == 1
    assert json.loads(told) == {
        "well": False,
        "max_risk": 4.9,
        "risk": 5.0,
        "objects": 1,
        "severities": {"critical": 0, "high": 0, "medium": 1, "low": 0},
        "findings": [
            {
                "rule": "plain-ingress",
                "severity": "medium",
                "file": str(other),
                "object": "Ingress web",
                "path": "spec.tls",
                "message": "there is none",
            }
        ],
    }


def test_what_cannot_be_checked_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no/such: No such file"):
        command("no/such")
    with pytest.raises(ValueError, match="--max-risk 101: accepted"):
        command("no/such", "--max-risk", "101")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match="no UTF-8"):
        command(str(binary))
