"""Built images, put to work: `python -m tests.images.built TARGET ROOT CONFIG ...`, as root.

scripts/image-check calls it with each image's target, the folder its files are mounted at and the
file with what `buildah inspect` says of it. Prints a line for each check with what was seen, and
ends with 1 unless all is well.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.images import files
from tests.images.container import USER, Container, Image
from tests.images.served import Served, world

_PATIENCE = 180.0
_LABELS = ("title", "description", "licenses", "version", "revision")
_SERVING_PORTS = ["8000/tcp", "8001/tcp"]
_PORTS = {"assets": ["4000/tcp"], "serving": _SERVING_PORTS, "serving-gpu": _SERVING_PORTS}
_COMMANDS = (
    ("cryptoml", "settings"),
    ("cryptoml", "dashboard"),
    ("mlflow", "--version"),
    ("dagster-webserver", "--version"),
    ("dagster-daemon", "--version"),
)
_REPOSITORIES = """
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse
from dagster._serdes import deserialize_value
told = DagsterGrpcClient(port=4000, host="127.0.0.1").list_repositories()
print(deserialize_value(told, ListRepositoriesResponse).repository_symbols)
"""
#: Servers' libraries that a configuration asks for, none of which the check below has.
_STORES = "import feature_repo.redis_online_store, pg8000, boto3"
_COMMIT = "from cryptoml_assets.models.provenance import git_commit; print(git_commit())"


class Report:
    """Lines of what was looked at."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.failed = 0

    def line(self, name: str, seen: object, *, well: bool = True) -> None:
        self.failed += not well
        sys.stdout.write(f"{'ok' if well else '!!'}  {self._target:12} {name:28} {seen}\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Check every image named; the exit status."""
    failed = 0
    for place in range(0, len(arguments), 3):
        target, root, inspected = arguments[place : place + 3]
        config = json.loads(Path(inspected).read_text())["Docker"]["config"]
        image, report = Image(target, Path(root), config), Report(target)
        check_configuration(image, report)
        check_files(image, report)
        (check_assets if target == "assets" else check_serving)(image, report)
        failed += report.failed
    sys.stdout.write(f"{failed} failed\n")
    return int(bool(failed))


def check_configuration(image: Image, report: Report) -> None:
    """What an engine reads of an image before it starts anything."""
    config = image.config
    labels = [config["Labels"].get(f"org.opencontainers.image.{name}") for name in _LABELS]
    report.line("labels", labels, well=all(labels) and labels[0] == f"cryptoml-{image.target}")
    report.line("user", config["User"], well=config["User"] == f"{USER}:{USER}")
    report.line("volumes", list(config["Volumes"]), well=list(config["Volumes"]) == ["/data"])
    ports = sorted(config["ExposedPorts"])
    report.line("ports", ports, well=ports == _PORTS[image.target])
    report.line("no entry point", "none", well=not config.get("Entrypoint"))
    test = image.health_check
    report.line("health check", test, well=test[0] == "python")


def check_files(image: Image, report: Report) -> None:
    """What lies in it."""
    report.line("size", f"{files.size(image.root) / 1e6:.0f} MB of files")
    report.line("largest packages, MB", files.largest(image.root))
    troubles = files.troubles(image.root)
    report.line("holds nothing it must not", troubles[:8] or "nothing", well=not troubles)
    commit = (image.root / "app" / "COMMIT").read_text().strip()
    labelled = image.config["Labels"]["org.opencontainers.image.revision"]
    report.line("commit", commit, well=commit == labelled)
    modules = list((image.root / "app").rglob("*.py"))
    raw = [m for m in modules if not list((m.parent / "__pycache__").glob(f"{m.stem}.*.pyc"))]
    report.line("compiled", f"{len(modules) - len(raw)} of {len(modules)} modules", well=not raw)


def check_isolation(container: Container, report: Report) -> None:
    """What it may do where it runs."""
    refused = container.execute("touch", "/app/x", "/opt/cryptoml/x", "/etc/x").stderr
    count = refused.count("Read-only file system")
    report.line("read-only root", f"{count} of 3 writes refused", well=count == 3)
    written = container.execute("touch", "/data/x", "/tmp/x")  # noqa: S108 - in the container
    report.line("/data and /tmp", written.stderr or "writable", well=not written.returncode)
    status = container.execute("cat", "/proc/self/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    seen = [fields["Uid"].split()[0], fields["CapBnd"], fields["NoNewPrivs"]]
    report.line("rights", seen, well=seen == [str(USER), "0" * 16, "1"])


def ready(container: Container, test: Callable[[], bool]) -> str:
    """Wait until ``test`` holds; what is wrong where it does not, empty where it does."""
    until = time.monotonic() + _PATIENCE
    while not test():
        if (code := container.process.poll()) is not None:
            return f"it ended with {code}: {container.told()[-400:]}"
        if time.monotonic() > until:
            return f"not within {_PATIENCE:.0f} s: {container.told()[-400:]}"
        time.sleep(0.1)
    return ""


def check_end(container: Container, report: Report) -> None:
    """It ends when told, and not by force."""
    begun = time.monotonic()
    code = container.stop()
    report.line("ends when told", f"{code} in {time.monotonic() - begun:.1f} s", well=code == 0)


def check_assets(image: Image, report: Report) -> None:
    """The code server starts and answers; commands work."""
    begun = time.monotonic()
    with image.run() as container:
        wrong = ready(container, lambda: not container.execute(*image.health_check).returncode)
        seen = wrong or f"{time.monotonic() - begun:.1f} s"
        report.line("start to ready", seen, well=not wrong)
        if not wrong:
            check_isolation(container, report)
            asked = container.execute("python", "-c", _REPOSITORIES)
            report.line("code location", asked.stdout or asked.stderr, well=not asked.returncode)
            check_end(container, report)
    for command in _COMMANDS:
        code, told = finish(image, *command)
        report.line(" ".join(command), told.strip().splitlines()[-1:], well=code == 0)
    code, told = finish(image, "python", "-c", _COMMIT)
    commit = (image.root / "app" / "COMMIT").read_text()
    report.line("a run records the commit", told.strip(), well=code == 0 and told == commit)


def finish(image: Image, *command: str) -> tuple[int, str]:
    """Run a command in a container of its own: exit status and what it printed."""
    with image.run(*command) as container:
        return container.process.wait(_PATIENCE), container.told()


def check_serving(image: Image, report: Report) -> None:
    """It refuses to be open to all, gets ready, answers, and ends when told."""
    code, told = finish(image)
    refused = code == 2 and "no authentication is configured" in told
    report.line("refuses without keys", told.strip().splitlines()[-1:], well=refused)
    code, told = finish(image, "python", "-c", _STORES)
    report.line("Redis, PostgreSQL, S3", told.strip()[-200:] or "imported", well=code == 0)
    with world() as served:
        check_served(image, report, served, "first start to ready")
        check_served(image, report, served, "next start to ready")


def check_served(image: Image, report: Report, served: Served, name: str) -> None:
    """From the start of a container to its end."""
    begun = time.monotonic()
    with image.run(environment=served.environment, writable=[served.folder]) as container:
        wrong = ready(container, served.is_ready)
        report.line(name, wrong or f"{time.monotonic() - begun:.2f} s", well=not wrong)
        if wrong:
            return
        for path in ("/health", "/ready"):
            asked = container.execute(*image.health_check, path)
            report.line("health check", asked.stdout or asked.stderr, well=not asked.returncode)
        stranger, answer = served.ask(""), served.ask(served.key)
        report.line("a stranger's /predict", stranger, well=stranger.startswith("401"))
        report.line("/predict", answer, well=answer.startswith("200"))
        used = served.devices()
        report.line("device", used, well=bool(used))
        check_isolation(container, report)
        check_end(container, report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
