"""Wrong values are refused by name, before anything is rendered."""

import pytest

from tests.charts.rendering import CHART, RELEASE, helm

WRONG = {
    "environment=testing": "environment",
    "servng.replicas=3": "servng",
    "serving.replica=3": "replica",
    "serving.replicas=0": "replicas",
    "serving.image.tag=latest": "tag",
    "serving.image.digest=sha256:12": "digest",
    "serving.image.pullPolicy=Sometimes": "pullPolicy",
    "serving.resources.requests.memory=lots": "memory",
    "serving.resources.limits=null": "limits",
    "serving.drainSeconds=5": "drainSeconds",
    "serving.canary.weight=101": "weight",
    "serving.antiAffinity=yes": "antiAffinity",
    "serving.service.port=80000": "port",
    "settings.CRYPTOML_SYMBOL=BTC/USDT": "CRYPTOML_SYMBOL",
    "settings.CRYPTOML_ONLINE_STORE=redis://redis": "CRYPTOML_ONLINE_STORE",
    "settings.CRYPTOML_NOTIFY_SLACK_URL=https://hook": "CRYPTOML_NOTIFY_SLACK_URL",
    "settings.CRYPTOML_DAYS=30": "CRYPTOML_DAYS",
    "settings.CRYPTOML_TRACKING_URI=http://user:password@mlflow": "CRYPTOML_TRACKING_URI",
    "secrets.externalSecrets.provider=gcp": "provider",
    "networkPolicy.postgresql.cidrs[0]=10.0.0.1": "cidrs",
    "cronJobs.smoke.schedule=daily": "schedule",
    "ingress.host=https://example.org": "host",
    "mlflow.artifacts=bucket": "artifacts",
}
#: Values that do not go together, by what is told of them: all that are set at once.
TOGETHER = (
    {
        "serving.auth.keysSecret.name=": "CRYPTOML_SERVING_JWT_ISSUER",
        "serving.autoscaling.minReplicas=11": "serving.autoscaling.maxReplicas=10",
        "serving.canary.enabled=true": "neither ingress.enabled nor gateway.enabled",
        "mlflow.enabled=true": "mlflow.artifacts is empty",
        "serving.approvalPublicKey.secret=": "configMap and .secret are both empty",
        "secrets.externalSecrets.enabled=true": "secrets.externalSecrets.items is empty",
        "serving.settings.CRYPTOML_SERVING_PORT=9000": "serving.settings.CRYPTOML_SERVING_PORT is",
        "settings.CRYPTOML_HOME=/srv": "- settings.CRYPTOML_HOME is set",
    },
    {
        "gateway.enabled=true": "gateway.parentRefs is empty",
        "serving.approvalPublicKey.configMap=public": "set one of them",
    },
    {"settings.CRYPTOML_HOME=/srv": "- settings.CRYPTOML_HOME is set"},
)


@pytest.mark.parametrize("major", [3, 4])
def test_the_schema_refuses_by_name(major):
    """All at once: Helm tells every value that is wrong."""
    told = helm("template", RELEASE, str(CHART), *(f"--set={each}" for each in WRONG), major=major)
    assert told.returncode != 0
    assert [name for name in WRONG.values() if name not in told.stderr] == []


@pytest.mark.parametrize("value", ["environment=testing", "settings.CRYPTOML_SYMBOL=x"])
def test_one_wrong_value_is_enough(value):
    told = helm("template", RELEASE, str(CHART), f"--set={value}")
    assert told.returncode != 0
    assert told.stdout == ""


@pytest.mark.parametrize("wrong", TOGETHER)
def test_values_that_do_not_go_together_are_refused_by_name(wrong):
    """All at once too, and nothing else is told."""
    sets = [f"--set{'-string' if 'settings' in each else ''}={each}" for each in wrong]
    told = helm("template", RELEASE, str(CHART), *sets)
    assert told.returncode != 0
    assert told.stdout == ""
    assert [name for name in wrong.values() if name not in told.stderr] == []
    assert told.stderr.count("\n- ") == len(wrong)
