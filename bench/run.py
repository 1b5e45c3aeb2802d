"""Runs one benchmark: ``python -m bench.run NAME [options of the benchmark]``.

A benchmark ``NAME`` is ``bench/NAME.py`` or ``bench/NAME/__main__.py``. Peers that it imports are
pinned in ``bench/requirements-NAME.in``; where the project's environment does not hold them in
those versions, the benchmark runs in an environment of its own, ``bench/.venv/NAME``, that sees
the peers first and the project's second. Peers that it starts are pinned in ``bench/peers``.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The benchmarks there are."""
    helpers = {"run", "report", "processes", "__init__"}
    files = {path.stem for path in HERE.glob("*.py")}
    packages = {path.parent.name for path in HERE.glob("*/__main__.py")}
    return tuple(sorted((files | packages) - helpers))


def pinned(name: str) -> tuple[Requirement, ...]:
    """The peers of a benchmark."""
    path = HERE / f"requirements-{name}.in"
    lines = path.read_text().splitlines() if path.exists() else []
    return tuple(
        Requirement(line) for line in (each.partition("#")[0].strip() for each in lines) if line
    )


def installed_here(requirement: Requirement) -> bool:
    """Whether this environment holds a peer in a version that was asked for."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version)


def interpreter(name: str) -> str:
    """The Python to run a benchmark with, its environment made where it is missing or old."""
    peers = pinned(name)
    if all(map(installed_here, peers)):
        return sys.executable
    folder = HERE / ".venv" / name
    python = folder / "bin" / "python"
    stamp = folder / "peers.txt"
    wanted = "\n".join(map(str, peers))
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(map(str, peers))} into {folder}")
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *map(str, peers)], check=True)
        site = sysconfig.get_path("purelib", vars={"base": str(folder)})
        Path(site, "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        stamp.write_text(wanted)
    return str(python)


def main() -> int:
    """Run the benchmark named first, with the other arguments; its exit status is ours."""
    name, *options = sys.argv[1:] or [""]
    if name not in names():
        print(f"no benchmark {name!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    command = [interpreter(name), "-m", f"bench.{name}", *options]
    return subprocess.run(command, cwd=HERE.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
