"""Folders that nobody but this user can write to.

What some folders hold is believed, or run, by whoever reads it: there, a folder that others can
write to is not used.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

_PRIVATE = 0o700
_EMPTY_DIR = "/volumes/kubernetes.io~empty-dir/"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UnsafeFolderError(Exception):
    """Somebody else could have written what is in a folder; the message names the way out."""


@dataclass(frozen=True)
class Purpose:
    """What a folder is for, in the words of its refusals.

    Attributes:
        why: what makes its content dangerous: "JAX runs the compiled programs in it".
        settings: names of the settings that choose another folder.
    """

    why: str
    settings: str


def private_folder(folder: Path, purpose: Purpose) -> Path:
    """Make ``folder`` for this user alone, or check that it already is; tell where it really is.

    Others may read it, as they may where the umask of its maker said so; what matters is that they
    cannot write, neither in it nor in a folder above it, where they could put another in its place.
    Missing folders above it are made for this user alone too.

    Args:
        folder: to make or check.
        purpose: what it is for.

    Returns:
        The folder without links on its way: one that is turned elsewhere later changes nothing.

    Raises:
        UnsafeFolderError: it is a link, no folder, another user's, or writable by others, or a
            folder above it is another user's or writable by others.
        OSError: it cannot be made.
    """
    folder = folder.parent.resolve() / folder.name
    for above in reversed(folder.parents):
        _check_above(above, _made(above), folder, purpose)
    found = _made(folder)
    why = purpose.why
    mode = stat.S_IMODE(found.st_mode)
    told = f"{folder} (mode {mode:04o}, owner {found.st_uid})"
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeFolderError(f"{folder} is a link, and {why}: remove it, a folder is made anew")
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolderError(f"{told} is no folder: remove it, a folder is made anew")
    if found.st_uid != os.geteuid():
        raise UnsafeFolderError(
            f"{told} belongs to another user than {os.geteuid()}, and {why}: remove it, or set "
            f"another {purpose.settings}"
        )
    if mode & _WRITABLE_BY_OTHERS:
        raise UnsafeFolderError(
            f"{told} is writable by others, and {why}: remove it if others could have used that, "
            f"else chmod 700 {folder}"
        )
    return folder


def _made(folder: Path) -> os.stat_result:
    """What is at ``folder``, which is made for this user alone where nothing is."""
    with contextlib.suppress(FileNotFoundError):
        return folder.lstat()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_PRIVATE)
    return folder.lstat()


def _check_above(above: Path, found: os.stat_result, folder: Path, purpose: Purpose) -> None:
    """Refuse a folder above ``folder`` in which others could put another in its place.

    Raises:
        UnsafeFolderError: somebody else could.
    """
    mode = stat.S_IMODE(found.st_mode)
    told = f"{above} (mode {mode:04o}, owner {found.st_uid})"
    instead = f"or set another {purpose.settings}"
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolderError(f"{told}, above {folder}, is no folder: remove it, {instead}")
    if found.st_uid not in (0, os.geteuid()):
        raise UnsafeFolderError(
            f"{told} belongs neither to root nor to user {os.geteuid()}; its owner could replace "
            f"{folder}, and {purpose.why}: chown {os.geteuid()} {above}, {instead}"
        )
    others = stat.S_IWOTH if is_ours_alone(found.st_gid) else _WRITABLE_BY_OTHERS
    # Where the sticky bit is, as in /tmp, nobody replaces what is somebody else's.
    if mode & others and not mode & stat.S_ISVTX and not is_own_volume(above):
        raise UnsafeFolderError(
            f"{told} is writable by others, who could replace {folder}, and {purpose.why}: "
            f"chmod go-w {above}, {instead}"
        )


def is_ours_alone(group: int) -> bool:
    """Whether no other account is known to be in a group.

    Many systems give each user a group of the user's own name and let it write by default; a pod's
    volumes belong to a group without a name.
    """
    try:
        found = grp.getgrgid(group)
    except KeyError:
        return True
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return found.gr_name == name and not set(found.gr_mem) - {name}


def is_own_volume(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether a folder is a pod's own volume (emptyDir), in which nobody but the pod's user is.

    Kubernetes makes it writable for all and without the sticky bit. On its node it lies below a
    folder that only root enters, and no other pod can have it; the kernel tells where a mount is
    from, which nobody without privileges can make up.

    Args:
        folder: absolute and without links.
        mounts: the kernel's list of mounts.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    # The fourth field is the folder of the file system that was mounted, the fifth is where.
    last = [parts[3] for parts in map(str.split, lines) if parts[4] == str(folder)][-1:]
    return any(_EMPTY_DIR in source for source in last)
