"""Runs and steps as Jobs of Kubernetes: image, settings, secrets, resources, security, retries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher import LaunchRunContext

from cryptoml_assets.models.resources import training_request
from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.settings import SettingsError
from tests.production.kubernetes_api import KubernetesApi

REPOSITORY = Path(__file__).parents[2]
IMAGE = "registry.example/cryptoml-assets:0.1.0"
CLUSTER = {
    "CRYPTOML_EXECUTION": "kubernetes",
    "CRYPTOML_K8S_NAMESPACE": "cryptoml",
    "CRYPTOML_K8S_SERVICE_ACCOUNT": "cryptoml-run",
    "CRYPTOML_K8S_INSTANCE_CONFIG_MAP": "dagster-instance",
    "CRYPTOML_K8S_SETTINGS": "cryptoml-settings",
    "CRYPTOML_K8S_SECRETS": "cryptoml-secrets",
}


@pytest.fixture
def cluster(
    production: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[KubernetesApi]:
    """An API to which this process is a pod of the cluster, on the stores of production."""
    for name, value in CLUSTER.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    with KubernetesApi() as api:

        def point() -> None:
            told = kubernetes.client.Configuration()
            told.host = api.url
            kubernetes.client.Configuration.set_default(told)

        monkeypatch.setattr(kubernetes.config, "load_incluster_config", point)
        monkeypatch.setenv("DAGSTER_HOME", str(prepare_dagster_home(settings().home_path)))
        yield api
    kubernetes.client.Configuration.set_default(None)


def location() -> ReconstructableRepository:
    """The code location of two assets, as our image has it."""
    return ReconstructableRepository.for_module(
        "tests.production.steps", "defs", str(REPOSITORY), container_image=IMAGE
    )


def pod_of(job: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its pod, and its one container."""
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def check_restricted(job: Mapping[str, Any]) -> None:
    """What Pod Security asks for at its level `restricted`, and a root file system for reading."""
    pod, container = pod_of(job)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    writable = {each["mountPath"] for each in container["volumeMounts"]}
    assert {"/data", "/tmp"} <= writable  # noqa: S108 - a path of the pod
    assert pod["serviceAccountName"] == "cryptoml-run"


def check_settings(job: Mapping[str, Any], production: Mapping[str, str]) -> None:
    """Settings and secrets by reference alone."""
    _, container = pod_of(job)
    assert {"configMapRef": {"name": "cryptoml-settings"}} in container["envFrom"]
    assert {"secretRef": {"name": "cryptoml-secrets"}} in container["envFrom"]
    text = str(job)
    for secret in ("AWS_SECRET_ACCESS_KEY", "CRYPTOML_ONLINE_STORE"):
        assert production[secret] not in text


def test_a_run_is_a_job_of_its_image_and_of_what_the_cluster_gives(
    cluster: KubernetesApi, production: Mapping[str, str]
) -> None:
    origin = location().get_reconstructable_job("both").get_python_origin()
    cluster._runs = False
    with dg.DagsterInstance.get() as instance:
        job = location().get_reconstructable_job("both").get_definition()
        run = instance.create_run_for_job(job, job_code_origin=origin)
        instance.run_launcher.launch_run(LaunchRunContext(run, None))
    ((name, posted),) = cluster.jobs.items()
    pod, container = pod_of(posted)
    assert run.run_id in name
    assert container["image"] == IMAGE
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "2Gi"},
        "limits": {"memory": "2Gi"},
    }
    # A Job that starts its pod again would run steps that Dagster has seen start.
    assert posted["spec"]["backoffLimit"] == 0
    assert posted["spec"]["ttlSecondsAfterFinished"] == 86400
    assert pod["restartPolicy"] == "Never"
    assert posted["metadata"]["labels"]["dagster/run-id"] == run.run_id
    check_restricted(posted)
    check_settings(posted, production)


def test_each_step_is_a_job_with_the_resources_of_its_asset(
    cluster: KubernetesApi, production: Mapping[str, str]
) -> None:
    from tests.production.steps import LOAD  # noqa: PLC0415 - reads the settings

    with dg.DagsterInstance.get() as instance:
        done = dg.execute_job(location().get_reconstructable_job("both"), instance)
        assert done.success
        assert instance.get_latest_materialization_event(dg.AssetKey("compared")) is not None
    jobs = {job["metadata"]["labels"]["dagster/op"]: job for job in cluster.jobs.values()}
    assert set(jobs) == {"trained", "compared"}
    for job in jobs.values():
        assert pod_of(job)[1]["image"] == IMAGE
        check_restricted(job)
        check_settings(job, production)
    pod, container = pod_of(jobs["trained"])
    asked = training_request(LOAD)
    memory = f"{-(-asked.memory_bytes // 2**20)}Mi"
    assert container["resources"]["requests"] == {"cpu": str(asked.cpus), "memory": memory}
    assert container["resources"]["limits"] == {"memory": memory, "nvidia.com/gpu": "1"}
    # Interruptible nodes are preferred, never required: without one it runs on any other.
    node = pod["affinity"]["nodeAffinity"]
    assert set(node) == {"preferredDuringSchedulingIgnoredDuringExecution"}
    tolerated = {each["key"] for each in pod["tolerations"]}
    assert {"nvidia.com/gpu", "karpenter.sh/capacity-type"} <= tolerated
    plain, _ = pod_of(jobs["compared"])
    assert "affinity" not in plain
    assert "tolerations" not in plain


def test_the_charts_of_the_instance_retry_alike() -> None:
    ours = yaml.safe_load((REPOSITORY / "production" / "dagster.yaml").read_text())
    chart = yaml.safe_load((REPOSITORY / "helm" / "dagster-values.yaml").read_text())
    assert ours["run_retries"] == chart["additionalInstanceConfig"]["run_retries"]
    assert ours["run_launcher"]["config"]["dagster_home"] == chart["global"]["dagsterHome"]
    assert chart["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def test_an_incomplete_cluster_is_told_by_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_DAGSTER_POSTGRES_URL", "postgresql+psycopg2://u:secret@h/d")
    for name, value in CLUSTER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CRYPTOML_K8S_SECRETS")
    with pytest.raises(SettingsError, match="needs CRYPTOML_K8S_SECRETS as well") as told:
        settings()
    assert "secret@" not in str(told.value)
