"""Containers of a built image, as Kubernetes' profile *restricted* runs them.

    image = Image("serving", root, config)      # files, and what `buildah inspect` says of them
    with image.run(environment={...}, writable=[folder]) as container:
        container.execute("python", "-I", "/app/health.py")
        container.stop()

The root is read-only, the user is the image's, there is no capability and no way to get one; /tmp
is its own, /data a folder of this machine. The network is this machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Of every image, and of its group.
USER = 10001
_STOP_SECONDS = 30
_PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
_DEVICES = {
    "destination": "/dev",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
}
#: Of every engine: semaphores of processes lie in it.
_SHARED = {
    "destination": "/dev/shm",  # noqa: S108 - in the container
    "type": "tmpfs",
    "source": "shm",
    "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
}
_TEMPORARY = {
    "destination": "/tmp",  # noqa: S108 - in the container
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "nodev", "mode=1777"],
}


def runtime() -> str:
    """The OCI runtime of this machine.

    Raises:
        FileNotFoundError: there is none.
    """
    found = shutil.which("runc") or shutil.which("crun")
    if found is None:
        message = "no runc and no crun on the PATH"
        raise FileNotFoundError(message)
    return found


@dataclass(frozen=True)
class Container:
    """One that runs."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the first process, with its user and environment."""
        return subprocess.run(
            [runtime(), "exec", self.name, *command], capture_output=True, text=True, check=False
        )

    def stop(self) -> int:
        """Ask the first process to end, as Kubernetes does; its exit status."""
        subprocess.run([runtime(), "kill", self.name, "TERM"], check=True)
        return self.process.wait(_STOP_SECONDS)

    def told(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")


@dataclass(frozen=True)
class Image:
    """A built image.

    Attributes:
        target: of docker/Dockerfile.
        root: where its files are mounted.
        config: as ``buildah inspect --type image`` has it, section ``Docker``, key ``config``.
    """

    target: str
    root: Path
    config: Mapping[str, Any]

    @property
    def health_check(self) -> list[str]:
        """The command that tells whether a container is well."""
        kind, *command = self.config["Healthcheck"]["Test"]
        return list(command) if kind == "CMD" else ["a shell", *command]

    @contextlib.contextmanager
    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        writable: Sequence[Path] = (),
        data_mode: int = 0o700,
    ) -> Iterator[Container]:
        """Start a container, and remove it in the end.

        Args:
            command: in place of the image's own.
            environment: beside the image's own.
            writable: folders of this machine, at the same place in the container.
            data_mode: permissions of /data; 0o777 belongs to root, as an emptyDir does.
        """
        name = f"image-check-{uuid.uuid4().hex[:8]}"
        folder = Path(tempfile.mkdtemp(prefix="image-check-"))
        data = folder / "data"
        data.mkdir()
        data.chmod(data_mode)
        os.chown(data, 0 if data_mode & 0o002 else USER, USER)
        mounts = [bind(data, "/data"), *(bind(each, str(each)) for each in writable)]
        spec = self.specification(command, environment or {}, mounts)
        (folder / "config.json").write_text(json.dumps(spec))
        log = folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [runtime(), "run", "--bundle", str(folder), name],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        try:
            yield Container(name, process, log)
        finally:
            remove = [runtime(), "delete", "--force", name]
            subprocess.run(remove, capture_output=True, check=False)
            process.wait(_STOP_SECONDS)
            shutil.rmtree(folder)

    def specification(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        mounts: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """What an OCI runtime is told: ``command`` in place of the image's own unless empty."""
        own = dict(each.split("=", 1) for each in self.config["Env"])
        none: list[str] = []
        sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": USER, "gid": USER},
                "args": list(command) or list(self.config["Cmd"]),
                "env": [f"{name}={value}" for name, value in {**own, **environment}.items()],
                "cwd": self.config["WorkingDir"],
                "noNewPrivileges": True,
                "capabilities": dict.fromkeys(sets, none),
            },
            "root": {"path": str(self.root), "readonly": True},
            "hostname": self.target,
            "mounts": [_PROC, _DEVICES, _SHARED, _TEMPORARY, *mounts],
            "linux": {"namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount")]},
        }


def bind(source: Path, destination: str) -> dict[str, Any]:
    """A mount of something of this machine, writable."""
    return {
        "destination": destination,
        "type": "bind",
        "source": str(source),
        "options": ["rbind", "rw", "nosuid", "nodev"],
    }
