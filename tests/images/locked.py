"""Python as it is in an image: packages that its lock does not name cannot be imported.

    environment |= only_locked("serving", tmp_path)     # of a process that runs this Python

What development needs beside them is installed here, so that a package the image lacks would be
found where tests run, and nowhere else be missed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==([^ \\]+)", re.MULTILINE)
_FINDER = """\
import json
import pathlib
import sys

_ABSENT = frozenset(json.loads(pathlib.Path(__file__).with_name("absent.json").read_text()))


class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in _ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}: not in the image", name=name)


sys.meta_path.insert(0, Absent)
"""


def pins(lock: str) -> dict[str, set[str]]:
    """Versions of each package of a lock; several where they depend on the Python."""
    found: dict[str, set[str]] = {}
    for name, version in PIN.findall((REPOSITORY / "requirements" / f"{lock}.txt").read_text()):
        found.setdefault(name, set()).add(version)
    return found


@cache
def distributions() -> dict[str, frozenset[str]]:
    """Names of the packages that bring each module, as locks spell them."""
    return {
        module: frozenset(name.lower().replace("_", "-") for name in names)
        for module, names in packages_distributions().items()
    }


def only_locked(lock: str, folder: Path) -> Mapping[str, str]:
    """Variables for a Python that has this lock's packages alone.

    Args:
        lock: name of a file in requirements/, without its suffix.
        folder: where to write what that Python reads at its start.
    """
    locked = set(pins(lock)) | {"cryptoml"}
    absent = sorted(module for module, names in distributions().items() if not names & locked)
    (folder / "absent.json").write_text(json.dumps(absent))
    (folder / "sitecustomize.py").write_text(_FINDER)
    return {"PYTHONPATH": str(folder)}
