"""``scripts/deliver`` and ``scripts/deploy``, over a Helm and a service that only keep count."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
#: Keeps the history of each release in a file, as Helm does in the cluster.
HELM = """#!/usr/bin/env -S python3 -IS
import json, os, sys
from pathlib import Path

file = Path(os.environ["STATE"])
state = json.loads(file.read_text())
verb, *rest = sys.argv[1:]
name = next((each for each in rest if not each.startswith("-")), "")
state["calls"].append([verb, *rest])
history = state["releases"].get(name, [])


def add(content):
    for each in history:
        each["status"] = "superseded"
    history.append({"revision": len(history) + 1, "status": "deployed", "content": content})
    state["releases"][name] = history


failed = verb in state["fails"] or f"{verb} {name}" in state["fails"]
if verb == "version":
    print("v3.17.2")
elif verb == "history" and not failed and not history:
    print("Error: release: not found", file=sys.stderr)
    failed = True
elif verb == "history" and failed:
    print("Error: Kubernetes cluster unreachable", file=sys.stderr)
elif verb == "history":
    print(json.dumps(history))
elif verb == "upgrade" and not failed:
    add("new")
elif verb == "rollback" and not failed:
    (to,) = [each for each in history if str(each["revision"]) == rest[1]]
    add(to["content"])
file.write_text(json.dumps(state))
sys.exit(failed)
"""
#: Well unless what is deployed is in the list of what is not.
SMOKE = """#!/usr/bin/env -S python3 -IS
import json, os, sys
from pathlib import Path

file = Path(os.environ["STATE"])
state = json.loads(file.read_text())
state["calls"].append(sys.argv[1:])
file.write_text(json.dumps(state))
deployed = state["releases"]["cryptoml"][-1]["content"]
sys.exit(deployed in state["ill"])
"""


@dataclass
class Cluster:
    """What the programs saw and did, and how to run the script over it."""

    folder: Path

    def set(self, *, releases: dict[str, Any] | None = None, **state: Any) -> None:
        old = [{"revision": 1, "status": "deployed", "content": "old"}]
        kept = {"cryptoml": old, "dagster": old} if releases is None else releases
        whole = {"releases": kept, "calls": [], "fails": [], "ill": [], **state}
        (self.folder / "state").write_text(json.dumps(whole))

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state").read_text())
        return state

    @property
    def content(self) -> dict[str, str]:
        return {name: each[-1]["content"] for name, each in self.state["releases"].items()}

    def calls(self, verb: str) -> list[list[str]]:
        return [each for each in self.state["calls"] if each[0] == verb]

    def deliver(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        programs = {
            name.upper(): str(self.folder / name) for name in ("helm", "kubectl", "cryptoml")
        }
        return subprocess.run(
            [REPOSITORY / "scripts" / "deliver", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "STATE": str(self.folder / "state"),
                "SERVICE_URL": "https://api.example.com",
                **programs,
                **environment,
            },
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    for name, text in {"helm": HELM, "cryptoml": SMOKE, "kubectl": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    cluster = Cluster(tmp_path)
    cluster.set()
    return cluster


def test_what_is_proved_stays(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.deliver(
        "staging",
        "1.2.3",
        KEY_FILE=str(tmp_path / "key"),
        SOFTWARE="1.2.3",
        WATCH="5m",
        ERROR_BUDGET="0.001",
        PROMETHEUS="http://prometheus",
        MATCHING='namespace="staging"',
    )
    assert done.returncode == 0, done.stderr
    assert cluster.content == {"cryptoml": "new", "dagster": "new"}
    verbs = [each[0] for each in cluster.state["calls"] if each[0] not in ("history", "version")]
    assert verbs == ["upgrade", "upgrade", "test", "smoke"]
    (smoke,) = cluster.calls("smoke")
    asked = dict(zip(smoke[1::2], smoke[2::2], strict=True))
    assert asked == {
        "--url": "https://api.example.com",
        "--key-file": str(tmp_path / "key"),
        "--wait": "2m",
        "--watch": "5m",
        "--error-budget": "0.001",
        "--release": "1.2.3",
        "--prometheus": "http://prometheus",
        "--matching": 'namespace="staging"',
    }


@pytest.mark.parametrize(
    "trouble",
    [
        {"ill": ["new"]},
        {"fails": ["test"]},
        {"fails": ["upgrade dagster"]},
    ],
    ids=["smoke", "helm test", "second release"],
)
def test_what_is_not_proved_is_taken_back(cluster: Cluster, trouble: dict[str, Any]) -> None:
    cluster.set(**trouble)
    done = cluster.deliver("production", "1.2.3")
    assert done.returncode == 1, done.stderr
    assert cluster.content == {"cryptoml": "old", "dagster": "old"}
    assert "as it was before" in done.stderr
    # What is back is asked as well.
    assert cluster.state["calls"][-1][0] == "smoke"


def test_what_was_not_touched_is_not_rolled_back(cluster: Cluster) -> None:
    cluster.set(fails=["upgrade cryptoml"])
    assert cluster.deliver("production").returncode == 1
    assert cluster.calls("rollback") == []


@pytest.mark.parametrize(
    "trouble",
    [
        {"ill": ["new"], "fails": ["rollback cryptoml"]},
        {"ill": ["new", "old"]},
        {"ill": ["new"], "releases": {}},
    ],
    ids=["rollback fails", "old one is ill", "first deployment"],
)
def test_what_cannot_be_taken_back_is_told_apart(cluster: Cluster, trouble: dict[str, Any]) -> None:
    cluster.set(**trouble)
    done = cluster.deliver("production", "1.2.3")
    assert done.returncode == 3, done.stderr
    assert "somebody has to look" in done.stderr


def test_a_cluster_that_does_not_answer_is_not_deployed_to(cluster: Cluster) -> None:
    cluster.set(fails=["history"])
    done = cluster.deliver("production", "1.2.3")
    assert done.returncode == 1
    assert "unreachable" in done.stderr
    assert cluster.calls("upgrade") == []


def test_what_is_missing_is_asked_for(cluster: Cluster) -> None:
    assert "SERVICE_URL: where do callers" in cluster.deliver("staging", SERVICE_URL="").stderr
    assert "which environment?" in cluster.deliver().stderr
    wrong = cluster.deliver("moon")
    assert "deploy 'moon': accepted: development" in wrong.stderr
    assert wrong.returncode == 1
