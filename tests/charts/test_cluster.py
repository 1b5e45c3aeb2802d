"""Against a real Kubernetes API server: releases come, change, go; roles allow what is listed.

``KUBE_CONTROL_PLANE=FOLDER`` names the binaries (``bin/kube-apiserver`` and the others) and
``kube-control-plane``, the program beside them that starts them. It is Kubernetes 1.20, without a
kubelet: objects that it does not know yet are left out, and pods never run.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import reconstructable
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.test_utils import create_run_for_test, instance_for_test

from tests.charts.cluster import Cluster
from tests.charts.pod_security import violations
from tests.charts.rendering import (
    CHART,
    ENVIRONMENTS,
    EVERYTHING,
    NAMESPACE,
    parsed,
    pod_templates,
)
from tests.charts.test_dagster import launcher, merged, run_job
from tests.sandbox_server import free_port

FOLDER = Path(os.environ.get("KUBE_CONTROL_PLANE", "/nonexistent"))
pytestmark = [
    pytest.mark.skipif(
        not (FOLDER / "bin" / "kube-apiserver").exists(),
        reason="KUBE_CONTROL_PLANE names no binaries of a control plane",
    ),
    pytest.mark.timeout(900),
]
#: What Kubernetes 1.20 does not have, or would want an operator for.
OLDER = {
    "environment": "production",
    "serving": {"autoscaling": {"enabled": False}, "disruptionBudget": {"enabled": False}},
    "cronJobs": {"verify-history": {"enabled": False}, "smoke": {"enabled": False}},
    "mlflow": {"enabled": True, "artifacts": "s3://bucket/mlflow"},
    "featureServer": {"enabled": True},
    "ingress": {"enabled": True},
    "monitoring": {"dashboard": {"enabled": True}},
}
#: What every account may do by being known at all.
DISCOVERY = {f"selfsubject{each}reviews.authorization.k8s.io" for each in ("access", "rules")}
JOBS = {
    "jobs.batch": {"create", "list", "delete"},
    "jobs.batch/status": {"get"},
    "pods/log": {"get"},
    "events": {"list"},
}
ALLOWED = {
    "dagster": {**JOBS, "pods": {"list", "delete"}},
    "run": {**JOBS, "pods": {"get", "list", "delete"}},
    **{each: {} for each in ("serving", "code-server", "mlflow", "feature-server", "job")},
}


@dg.op
def _nothing():
    """What a run would do, if there were nodes."""


@dg.job
def nothing():
    """A job of one op."""
    _nothing()


#: The profile *restricted* as Kubernetes 1.20 enforces it: a PodSecurityPolicy, which Pod Security
#: admission took the place of in 1.25. It puts right what a pod leaves out, so a pod that is as it
#: should be comes back unchanged.
POLICY = {
    "apiVersion": "policy/v1beta1",
    "kind": "PodSecurityPolicy",
    "metadata": {
        "name": "restricted",
        "annotations": {
            "seccomp.security.alpha.kubernetes.io/allowedProfileNames": "runtime/default",
            "seccomp.security.alpha.kubernetes.io/defaultProfileName": "runtime/default",
        },
    },
    "spec": {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "requiredDropCapabilities": ["ALL"],
        "volumes": ["configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"],
        "runAsUser": {"rule": "MustRunAsNonRoot"},
        "seLinux": {"rule": "RunAsAny"},
        "supplementalGroups": {"rule": "RunAsAny"},
        "fsGroup": {"rule": "RunAsAny"},
        "readOnlyRootFilesystem": True,
    },
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    state = tmp_path_factory.mktemp("kube")
    starter = FOLDER / "kube-control-plane"
    started = subprocess.run(
        [starter, "start", FOLDER, state], capture_output=True, text=True, check=True, timeout=300
    )
    try:
        chart = state / "chart"
        shutil.copytree(CHART, chart)
        (chart / "values-older.yaml").write_text(yaml.safe_dump(OLDER))
        about = (chart / "Chart.yaml").read_text()
        (chart / "Chart.yaml").write_text(re.sub(r"(?m)^kubeVersion.*\n", "", about))
        # Probes over gRPC came with 1.24.
        template = chart / "templates" / "code-server" / "deployment.yaml"
        probes = re.sub(r"grpc: \{port: .*\}", "tcpSocket: {port: grpc}", template.read_text())
        template.write_text(probes)
        made = Cluster(started.stdout.strip().splitlines()[-1], chart)
        made.kubectl("create", "namespace", NAMESPACE)
        yield made
    finally:
        for pid in (state / "pids").read_text().split():
            os.kill(int(pid), signal.SIGTERM)


@pytest.fixture(scope="module")
def guarded(cluster, tmp_path_factory):
    """The same cluster through a second API server, which admits restricted pods alone."""
    cluster.kubectl("apply", f"-f={_written(tmp_path_factory.mktemp('policy'), POLICY)}")
    state, folder = cluster.kubeconfig.parent, tmp_path_factory.mktemp("guarded")
    port = free_port()
    flags = {
        "etcd-servers": "http://127.0.0.1:12379",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": str(port),
        "cert-dir": str(folder / "certs"),
        "service-account-key-file": str(state / "sa.key"),
        "service-account-signing-key-file": str(state / "sa.key"),
        "service-account-issuer": "https://kubernetes.default.svc",
        "token-auth-file": str(state / "tokens.csv"),
        "authorization-mode": "RBAC",
        "service-cluster-ip-range": "10.96.0.0/16",
        "endpoint-reconciler-type": "none",
        "disable-admission-plugins": "ServiceAccount",
        "enable-admission-plugins": "PodSecurityPolicy",
    }
    with (folder / "api.log").open("w") as log:
        server = subprocess.Popen(
            [FOLDER / "bin" / "kube-apiserver", *(f"--{k}={v}" for k, v in flags.items())],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        config = json.loads(cluster.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {
            "server": f"https://127.0.0.1:{port}",
            "certificate-authority": str(folder / "certs" / "apiserver.crt"),
        }
        found = Cluster(_written(folder, config), cluster.chart)
        for _ in range(120):
            if found.kubectl("get", "--raw=/readyz", check=False) == "ok":
                break
            time.sleep(0.5)
        yield found
    finally:
        server.terminate()
        server.wait()


def _written(folder, what):
    path = folder / "object.json"
    path.write_text(json.dumps(what))
    return path


@pytest.fixture(scope="module")
def installed(cluster):
    before = cluster.objects()
    assert before == set()
    values = f"--values={cluster.chart}/values-older.yaml"
    cluster.helm("install", "cryptoml", str(cluster.chart), values, "--disable-openapi-validation")
    return cluster


def test_an_install_makes_what_was_rendered(installed):
    kinds = {kind for kind, _ in installed.objects()}
    assert {"Deployment", "Service", "NetworkPolicy", "Role", "Ingress", "ServiceAccount"} <= kinds
    assert ("Deployment", "cryptoml-serving") in installed.objects()


@pytest.mark.parametrize("component", ALLOWED)
def test_an_account_may_do_this_and_nothing_else(installed, component):
    account = f"--as=system:serviceaccount:{NAMESPACE}:cryptoml-{component}"
    listed = installed.kubectl("auth", "can-i", "--list", f"-n={NAMESPACE}", account)
    told = {}
    for line in listed.splitlines()[1:]:
        resource, *_, verbs = re.split(r"\s{2,}|\s(?=\[)", line.strip())
        if resource and not resource.startswith("["):
            told.setdefault(resource, set()).update(verbs.strip("[]").split())
    assert {name: told[name] for name in told.keys() - DISCOVERY} == ALLOWED[component]
    for verb, resource, namespace in (
        ("get", "secrets", NAMESPACE),
        ("create", "pods", NAMESPACE),
        ("patch", "deployments", NAMESPACE),
        ("list", "pods", "kube-system"),
    ):
        asked = ("auth", "can-i", verb, resource, f"-n={namespace}", account)
        assert installed.kubectl(*asked, check=False).strip().splitlines()[-1] == "no"


def test_an_upgrade_and_back_again(installed):
    values = f"--values={installed.chart}/values-older.yaml"
    before = installed.objects()

    def image():
        path = "-o=jsonpath={.spec.template.spec.containers[0].image}"
        return installed.kubectl("get", "deploy", "cryptoml-serving", f"-n={NAMESPACE}", path)

    old = image()
    installed.helm(
        "upgrade", "cryptoml", str(installed.chart), values, "--disable-openapi-validation",
        "--set=serving.image.tag=9.9.9,serving.canary.enabled=true",
    )  # fmt: skip
    assert image().endswith(":9.9.9")
    assert ("Deployment", "cryptoml-serving-canary") in installed.objects()
    installed.helm("rollback", "cryptoml", "1")
    assert image() == old
    left = {each for each in installed.objects() - before if each[0] not in ("ReplicaSet", "Pod")}
    assert left == set()


def test_dagster_starts_and_ends_a_run_with_its_own_account(installed, tmp_path):
    """The launcher as the values configure it, and as nobody but cryptoml-dagster."""
    variables = installed.of("deployment", "cryptoml-code-server")["spec"]["template"]["spec"]
    told = {e["name"]: e.get("value") for e in variables["containers"][0]["env"]}
    image = told["DAGSTER_CURRENT_IMAGE"]
    config = launcher(merged("production")) | {
        "load_incluster_config": False,
        "kubeconfig_file": str(installed.as_account("cryptoml-dagster", tmp_path)),
    }
    section = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}
    with instance_for_test(overrides={"run_launcher": section}) as instance:
        origin = reconstructable(nothing).get_python_origin()
        context = json.loads(told["DAGSTER_CONTAINER_CONTEXT"])
        place = origin.repository_origin._replace(container_image=image, container_context=context)
        run = create_run_for_test(
            instance, job_name="nothing", job_code_origin=origin._replace(repository_origin=place)
        )
        instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        job = installed.of("job", f"dagster-run-{run.run_id}")
        spec = job["spec"]["template"]["spec"]
        assert spec["containers"][0]["image"] == image
        assert spec["serviceAccountName"] == "cryptoml-run"
        assert spec["containers"][0]["resources"] == {
            "requests": {"cpu": "500m", "memory": "2Gi"},
            "limits": {"cpu": "2", "memory": "4Gi"},
        }
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert list(violations(spec)) == []
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert labels["cryptoml.io/pod"] == "run"
        assert labels["dagster/run-id"] == run.run_id
        assert instance.run_launcher.get_run_worker_debug_info(run)
        assert instance.run_launcher.check_run_worker_health(run).status.value == "RUNNING"
        instance.report_run_canceling(run)
        assert instance.run_launcher.terminate(run.run_id)
    assert ("Job", f"dagster-run-{run.run_id}") not in installed.objects()


def _pod(spec):
    # Of the server's own: it has no such account, and drops what it does not know.
    spec = {key: value for key, value in spec.items() if key != "serviceAccountName"}
    metadata = {"generateName": "admitted-", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _securities(spec):
    return [spec["securityContext"], *(each["securityContext"] for each in spec["containers"])]


def _specs(cluster):
    """Of every pod: ours in all environments, a run's, Dagster's webserver and daemon."""
    for name in ENVIRONMENTS:
        sets = [f"--set={each}" for each in (*EVERYTHING, "serving.gpu.enabled=true")]
        # Volumes of a claim of their own came with 1.21.
        sets += ["--set=serving.data.type=emptyDir,runs.data.type=emptyDir"]
        values = f"--values={cluster.chart}/values-{name}.yaml"
        found = parsed(cluster.helm("template", "cryptoml", str(cluster.chart), values, *sets))
        for place, template in pod_templates(found).items():
            yield f"{name} {place}", template["spec"]
        yield f"{name} run", run_job(merged(name), found)["spec"]["template"]["spec"]
        for component in ("dagsterWebserver", "dagsterDaemon"):
            own = merged(name)[component]
            container = {
                "name": "dagster",
                "image": "dagster",
                "securityContext": own["securityContext"],
                "resources": own["resources"],
                "volumeMounts": own["volumeMounts"],
            }
            yield (
                f"{name} {component}",
                {
                    "securityContext": own["podSecurityContext"],
                    "containers": [container],
                    "volumes": own["volumes"],
                },
            )


def test_every_pod_is_admitted_as_it_is_where_restricted_is_enforced(guarded):
    asked = 0
    for name, spec in _specs(guarded):
        kept = guarded.admitted(_pod(spec))
        assert isinstance(kept, dict), f"{name}: {kept}"
        assert kept["metadata"]["annotations"]["kubernetes.io/psp"] == "restricted", name
        assert _securities(kept["spec"]) == _securities(spec), name
        asked += 1
    # Eight of ours with the canary, a run, and two of Dagster's.
    assert asked == 3 * 11


def test_a_pod_that_is_not_restricted_is_refused_or_changed(guarded):
    spec = dict(_specs(guarded))["production Deployment/cryptoml-serving"]
    (container,) = spec["containers"]
    for change in ({"hostNetwork": True}, {"securityContext": {"runAsUser": 0, "fsGroup": 1}}):
        assert "unable to admit pod" in guarded.admitted(_pod(spec | change))
    for change in ({"privileged": True}, {"allowPrivilegeEscalation": True}):
        loose = container | {"securityContext": container["securityContext"] | change}
        assert "unable to admit pod" in guarded.admitted(_pod(spec | {"containers": [loose]}))
    without = {k: v for k, v in container["securityContext"].items() if k != "capabilities"}
    kept = guarded.admitted(_pod(spec | {"containers": [container | {"securityContext": without}]}))
    assert kept["spec"]["containers"][0]["securityContext"] != without


def test_a_wrong_value_changes_nothing(installed):
    before = installed.objects()
    told = installed.helm(
        "upgrade", "cryptoml", str(installed.chart), "--set=serving.replicas=none", check=False
    )
    assert "serving.replicas" in told
    assert installed.objects() == before


def test_an_uninstall_leaves_nothing_behind(installed):
    installed.helm("uninstall", "cryptoml", "--wait")
    for _ in range(60):
        if not (left := installed.objects()):
            break
        time.sleep(1)
    assert left == set()
    assert "sh.helm.release" not in installed.kubectl("get", "secret", f"-n={NAMESPACE}")
