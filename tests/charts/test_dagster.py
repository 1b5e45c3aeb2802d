"""Dagster beside the chart: its values, and the pods of runs that the code server asks for."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.storage.config import pg_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient

from tests.charts.pod_security import violations
from tests.charts.rendering import (
    ENVIRONMENTS,
    ROOT,
    Variant,
    environment,
    named,
    objects,
    pod_templates,
)
from tests.charts.schemas import VERSIONS, refusal

#: Values of Dagster's chart that these files use, by their place in its values.yaml. Each is in the
#: schema (helm/dagster/schema of dagster-io/dagster) or the templates that read it.
KNOWN = set(Path(__file__).with_name("dagster_chart_values.txt").read_text().split())


def merged(environment_name):
    values = {}
    for file in ("dagster-values.yaml", f"dagster-values-{environment_name}.yaml"):
        _merge(values, yaml.safe_load((ROOT / "helm" / file).read_text()))
    return values


def _merge(onto, over):
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(onto.get(key), dict):
            _merge(onto[key], value)
        else:
            onto[key] = value


def _places(values, prefix=""):
    for key, value in values.items():
        place = f"{prefix}{key}"
        if place in KNOWN or not isinstance(value, dict):
            yield place
        else:
            yield from _places(value, f"{place}.")


def launcher(values):
    """The section run_launcher that the chart makes of its values."""
    own = values["runLauncher"]["config"]["k8sRunLauncher"]
    raw = own["runK8sConfig"]
    return {
        "load_incluster_config": own["loadInclusterConfig"],
        "job_namespace": "cryptoml",
        "image_pull_policy": own["imagePullPolicy"],
        "service_account_name": values["serviceAccount"]["name"],
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "fail_pod_on_run_failure": own["failPodOnRunFailure"],
        "security_context": own["securityContext"],
        "run_k8s_config": {
            "pod_spec_config": raw["podSpecConfig"],
            "job_spec_config": raw["jobSpecConfig"],
        },
    }


def instance(values):
    """The dagster.yaml that the chart makes of its values, by its template configmap-instance."""
    daemon, logs = values["dagsterDaemon"], values["computeLogManager"]["config"]
    s3, watched = logs["s3ComputeLogManager"], daemon["runMonitoring"]
    kept = values["retention"]
    own = values["postgresql"]
    storage = {
        "username": own["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": own["postgresqlHost"],
        "db_name": own["postgresqlDatabase"],
        "port": own["service"]["port"],
        "params": own["postgresqlParams"],
        "scheme": own["postgresqlScheme"],
    }
    module = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher(values)}
    assert values["runLauncher"]["type"] == module["class"]
    assert values["computeLogManager"]["type"] == "S3ComputeLogManager"
    return {
        "storage": {"postgres": {"postgres_db": storage}},
        "run_launcher": module,
        "run_coordinator": {
            "module": "dagster._core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": _snaked(daemon["runCoordinator"]["config"]["queuedRunCoordinator"]),
        },
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": "S3ComputeLogManager",
            "config": _snaked(s3) | {"verify": True},
        },
        "run_monitoring": _snaked(watched),
        "sensors": _snaked(daemon["sensors"]),
        "schedules": _snaked(daemon["schedules"]),
        "telemetry": values["telemetry"],
        "retention": {each: _snaked(kept[each]) for each in ("sensor", "schedule")},
        **values["additionalInstanceConfig"],
    }


def _snaked(values):
    return {re.sub("([A-Z])", r"_\1", key).lower(): value for key, value in values.items()}


def context(found):
    container = pod_templates(found)["Deployment/cryptoml-code-server"]["spec"]["containers"][0]
    told = environment(container, found)
    return json.loads(told["DAGSTER_CONTAINER_CONTEXT"]), told["DAGSTER_CURRENT_IMAGE"], container


def run_job(values, found):
    """The Job of a run, as the launcher makes it of its configuration and the code location's."""
    own = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), launcher(values))
    assert own.success, own.errors
    asked, image, _ = context(found)
    # As the constructor does, which wants a cluster.
    config = {key: value for key, value in own.value.items() if value is not None}
    for key in ("load_incluster_config", "instance_config_map", "postgres_password_secret",
                "dagster_home", "job_namespace", "fail_pod_on_run_failure"):  # fmt: skip
        config.pop(key, None)
    launched = K8sContainerContext.create_from_config({"k8s": config})
    merged_context = launched.merge(K8sContainerContext.create_from_config(asked))
    from dagster_k8s.job import DagsterK8sJobConfig  # noqa: PLC0415

    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(
            job_image=image,
            dagster_home=own.value["dagster_home"],
            instance_config_map="dagster-instance",
            postgres_password_secret=own.value["postgres_password_secret"],
        ),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        component="run_worker",
        user_defined_k8s_config=merged_context.run_k8s_config,
        labels={"dagster/run-id": "1"},
    )
    return ApiClient().sanitize_for_serialization(job)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_only_values_that_the_chart_knows(name):
    assert set(_places(merged(name))) - KNOWN == set()


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_dagster_takes_its_account_code_server_and_secret_from_this_chart(name):
    values, found = merged(name), objects(Variant(name))
    (server,) = values["dagsterWebserver"]["workspace"]["servers"]
    service = named(found, "Service", server["host"])["spec"]["ports"]
    assert server["port"] in {each["port"] for each in service}
    named(found, "ServiceAccount", values["serviceAccount"]["name"])
    own = yaml.safe_load((ROOT / "helm/cryptoml/values.yaml").read_text())
    assert values["global"]["postgresqlSecretName"] == own["dagster"]["postgresqlSecret"]["name"]
    assert values["rbacEnabled"] is values["serviceAccount"]["create"] is False
    image = own["codeServer"]["image"]
    asked = values["dagsterWebserver"]["image"]
    assert asked["repository"] == f"{image['registry']}/{image['repository']}"
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert workspace[0]["python_module"]["location_name"] == server["name"]
    cloud = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())["locations"]
    assert cloud[0]["location_name"] == server["name"]
    module = cloud[0]["code_source"]["module_name"]
    command = context(found)[2]["command"]
    assert command[command.index("-m") + 1] == module


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_its_pods_are_restricted(name):
    values = merged(name)
    for component in ("dagsterWebserver", "dagsterDaemon"):
        own = values[component]
        spec = {
            "securityContext": own["podSecurityContext"],
            "containers": [
                {"name": each, "securityContext": own["securityContext"]}
                for each in ("own", "init")
            ],
            "volumes": own["volumes"],
        }
        assert list(violations(spec)) == []
        assert own["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"limits", "requests"} <= set(own["resources"]) & set(own["initContainerResources"])


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_webserver_is_asked_on_the_port_it_listens_on(name):
    own = merged(name)["dagsterWebserver"]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        assert own[probe]["httpGet"]["port"] == own["service"]["port"]
    policies = {
        each["metadata"]["name"]: each
        for each in objects(Variant(name))
        if each["kind"] == "NetworkPolicy"
    }
    (way_in,) = policies["cryptoml-dagster"]["spec"]["ingress"]
    assert [each["port"] for each in way_in["ports"]] == [own["service"]["port"]]


@pytest.mark.parametrize("everything", [False, True])
def test_a_run_is_a_restricted_job_with_its_image_account_and_labels(everything):
    found = objects(Variant("production", everything=everything))
    job = run_job(merged("production"), found)
    assert refusal(job, VERSIONS[-1]) is None
    template = job["spec"]["template"]
    spec = template["spec"]
    (container,) = spec["containers"]
    assert container["image"] == "ghcr.io/cryptoml/cryptoml-assets:0.1.0"
    assert spec["serviceAccountName"] == "cryptoml-run"
    assert spec["enableServiceLinks"] is False
    assert list(violations(spec)) == []
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"] == "4Gi"
    assert template["metadata"]["labels"]["cryptoml.io/pod"] == "run"
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "run_worker"
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert {"/data", "/tmp", "/etc/cryptoml/approval", "/etc/cryptoml/signing"} <= set(mounts)  # noqa: S108
    assert ("/checkpoints" in mounts) is everything
    assert set(mounts.values()) == {each["name"] for each in spec["volumes"]}
    assert {"configMapRef": {"name": "cryptoml-settings"}} in container["envFrom"]
    variables = {each["name"] for each in container["env"]}
    assert {"CRYPTOML_DAGSTER_POSTGRES_URL", "DAGSTER_PG_PASSWORD", "DAGSTER_HOME"} <= variables


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_dagster_takes_the_instance_that_the_chart_makes(name, monkeypatch):
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "word")
    made = instance(merged(name))
    taken = process_config(dagster_instance_config_schema(), made)
    assert taken.success, [each.message for each in taken.errors]
    for each in ("run_coordinator", "compute_logs"):
        module = importlib.import_module(made[each]["module"])
        kind = getattr(module, made[each]["class"]).config_type()
        own = process_config(resolve_to_config_type(kind), made[each]["config"])
        assert own.success, [each.message for each in own.errors]
    stored = process_config(resolve_to_config_type(pg_config()), made["storage"]["postgres"])
    assert stored.success, [each.message for each in stored.errors]
    assert made["run_monitoring"]["enabled"] is True
    # Said in one place alone: the chart would write it a second time.
    assert merged(name)["dagsterDaemon"]["runRetries"] == {"enabled": False}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_compute_logs_go_where_the_graph_looks_for_them(name):
    bucket = merged(name)["computeLogManager"]["config"]["s3ComputeLogManager"]["bucket"]
    settings = named(objects(Variant(name)), "ConfigMap", "cryptoml-settings")["data"]
    assert settings["CRYPTOML_DAGSTER_LOGS_BUCKET"] == bucket


def test_retries_are_those_of_the_production_dagster_yaml():
    ours = yaml.safe_load((ROOT / "production" / "dagster.yaml").read_text())
    theirs = merged("production")["additionalInstanceConfig"]
    assert theirs["run_retries"] == ours["run_retries"]
