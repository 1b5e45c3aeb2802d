from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import yaml

from cryptoml_assets.operations.variables import check_environment
from cryptoml_assets.production import profile
from cryptoml_assets.production.executor import executor
from cryptoml_assets.production.instance import instance_text, write_instance
from cryptoml_assets.production.parts import command, environment
from cryptoml_assets.settings import Settings, settings
from cryptoml_serving.contract.settings import SettingsError

REPOSITORY = Path(__file__).parents[3]
ADDRESS = "postgresql+psycopg2://someone:hush@database:5432/dagster"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("CRYPTOML_DAGSTER_POSTGRES_URL", "postgresql://u:hush@h/d", "postgresql+psycopg2://"),
        ("CRYPTOML_DAGSTER_POSTGRES_URL", "postgresql+pg8000://u:hush@h/d", "needs the driver"),
        ("CRYPTOML_DAGSTER_LOGS_BUCKET", "s3://logs", "name of a bucket alone"),
        ("CRYPTOML_EXECUTION", "mesos", "kubernetes"),
        ("CRYPTOML_K8S_NAMESPACE", "My_Space", "no name of a Kubernetes object"),
        ("CRYPTOML_CODE_SERVER_PORT", "0", "port of the code server"),
    ],
)
def test_a_wrong_value_is_named_and_no_password_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as caught:
        check_environment()
    assert told in str(caught.value)
    assert "hush" not in str(caught.value)


def test_the_settings_show_no_address_that_may_hold_a_password() -> None:
    shown = repr(Settings(dagster_postgres_url=ADDRESS, tracking_uri="postgresql://u:hush@h/m"))
    assert "hush" not in shown


@pytest.mark.parametrize("name", ["artifacts", "approval_private_key", "checkpoints"])
def test_a_place_is_the_one_set_or_one_below_the_home(name: str, tmp_path: Path) -> None:
    found = {
        "artifacts": lambda each: Path(each.artifacts_address),
        "approval_private_key": lambda each: each.private_key_path,
        "checkpoints": lambda each: each.checkpoints_path,
    }[name]
    assert found(settings()).is_relative_to(settings().home_path)
    assert found(Settings.load(**{name: str(tmp_path / "here")})) == tmp_path / "here"


def test_one_machine_has_the_instance_of_one_machine(tmp_path: Path) -> None:
    written = write_instance(settings(), tmp_path / "dagster")
    assert written.read_text() == (REPOSITORY / "dagster.yaml").read_text()


def test_production_has_only_the_parts_it_has_settings_for() -> None:
    whole = yaml.safe_load((REPOSITORY / "production" / "dagster.yaml").read_text())
    cluster = {
        "execution": "kubernetes",
        **{f"k8s_{name}": "x" for name in ("namespace", "service_account", "settings", "secrets")},
        "k8s_instance_config_map": "x",
    }
    for more, missing in (
        ({}, {"compute_logs", "run_launcher"}),
        ({"dagster_logs_bucket": "logs"}, {"run_launcher"}),
        ({"dagster_logs_bucket": "logs", **cluster}, set()),
    ):
        text = instance_text(Settings.load(dagster_postgres_url=ADDRESS, **more))
        assert yaml.safe_load(text) == {k: v for k, v in whole.items() if k not in missing}
        assert "hush" not in text


def test_both_instances_keep_and_purge_alike() -> None:
    embedded, production = (
        yaml.safe_load((REPOSITORY / name).read_text())
        for name in ("dagster.yaml", "production/dagster.yaml")
    )
    assert embedded["retention"] == production["retention"]
    assert set(embedded) <= set(production)


def test_steps_run_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executor(settings()) is dg.in_process_executor
    monkeypatch.setenv("CRYPTOML_EXECUTION", "kubernetes")
    assert executor(Settings.load()).name == "k8s"


def test_a_training_without_spot_asks_for_no_interruptible_node() -> None:
    from cryptoml_assets.models.planning import resource_tags  # noqa: PLC0415 - seconds

    spot, steady = (
        resource_tags(Settings.load(spot=spot))["dagster-k8s/config"] for spot in (True, False)
    )
    assert "affinity" in spot["pod_spec_config"]
    assert "pod_spec_config" not in steady
    assert spot["container_config"] == steady["container_config"]


def test_a_part_of_dagster_is_this_environments_over_the_instance_of_the_settings() -> None:
    assert command("daemon", ["-w", "f"]) == [
        str(Path(sys.executable).with_name("dagster-daemon")),
        "run",
        "-w",
        "f",
    ]
    variables = environment(settings())
    assert Path(variables["DAGSTER_HOME"], "dagster.yaml").is_file()
    workspace = yaml.safe_load((REPOSITORY / "production" / "workspace.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    assert {variables[server["host"]["env"]], variables[server["port"]["env"]]} == {
        "127.0.0.1",
        "4000",
    }


def test_the_profile_starts_no_servers_beside_the_users_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CRYPTOML_LAKE", "s3://mine/lake")
    with (
        pytest.raises(SettingsError, match="CRYPTOML_LAKE, which you have set"),
        profile.production_profile(settings()),
    ):
        pytest.fail("started")


def test_the_profile_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def servers(folder: Path) -> Iterator[Mapping[str, str]]:
        assert folder.is_relative_to(home)
        yield {"CRYPTOML_LAKE": "s3://theirs/lake", "AWS_REGION": "somewhere"}

    monkeypatch.setattr(profile, "local_servers", servers)
    home, before = settings().home_path.parent, dict(os.environ)
    with profile.production_profile(settings()) as configured:
        assert configured.lake_uri == "s3://theirs/lake"
        assert configured.home_path == home / "production" / "simulated"
        assert os.environ["AWS_REGION"] == "somewhere"
    assert dict(os.environ) == before
    assert settings().lake == ""
