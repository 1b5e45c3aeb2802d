"""Every flow that the network policies let through is in the table below, and no other."""

import itertools
import json

import pytest

from tests.charts.flows import End, admitted, allowed, selects
from tests.charts.rendering import Variant, objects, pod_templates

ALL = Variant("production", everything=True)
#: Pods that Dagster's own chart and its launcher make, by the labels they are known to have.
DAGSTER = {"app.kubernetes.io/name": "dagster", "app.kubernetes.io/instance": "dagster"}
FOREIGN = {
    "webserver": End.of({**DAGSTER, "component": "dagster-webserver"}),
    "daemon": End.of({**DAGSTER, "component": "dagster-daemon"}),
    "run": End.of({"app.kubernetes.io/part-of": "dagster", "cryptoml.io/pod": "run"}),
    "reader": End.of({"cryptoml.io/reads-features": "true"}),
    "stranger": End.of({"app": "stranger"}),
    "ingress": End.of({"app.kubernetes.io/name": "ingress-nginx"}, "ingress-nginx"),
    "gateway": End.of({"app.kubernetes.io/name": "envoy"}, "envoy-gateway-system"),
    "prometheus": End.of({"app.kubernetes.io/name": "prometheus"}, "monitoring"),
    "elsewhere": End.of({"app": "elsewhere"}, "default"),
}
PORTS = (3000, 4000, 5000, 6566, 8000, 8001, 8002, 9108)
#: Source, target, port. Production has two workers in each pod, so two admin ports.
FLOWS = {
    ("ingress", "serving", 8000),
    ("gateway", "serving", 8000),
    ("ingress", "webserver", 3000),
    ("ingress", "daemon", 3000),
    ("prometheus", "serving", 8001),
    ("prometheus", "serving", 8002),
    ("prometheus", "code-server", 9108),
    *(("job", "serving", port) for port in (8000,)),
    *((who, "serving", port) for who in ("code-server", "run") for port in (8000, 8001, 8002)),
    *((who, "code-server", 4000) for who in ("webserver", "daemon")),
    *((who, "mlflow", 5000) for who in ("serving", "code-server", "run", "job")),
}


@pytest.fixture(scope="module")
def found():
    return objects(ALL)


@pytest.fixture(scope="module")
def policies(found):
    return [each for each in found if each["kind"] == "NetworkPolicy"]


def _ends(found):
    own = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: End.of(
            template["metadata"]["labels"]
        )
        for template in pod_templates(found).values()
    }
    return own | FOREIGN


def _seen(judge, found, policies):
    ends = _ends(found)
    assert {"serving", "code-server", "mlflow", "feature-server", "job"} <= set(ends)
    return {
        (source, target, port)
        for source, target in itertools.permutations(ends, 2)
        for port in PORTS
        if ends[target].namespace == "cryptoml"
        and judge(policies, ends[source], ends[target], port)
    }


def test_these_flows_and_no_other(found, policies):
    assert _seen(allowed, found, policies) == FLOWS


def test_a_gateways_proxies_are_let_in_where_there_is_one():
    found = objects(ALL, "--set=gateway.enabled=false")
    policies = [each for each in found if each["kind"] == "NetworkPolicy"]
    assert _seen(allowed, found, policies) == FLOWS - {("gateway", "serving", 8000)}


def test_a_further_flow_is_opened_to_each_component_that_it_names(found):
    components = ["code-server", "run", "serving", "job", "mlflow", "feature-server"]
    flow = {"name": "mail", "components": components, "cidrs": ["192.0.2.25/32"], "ports": [587]}
    more = objects(ALL, f"--set-json=networkPolicy.extraEgress={json.dumps([flow])}")
    ends = _ends(more)
    known = {each["metadata"]["name"] for each in found}
    opened = [
        each["spec"]
        for each in more
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] not in known
    ]
    rule = {
        "to": [{"ipBlock": {"cidr": "192.0.2.25/32"}}],
        "ports": [{"protocol": "TCP", "port": 587}],
    }
    assert all(each["egress"] == [rule] for each in opened)
    selected = {
        name
        for name, end in ends.items()
        if end.namespace == "cryptoml" and any(selects(each["podSelector"], end) for each in opened)
    }
    assert selected == set(components)


def test_no_pod_relies_on_what_others_may_send(found, policies):
    """A pod that may send anything reaches no more than those that are let in."""
    assert _seen(admitted, found, policies) == FLOWS | {("reader", "feature-server", 6566)}


def test_no_way_out_is_open_to_everything(policies):
    for each in policies:
        for rule in each["spec"].get("egress", []):
            assert rule["to"], each["metadata"]["name"]
            assert rule["ports"], each["metadata"]["name"]
            for peer in rule["to"]:
                block = peer.get("ipBlock", {})
                if block.get("cidr") == "0.0.0.0/0":
                    assert [port["port"] for port in rule["ports"]] == [443]
                    assert "169.254.0.0/16" in block["except"], "the metadata service"
                    assert "10.0.0.0/8" in block["except"]


def test_everything_else_is_denied(policies):
    (deny,) = [each for each in policies if each["metadata"]["name"] == "cryptoml-default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
