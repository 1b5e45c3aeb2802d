"""What containers get is what the programs in them read: the programs' own settings say so."""

import os

import httpx
import pytest

from cryptoml_assets.operations.variables import check_environment
from cryptoml_assets.settings import Settings
from cryptoml_serving.security.exposure import check_exposure
from cryptoml_serving.settings import ServingSettings
from tests.charts.rendering import (
    ENVIRONMENTS,
    ROOT,
    Variant,
    environment,
    named,
    objects,
    pod_templates,
)

#: What a Secret would hold.
SECRETS = {
    "CRYPTOML_DAGSTER_POSTGRES_URL": "postgresql+psycopg2://dagster:word@host:5432/dagster",
    "CRYPTOML_ONLINE_STORE": "rediss://:word@host:6379/0",
    "CRYPTOML_FEATURE_REGISTRY": "postgresql+pg8000://feast:word@host:5432/feast",
    "CRYPTOML_NOTIFY_SLACK_URL": "https://hooks.slack.com/services/word",
}
#: Which of them a component may see; none of the others.
STORES = {"CRYPTOML_ONLINE_STORE", "CRYPTOML_FEATURE_REGISTRY", "CRYPTOML_TRACKING_URI"}
SIGNING = "/etc/cryptoml/signing"


@pytest.fixture
def as_container(monkeypatch):
    """Set the variables of a container, and none of this machine's."""

    def put(variables):
        for name in [name for name in os.environ if name.startswith("CRYPTOML_")]:
            monkeypatch.delenv(name)
        for name, told in variables.items():
            value = SECRETS.get(name) if told is None else told
            if value is not None:
                monkeypatch.setenv(name, value)

    return put


def _containers(found):
    for name, template in pod_templates(found).items():
        for container in template["spec"]["containers"]:
            yield f"{name}/{container['name']}", container


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_program_takes_its_settings(name, as_container):
    found = objects(Variant(name, everything=True))
    read = 0
    for place, container in _containers(found):
        variables = environment(container, found)
        if "CRYPTOML_HOME" not in variables:
            assert place.split("/")[-1] in ("mlflow", "smoke", "predict")
            continue
        as_container(variables)
        if "serving" in place:
            settings = ServingSettings.load()
            check_exposure(settings)
            assert settings.serving_host == "0.0.0.0"  # noqa: S104
            assert settings.home_path.is_relative_to("/data")
        else:
            check_environment()
            kind = "local" if place.startswith(("CronJob", "Deployment/cryptoml-feature")) else ""
            assert Settings.load().execution == (kind or "kubernetes")
        read += 1
    assert read >= 6


def test_runs_and_code_server_agree_on_where_they_are(as_container):
    found = objects(Variant("production"))
    settings = named(found, "ConfigMap", "cryptoml-settings")["data"]
    as_container({**settings, **SECRETS})
    loaded = Settings.load()
    accounts = {each["metadata"]["name"] for each in found if each["kind"] == "ServiceAccount"}
    assert loaded.k8s_service_account in accounts
    assert loaded.k8s_settings == "cryptoml-settings"
    assert loaded.tracking_uri == "http://cryptoml-mlflow:5000"
    hosts = environment(
        pod_templates(found)["Deployment/cryptoml-mlflow"]["spec"]["containers"][0], found
    )["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert "cryptoml-mlflow:5000" in hosts.split(",")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_graph_knows_every_worker_of_every_pod(name, as_container):
    found = objects(Variant(name, everything=True))
    settings = named(found, "ConfigMap", "cryptoml-settings")["data"]
    as_container(settings)
    asked = [httpx.URL(each) for each in Settings.load().inference_admin_urls]
    (host,) = {each.host for each in asked}
    service = named(found, "Service", host)["spec"]
    # Its name is the addresses of its pods, and so their ports are asked.
    assert service["clusterIP"] == "None"
    deployments = [
        template
        for place, template in pod_templates(found).items()
        if place.startswith("Deployment/cryptoml-serving")
    ]
    assert len(deployments) == 2
    for template in deployments:
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        workers = int(environment(container, found)["CRYPTOML_SERVING_WORKERS"])
        listened = {
            each["containerPort"] for each in container["ports"] if each["name"].startswith("admin")
        }
        assert {each.port for each in asked} == listened
        assert len(asked) == len(listened) == workers
        assert {each.scheme for each in asked} == {"https"}
    assert {each["port"] for each in service["ports"]} == {each.port for each in asked}
    plain = named(objects(Variant(name)), "ConfigMap", "cryptoml-settings")["data"]
    assert plain["CRYPTOML_INFERENCE_ADMIN_URLS"].startswith("http://cryptoml-serving-admin:8001")


def test_who_sees_which_secret():
    found = objects(Variant("production", everything=True))
    seen, signs = {}, set()
    for place, container in _containers(found):
        component = place.split("/")[-1]
        names = {each["name"] for each in container.get("env", []) if "valueFrom" in each}
        seen[component] = {each for each in names if each.startswith(("CRYPTOML_", "DAGSTER_"))}
        if SIGNING in {each["mountPath"] for each in container["volumeMounts"]}:
            signs.add(component)
    assert signs == {"code-server"}
    assert seen["serving"] == STORES
    assert seen["verify-history"] == STORES
    assert seen["smoke"] == set()
    assert seen["predict"] == set()
    assert seen["mlflow"] == set()
    assert seen["feature-server"] == STORES - {"CRYPTOML_TRACKING_URI"}
    assert seen["exporter"] == STORES | {"CRYPTOML_DAGSTER_POSTGRES_URL"}
    secret = {
        Settings.variable(name) for name, field in Settings.model_fields.items() if not field.repr
    }
    assert seen["code-server"] == (secret - {"CRYPTOML_IDENTITY_TOKEN"}) | {"DAGSTER_PG_PASSWORD"}


def test_no_secret_is_in_a_config_map():
    for name in ENVIRONMENTS:
        settings = named(objects(Variant(name)), "ConfigMap", "cryptoml-settings")["data"]
        for variable in settings:
            field = Settings.model_fields.get(variable.removeprefix("CRYPTOML_").lower())
            assert field is None or field.repr or variable == "CRYPTOML_TRACKING_URI"


def test_the_files_of_the_chart_are_those_of_the_repository():
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415
    from importlib.util import module_from_spec, spec_from_loader  # noqa: PLC0415

    loader = SourceFileLoader("chart_files", str(ROOT / "scripts" / "chart-files"))
    script = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(script)
    stale = [path for path, text in script.wanted().items() if path.read_text() != text]
    assert stale == [], "run scripts/chart-files"
