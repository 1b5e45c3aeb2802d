"""``scripts/deploy``: both releases in order, and back where there is something to go back to."""

import os
import subprocess

import pytest

from tests.charts.rendering import ROOT

STUB = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
  version*) echo "${HELM_VERSION:-v4.3.1}" ;;
  *"get namespace"*) exit "${NAMESPACE_MISSING:-0}" ;;
  *"get deployment"*) printf %s "${READY:-}" ;;
esac
"""


@pytest.fixture
def deploy(tmp_path):
    """Run the script over programs that only write down how they were called."""

    def run(*arguments, **variables):
        calls = tmp_path / "calls"
        calls.write_text("")
        for name in ("helm", "kubectl"):
            (tmp_path / name).write_text(STUB)
            (tmp_path / name).chmod(0o755)
        told = {"HELM": str(tmp_path / "helm"), "KUBECTL": str(tmp_path / "kubectl")}
        done = subprocess.run(
            [ROOT / "scripts" / "deploy", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], **told, "CALLS": str(calls), **variables},
        )
        return done, calls.read_text().splitlines()

    return run


def test_an_unknown_environment_is_refused(deploy):
    done, calls = deploy("testing")
    assert done.returncode == 2
    assert "deploy 'testing': accepted: development, staging, production" in done.stderr
    assert calls == []


def test_first_the_chart_then_the_code_server_then_dagster(deploy):
    done, calls = deploy("staging", "9.9.9", NAMESPACE_MISSING="1")
    assert done.returncode == 0, done.stderr
    order = [
        next(number for number, call in enumerate(calls) if what in call)
        for what in (
            "kubectl create namespace cryptoml",
            "pod-security.kubernetes.io/enforce=restricted",
            "upgrade --install cryptoml helm/cryptoml",
            "rollout status deployment/cryptoml-code-server",
            "upgrade --install dagster dagster --repo https://dagster-io.github.io/helm",
        )
    ]
    assert order == sorted(order)
    ours, theirs = (each for each in calls if "upgrade --install" in each)
    assert "values-staging.yaml" in ours
    assert "codeServer.image.tag=9.9.9" in ours
    assert "dagster-values.yaml --values helm/dagster-values-staging.yaml" in theirs
    assert "dagsterDaemon.image.tag=9.9.9" in theirs
    assert "serviceAccount.name=cryptoml-dagster" in theirs
    assert "servers[0].host=cryptoml-code-server" in theirs
    # The chart's version is that of the library that is locked.
    assert "--version 1." in theirs


def test_the_first_time_no_model_is_waited_for(deploy):
    done, calls = deploy("production")
    (ours,) = [each for each in calls if "upgrade --install cryptoml" in each]
    assert "--wait" not in ours
    assert "run the job train" in done.stdout


@pytest.mark.parametrize(
    ("version", "flag"), [("v3.17.2", "--atomic"), ("v4.3.1", "--rollback-on-failure")]
)
def test_where_something_is_served_an_upgrade_goes_back_by_itself(deploy, version, flag):
    done, calls = deploy("production", READY="2", HELM_VERSION=version)
    (ours,) = [each for each in calls if "upgrade --install cryptoml" in each]
    assert f"{flag} --wait --timeout 10m" in ours
    assert done.stdout == ""
