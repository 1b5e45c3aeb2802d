"""What may lie in an image, and what may not."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

#: Names of programs with which an intruder would build or fetch more.
TOOLS = frozenset(
    {
        *("cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "cmake", "rustc", "cargo", "go"),
        *("pip", "pip3", "uv", "conda", "git", "curl", "wget", "ssh", "nc"),
    }
)
#: Packages that install others.
INSTALLERS = frozenset({"pip", "setuptools", "ensurepip", "hatchling", "wheel"})
#: Names of the folders that hold packages of Python.
PACKAGES = frozenset({"site-packages", "dist-packages", "python3", "python3.11"})
#: Files that lie about where an image is built.
STRAYS = frozenset({"pip.conf", ".env", ".netrc", ".git", ".cryptoml"})
_SYSTEM = ("proc", "sys", "dev")


def files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below ``root`` with its path from there, links not followed."""
    for folder, names, leaves in os.walk(root):
        if Path(folder) == root:
            names[:] = [name for name in names if name not in _SYSTEM]
        for name in (*names, *leaves):
            path = Path(folder) / name
            yield path.relative_to(root), path.lstat()


def size(root: Path) -> int:
    """Bytes of all files, one with several names counted once."""
    counted = {
        (found.st_dev, found.st_ino): found.st_size
        for _, found in files(root)
        if stat.S_ISREG(found.st_mode)
    }
    return sum(counted.values())


def largest(root: Path, count: int = 10) -> str:
    """The packages of Python that take most, with their compiled modules: name and MB of each."""
    sizes: Counter[str] = Counter()
    for path, found in files(root):
        folders = path.parts
        if "site-packages" in folders[:-1] and stat.S_ISREG(found.st_mode):
            sizes[folders[folders.index("site-packages") + 1]] += found.st_size
    return ", ".join(f"{name} {taken / 1e6:.0f}" for name, taken in sizes.most_common(count))


def troubles(root: Path) -> list[str]:
    """What is there and should not be, each with its path."""
    found = []
    for path, about in files(root):
        regular = stat.S_ISREG(about.st_mode)
        why = _by_name(path) or _by_mode(path, about)
        if not why and regular and path.suffix in {".pem", ".key"}:
            content = (root / path).read_text("latin-1")
            why = "a private key" if "PRIVATE KEY" in content else ""
        if why:
            found.append(f"{why}: /{path}")
    return found


def _by_name(path: Path) -> str:
    if path.name in TOOLS and path.parent.name in {"bin", "sbin"}:
        return "a tool"
    if path.name in INSTALLERS and path.parent.name in PACKAGES:
        return "an installer"
    return "nothing for an image" if path.name in STRAYS else ""


def _by_mode(path: Path, about: os.stat_result) -> str:
    if stat.S_ISLNK(about.st_mode):
        return ""
    if stat.S_ISREG(about.st_mode) and about.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "another's rights"
    if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        return "writable by all"
    if about.st_uid and path.parts[0] in {"app", "opt"}:
        return "its user may change it"
    return ""
