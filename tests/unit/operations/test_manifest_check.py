"""The manifest check: nothing is found in a sound deployment, and each rule finds its own fault."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from cryptoml_assets.operations.manifest_check.rules import RULES, Finding, Severity, risk
from tests.sound_manifests import (
    AT,
    NET,
    POLICY,
    WEB,
    WEB_AT,
    block,
    container,
    look,
    named,
    objects,
    on,
    pod,
    policy,
    role,
    security,
    service,
    setting,
    variable,
)

WORDS = "hunter2-correct-horse"
CASES: list[tuple[Callable[[list[dict[str, Any]]], None], str, str, str]] = [
    (security(privileged=True), "privileged", WEB, f"{WEB_AT}.securityContext.privileged"),
    (
        security(windowsOptions={"hostProcess": True}),
        "host-process",
        WEB,
        f"{WEB_AT}.securityContext.windowsOptions.hostProcess",
    ),
    (pod(hostNetwork=True), "host-namespace", WEB, f"{AT}.hostNetwork"),
    (pod(hostPID=True), "host-namespace", WEB, f"{AT}.hostPID"),
    (pod(hostIPC=True), "host-namespace", WEB, f"{AT}.hostIPC"),
    (
        pod(volumes=[{"name": "socket", "hostPath": {"path": "/run/docker.sock"}}]),
        "host-path",
        WEB,
        f"{AT}.volumes[socket].hostPath.path",
    ),
    (pod(volumes=[{"name": "n", "nfs": {}}]), "volume-kind", WEB, f"{AT}.volumes[n].nfs"),
    (
        security(drop="allowPrivilegeEscalation"),
        "privilege-escalation",
        WEB,
        f"{WEB_AT}.securityContext.allowPrivilegeEscalation",
    ),
    (
        security(readOnlyRootFilesystem=False),
        "writable-root",
        WEB,
        f"{WEB_AT}.securityContext.readOnlyRootFilesystem",
    ),
    (
        security(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        "added-capability",
        WEB,
        f"{WEB_AT}.securityContext.capabilities.add",
    ),
    (
        security(capabilities={"drop": ["NET_RAW"]}),
        "kept-capabilities",
        WEB,
        f"{WEB_AT}.securityContext.capabilities.drop",
    ),
    (security(runAsNonRoot=False), "root-user", WEB, f"{WEB_AT}.securityContext.runAsNonRoot"),
    (security(runAsUser=0), "root-user", WEB, f"{WEB_AT}.securityContext.runAsUser"),
    (
        pod(securityContext={"runAsNonRoot": True}),
        "no-seccomp",
        WEB,
        f"{WEB_AT}.securityContext.seccompProfile.type",
    ),
    (
        security(seccompProfile={"type": "Unconfined"}),
        "unconfined",
        WEB,
        f"{WEB_AT}.securityContext.seccompProfile.type",
    ),
    (
        security(appArmorProfile={"type": "Unconfined"}),
        "unconfined",
        WEB,
        f"{WEB_AT}.securityContext.appArmorProfile.type",
    ),
    (security(procMount="Unmasked"), "unconfined", WEB, f"{WEB_AT}.securityContext.procMount"),
    (
        security(seLinuxOptions={"user": "system_u"}),
        "unconfined",
        WEB,
        f"{WEB_AT}.securityContext.seLinuxOptions",
    ),
    (
        container(ports=[{"name": "http", "containerPort": 80, "hostPort": 80}]),
        "host-port",
        WEB,
        f"{WEB_AT}.ports[http].hostPort",
    ),
    (
        on(
            "Deployment",
            lambda web: web["spec"]["template"]["spec"]["securityContext"].update(
                sysctls=[{"name": "kernel.msgmax", "value": "1"}]
            ),
        ),
        "sysctl",
        WEB,
        f"{AT}.securityContext.sysctls[kernel.msgmax]",
    ),
    (
        container(resources={"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}}),
        "missing-limits",
        WEB,
        f"{WEB_AT}.resources.limits",
    ),
    (container(image="web@sha256"), "moving-image", WEB, f"{WEB_AT}.image"),
    (container(image="host:5000/web"), "moving-image", WEB, f"{WEB_AT}.image"),
    (container(image="web:latest"), "moving-image", WEB, f"{WEB_AT}.image"),
    (container(image="host:5000/web:1"), "undigested-image", WEB, f"{WEB_AT}.image"),
    (
        on("ServiceAccount", lambda each: each.pop("automountServiceAccountToken"), "web"),
        "unneeded-token",
        WEB,
        f"{AT}.automountServiceAccountToken",
    ),
    (
        pod(serviceAccountName="default", automountServiceAccountToken=False),
        "default-account",
        WEB,
        f"{AT}.serviceAccountName",
    ),
    (
        on("Secret", lambda each: each.update(stringData={"password": WORDS})),
        "exposed-secret",
        "Secret shop/filled-by-others",
        "stringData.password",
    ),
    *(
        (variable(name, value), "exposed-secret", WEB, f"{WEB_AT}.env[{name}].value")
        for name, value in {
            "POSTGRES_PASSWORD": WORDS,
            "CRYPTOML_NOTIFY_PAGERDUTY_KEY": WORDS,
            "GITHUB_TOKEN": WORDS,
            "DATABASE": f"postgresql://user:{WORDS}@host/name",
            "SLACK": "https://hooks.slack.com/services/T0/B0/abc",
            "ANY": "AKIAIOSFODNN7EXAMPLE",
            "JWT": "eyJhbGciOiJI.eyJzdWIiOiIx.abcdefghij",
            "GH": "ghp_" + 36 * "a",
            # Both its name and its shape say so: found once.
            "GH_TOKEN": "ghp_" + 36 * "a",
            "PEM": "-----BEGIN RSA PRIVATE KEY-----",
        }.items()
    ),
    (
        container(args=[f"--db-password={WORDS}"]),
        "exposed-secret",
        WEB,
        f"{WEB_AT}.args[0]",
    ),
    (
        setting("CRYPTOML_NOTIFY_WEBHOOK_SECRET", WORDS),
        "exposed-secret",
        "ConfigMap shop/settings",
        "data.CRYPTOML_NOTIFY_WEBHOOK_SECRET",
    ),
    (
        setting("settings.yaml", f"url: redis://:{WORDS}@redis:6379/0"),
        "exposed-secret",
        "ConfigMap shop/settings",
        "data.settings.yaml",
    ),
    (
        policy(policyTypes=["Ingress"], egress=None),
        "unrestricted-egress",
        WEB,
        AT,
    ),
    (policy(egress=[{}]), "unrestricted-egress", POLICY, NET),
    (
        policy(egress=[block("0.0.0.0/0", ports=False)]),
        "unrestricted-egress",
        POLICY,
        f"{NET}.to[0].ipBlock.cidr",
    ),
    (
        policy(egress=[{"to": [{"namespaceSelector": {}}]}]),
        "unrestricted-egress",
        POLICY,
        f"{NET}.to[0]",
    ),
    (policy(egress=[{"ports": [{"port": 443}]}]), "metadata-egress", POLICY, NET),
    (
        policy(egress=[block("0.0.0.0/0", "10.0.0.0/8")]),
        "metadata-egress",
        POLICY,
        f"{NET}.to[0].ipBlock.cidr",
    ),
    (policy(egress=[block("::/0")]), "metadata-egress", POLICY, f"{NET}.to[0].ipBlock.cidr"),
    (
        policy(policyTypes=["Egress"]),
        "unrestricted-ingress",
        WEB,
        AT,
    ),
    (policy(ingress=[{}]), "unrestricted-ingress", POLICY, "spec.ingress[0]"),
    (service("LoadBalancer"), "public-service", "Service shop/web", "spec.type"),
    (service("NodePort"), "public-service", "Service shop/web", "spec.type"),
    (
        service("ClusterIP", externalIPs=["1.2.3.4"]),
        "external-address",
        "Service shop/web",
        "spec.externalIPs",
    ),
    (
        on("Ingress", lambda each: each["spec"].pop("tls")),
        "plain-ingress",
        "Ingress shop/web",
        "spec.tls",
    ),
    (role(verbs=["*"]), "wildcard-access", "Role shop/launcher", "rules[0].verbs"),
    (role(resources=["*"]), "wildcard-access", "Role shop/launcher", "rules[0].resources"),
    (role(resources=["secrets"]), "secret-access", "Role shop/launcher", "rules[0].resources"),
    (role(resources=["pods/exec"]), "pod-access", "Role shop/launcher", "rules[0].resources"),
    (role(verbs=["impersonate"]), "grants-itself", "Role shop/launcher", "rules[0].verbs"),
    (
        on("RoleBinding", lambda each: each["roleRef"].update(name="cluster-admin")),
        "cluster-admin",
        "RoleBinding shop/launcher",
        "roleRef.name",
    ),
    (
        on(
            "RoleBinding",
            lambda each: each["subjects"].append(
                {"kind": "Group", "name": "system:unauthenticated"}
            ),
        ),
        "anonymous-access",
        "RoleBinding shop/launcher",
        "subjects[system:unauthenticated]",
    ),
    (
        on("Namespace", lambda each: each["metadata"]["labels"].clear()),
        "pod-security",
        "Namespace shop",
        "metadata.labels",
    ),
]


def test_nothing_is_found_in_a_sound_deployment() -> None:
    report = look(*objects())
    assert report.findings == ()
    assert (report.risk, report.objects) == (0.0, len(objects()))


@pytest.mark.parametrize(
    ("change", "rule", "where", "path"), CASES, ids=[f"{case[1]}-{case[3]}" for case in CASES]
)
def test_a_fault_is_found_where_it_is(
    change: Callable[[list[dict[str, Any]]], None], rule: str, where: str, path: str
) -> None:
    found = objects()
    change(found)
    report = look(*found)
    here = [each for each in report.findings if (each.object, each.path) == (where, path)]
    assert [each.rule for each in here] == [rule]
    # Nothing else but the same of another pod, or of the other way round.
    assert {each.rule for each in report.findings} == {rule}
    assert report.risk > 0
    assert WORDS not in json.dumps(report.told())
    assert WORDS not in "\n".join(report.lines())


def test_a_missing_request_is_found_beside_its_limit() -> None:
    found = objects()
    container(resources={"requests": {"cpu": "1"}})(found)
    report = look(*found)
    rules = {each.rule: each.message for each in report.findings}
    assert rules == {
        "missing-limits": "no limit of cpu and memory",
        "missing-requests": "no request of memory",
    }


def test_a_role_counts_for_the_account_of_its_own_namespace() -> None:
    found = objects()
    named(found, "RoleBinding")["subjects"][0]["namespace"] = "other"
    (finding,) = look(*found).findings
    assert (finding.rule, finding.object) == ("unneeded-token", "CronJob shop/launcher")
    assert finding.message == "launcher is bound to no role, yet its token is mounted"


def test_the_worst_is_told_first() -> None:
    found = objects()
    for change in (
        container(image="web:1"),
        security(readOnlyRootFilesystem=False, privileged=True, allowPrivilegeEscalation=True),
    ):
        change(found)
    severities = [each.severity.value for each in look(*found).findings]
    assert severities == ["critical", "high", "medium", "low"]


def test_every_rule_has_a_case() -> None:
    assert {case[1] for case in CASES} | {"missing-requests"} == set(RULES)


def test_init_containers_and_custom_workloads_are_looked_at_too() -> None:
    found = objects()
    web = named(found, "Deployment")
    template = web["spec"]["template"]["spec"]
    template["initContainers"] = [copy.deepcopy(template["containers"][0])]
    template["initContainers"][0].update(name="first", image="a:1")
    web["kind"] = "Rollout"
    (finding,) = look(*found).findings
    assert (finding.rule, finding.path) == ("undigested-image", f"{AT}.initContainers[first].image")


def test_a_policy_counts_for_the_pods_it_selects() -> None:
    def found(selector: dict[str, Any]) -> set[str]:
        changed = objects()
        policy(podSelector=selector)(changed)
        return {each.object for each in look(*changed).findings}

    both = {WEB, "CronJob shop/launcher"}
    assert found({"matchLabels": {"app": "web"}}) == both - {WEB}
    expression = {"key": "app", "operator": "In", "values": ["web", "launcher"]}
    assert found({"matchExpressions": [expression]}) == set()
    assert found({"matchExpressions": [{**expression, "operator": "NotIn"}]}) == both
    assert found({"matchExpressions": [{"key": "app", "operator": "Exists"}]}) == set()
    assert found({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}) == both
    other = objects()
    named(other, "NetworkPolicy")["metadata"]["namespace"] = "other"
    assert {each.object for each in look(*other).findings} == both


def test_risk_grows_with_each_finding_and_never_reaches_all() -> None:
    def of(*rules: str) -> float:
        return risk(Finding(rule, "", "", "", "") for rule in rules)

    assert of() == 0
    assert of("privileged") == pytest.approx(50)
    assert of("undigested-image") == pytest.approx(0.5)
    assert of("privileged", "undigested-image") > of("privileged")
    assert of(*20 * ["missing-limits"]) > of("privileged") > of(*10 * ["missing-limits"])
    assert of(*10 * ["privileged"]) < 100
    weights = [each.weight for each in Severity]
    assert weights == sorted(weights, reverse=True)
