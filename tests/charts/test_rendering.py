"""Every variant renders, in both versions of Helm alike, to what Kubernetes' own schemas take."""

import json
import re

import kubernetes_validate
import pytest

from cryptoml_assets.operations.manifest_check.check import check
from cryptoml_assets.operations.manifest_check.manifests import read
from tests.charts.pod_security import violations
from tests.charts.rendering import (
    CHART,
    DIGESTS,
    ENVIRONMENTS,
    VARIANTS,
    Variant,
    helm,
    named,
    objects,
    pod_templates,
    rendered,
)
from tests.charts.schemas import VERSIONS, refusal

PRODUCTION = Variant("production")
ALL = Variant("production", gpu=True, everything=True)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_helm_finds_nothing_to_complain_of(environment):
    done = helm("lint", "--strict", str(CHART), f"--values={CHART}/values-{environment}.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_object_is_one_of_kubernetes(variant):
    checked = 0
    for version in VERSIONS:
        for each in objects(variant):
            try:
                assert refusal(each, version) is None, each["metadata"]["name"]
            except kubernetes_validate.SchemaNotFoundError:
                # Of an operator: `make chart-check` holds them against the operators' schemas.
                assert "." in each["apiVersion"].partition("/")[0]
            else:
                checked += 1
    assert checked >= 3 * 30


def test_both_versions_of_helm_make_the_same():
    assert objects(ALL, major=3) == objects(ALL, major=4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_pod_is_restricted(variant):
    templates = pod_templates(objects(variant))
    assert len(templates) >= 5
    for name, template in templates.items():
        spec = template["spec"]
        assert list(violations(spec)) == [], name
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert {*container["resources"]["limits"]} >= {"cpu", "memory"}, name
            assert {*container["resources"]["requests"]} == {"cpu", "memory"}, name
            writable = {
                each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")
            }
            assert writable == {"/data", "/tmp"}, name  # noqa: S108


def test_the_profile_itself_refuses():
    spec = {
        "hostNetwork": True,
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
        "containers": [{"name": "c", "securityContext": {"privileged": True, "runAsUser": 0}}],
    }
    assert {each.split(": ")[-1] for each in violations(spec)} == {
        "hostNetwork is true",
        "volume root is of the kind hostPath",
        "privileged",
        "allowPrivilegeEscalation is not false",
        "capabilities.drop lacks ALL",
        "runAsNonRoot is not true",
        "runAsUser is 0",
        "seccompProfile is neither RuntimeDefault nor Localhost",
    }


@pytest.mark.parametrize("variant", [PRODUCTION, ALL], ids=str)
def test_whatever_is_named_is_there(variant):
    found = objects(variant)
    names = {(each["kind"], each["metadata"]["name"]) for each in found}
    secrets = {
        "cryptoml-secrets", "cryptoml-api-keys", "cryptoml-client-key", "cryptoml-signing",
        "cryptoml-approval-public", "inference-pods-tls",
    }  # fmt: skip
    for template in pod_templates(found).values():
        spec = template["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for volume in spec["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in names
            if secret := volume.get("secret"):
                assert secret["secretName"] in secrets
        mounted = {each["name"] for each in spec["volumes"]}
        for container in spec["containers"]:
            assert {each["name"] for each in container["volumeMounts"]} <= mounted
    for each in found:
        if each["kind"] == "Ingress":
            backend = each["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
            assert ("Service", backend["name"]) in names
        if each["kind"] == "HorizontalPodAutoscaler":
            assert ("Deployment", each["spec"]["scaleTargetRef"]["name"]) in names
        if each["kind"] == "Service":
            ports = {
                port["name"]
                for template in pod_templates(found).values()
                if each["spec"]["selector"].items() <= template["metadata"]["labels"].items()
                for container in template["spec"]["containers"]
                for port in container["ports"]
            }
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports


def test_a_gpu_is_asked_for_where_it_is_wanted():
    spec = pod_templates(objects(ALL))["Deployment/cryptoml-serving"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == "ghcr.io/cryptoml/cryptoml-serving-gpu:0.1.0"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert [each["key"] for each in spec["tolerations"]] == ["nvidia.com/gpu"]
    without = pod_templates(objects(PRODUCTION))["Deployment/cryptoml-serving"]["spec"]
    assert "nvidia.com/gpu" not in without["containers"][0]["resources"]["limits"]
    assert without["containers"][0]["image"] == "ghcr.io/cryptoml/cryptoml-serving:0.1.0"


def test_two_to_ten_replicas_spread_and_drained():
    found = objects(PRODUCTION)
    scaler = named(found, "HorizontalPodAutoscaler", "cryptoml-serving")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert [each["type"] for each in scaler["metrics"]] == ["Resource", "Pods"]
    deployment = named(found, "Deployment", "cryptoml-serving")["spec"]
    assert "replicas" not in deployment
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    spec = deployment["template"]["spec"]
    (container,) = spec["containers"]
    ready = container["readinessProbe"]
    assert ready["httpGet"]["path"] == "/ready"
    drain = next(e["value"] for e in container["env"] if e["name"] == "CRYPTOML_SERVING_DRAIN")
    seconds = int(re.fullmatch(r"(\d+)s", drain)[1])
    assert seconds > ready["periodSeconds"] * ready["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= seconds + 15
    (apart,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    # Else an upgrade would wait for a node that has no pod of the revision before.
    assert apart["matchLabelKeys"] == ["pod-template-hash"]
    assert spec["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"


def test_a_canary_is_a_deployment_of_its_own_with_its_share():
    found = objects(ALL, "--set=serving.canary.weight=25")
    canary = named(found, "Deployment", "cryptoml-serving-canary")["spec"]
    stable = named(found, "Deployment", "cryptoml-serving")["spec"]
    assert canary["template"]["spec"]["containers"][0]["image"].endswith(":9.9.9")
    assert stable["selector"] != canary["selector"]
    services = {
        n: named(found, "Service", n) for n in ("cryptoml-serving", "cryptoml-serving-canary")
    }
    for service, deployment in zip(services.values(), (stable, canary), strict=True):
        assert service["spec"]["selector"] == deployment["selector"]["matchLabels"]
    notes = named(found, "Ingress", "cryptoml-serving-canary")["metadata"]["annotations"]
    assert notes["nginx.ingress.kubernetes.io/canary-weight"] == "25"
    assert notes["nginx.ingress.kubernetes.io/limit-rps"] == "100"
    route = named(found, "HTTPRoute", "cryptoml-serving")["spec"]["rules"][0]["backendRefs"]
    assert {each["name"]: each["weight"] for each in route} == {
        "cryptoml-serving": 75,
        "cryptoml-serving-canary": 25,
    }


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_every_account_whose_pods_reach_the_object_store_has_a_role_there(environment):
    """As shipped, no access keys are given: what has no role reads no lake and no log."""
    found = objects(Variant(environment))
    notes = {
        each["metadata"]["name"]: each["metadata"].get("annotations", {})
        for each in found
        if each["kind"] == "ServiceAccount"
    }
    assert {"cryptoml-dagster", "cryptoml-job", "cryptoml-run", "cryptoml-serving"} <= set(notes)
    for account, annotations in notes.items():
        assert f":role/cryptoml-{environment}-" in annotations["eks.amazonaws.com/role-arn"], (
            account
        )


def test_mlflows_tables_are_brought_up_to_date_where_that_is_wanted():
    """By the same image, of the same database, and before anything answers."""
    pod = named(objects(ALL), "Deployment", "cryptoml-mlflow")["spec"]["template"]["spec"]
    (before,), (server,) = pod["initContainers"], pod["containers"]
    assert before["command"] == ["mlflow", "db", "upgrade", "$(MLFLOW_BACKEND_STORE_URI)"]
    assert before["image"] == server["image"]
    (database,) = [each for each in before["env"] if each["name"] == "MLFLOW_BACKEND_STORE_URI"]
    assert database in server["env"]
    usual = named(objects(PRODUCTION), "Deployment", "cryptoml-mlflow")["spec"]["template"]["spec"]
    assert "initContainers" not in usual


def test_who_asks_a_service_that_speaks_tls_knows_its_authority():
    """Code server, exporter, runs and the job that proves predictions."""
    for secret in ("", "inference-pods-tls"):
        found = objects(PRODUCTION, f"--set=serving.tls.secretName={secret}")
        told = named(found, "ConfigMap", "cryptoml-settings")["data"]
        server = named(found, "Deployment", "cryptoml-code-server")["spec"]["template"]["spec"]
        told_runs = next(
            each["value"]
            for each in server["containers"][0]["env"]
            if each["name"] == "DAGSTER_CONTAINER_CONTEXT"
        )
        run = json.loads(told_runs)["k8s"]
        mounts = [each["volumeMounts"] for each in server["containers"]] + [run["volume_mounts"]]
        file = told.get("CRYPTOML_INFERENCE_CA_FILE", "")
        assert bool(file) is bool(secret)
        for those in mounts:
            assert [m["name"] for m in those if file and file.startswith(m["mountPath"])] == [
                "authority"
            ] * bool(secret)
        for volumes in (server["volumes"], run["volumes"]):
            known = [v["secret"] for v in volumes if v["name"] == "authority"]
            assert [(v["secretName"], v["items"]) for v in known] == [
                (secret, [{"key": "ca.crt", "path": "ca.crt"}])
            ] * bool(secret)


def test_nothing_wildcard_is_allowed():
    roles = [each for each in objects(ALL) if each["kind"] == "Role"]
    assert {each["metadata"]["name"] for each in roles} == {"cryptoml-dagster", "cryptoml-run"}
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    assert not [each for each in objects(ALL) if each["kind"].startswith("Cluster")]


@pytest.mark.parametrize("variant", [PRODUCTION, ALL], ids=str)
def test_our_own_check_finds_nothing_once_images_are_pinned(variant):
    report = check(read(rendered(variant, *DIGESTS), str(variant)))
    assert (report.risk, list(report.lines())[:-1]) == (0, [])
    assert {each.rule for each in check(read(rendered(variant), str(variant))).findings} == {
        "undigested-image"
    }
