"""Compiled programs kept on disk, so that the next process starts training instead of compiling.

What lies in the folder is machine code that JAX runs unseen: whoever can write there runs code as
us. So the folder is ours alone, or it is not used.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path

from cryptoml_assets.errors import UnsafeFolderError

#: Name of the folder below the home.
CACHE_FOLDER = "jax-cache"
#: Most bytes the programs may take; the least recently used go first. Those of one training take
#: well under 1 MB.
CACHE_BYTES = 256 * 2**20
_PRIVATE = 0o700
_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_WHY = "JAX runs the compiled programs in it"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def use_compilation_cache(folder: Path) -> None:
    """Keep every program this process compiles from now on in ``folder``, and take it from there.

    A program is found again by its own text, the versions of JAX and XLA, the compiler's options
    and the features of the processor or the kind of GPU, so that a home on a shared disk serves
    machines of several kinds. A damaged one is compiled anew, with a warning.

    Args:
        folder: made when absent, readable and writable by this user alone. A folder named by JAX's
            own variable ``JAX_COMPILATION_CACHE_DIR`` takes its place, and must be as private.

    Raises:
        UnsafeFolderError: somebody else could have written what is in it.
    """
    import jax  # noqa: PLC0415 - the check of a folder needs none of it
    from jax.experimental.compilation_cache import compilation_cache  # noqa: PLC0415

    folder = private_folder(Path(os.environ.get(_VARIABLE) or folder))
    _drop_half_written(folder)
    if jax.config.jax_compilation_cache_dir not in (None, str(folder)):
        compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    # By default JAX keeps nothing that compiles in under a second, which is all of ours.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_dir", str(folder))


def private_folder(folder: Path) -> Path:
    """Make ``folder`` for this user alone, or check that it already is; tell where it really is.

    Others may read it, as they may where the umask of its maker said so; what matters is that they
    cannot write, neither in it nor in a folder above it, where they could put another in its place.
    Missing folders above it are made for this user alone too.

    Returns:
        The folder without links on its way: one that is turned elsewhere later changes nothing.

    Raises:
        UnsafeFolderError: it is a link, no folder, another user's, or writable by others, or a
            folder above it is another user's or writable by others.
    """
    folder = folder.parent.resolve() / folder.name
    for above in reversed(folder.parents):
        _check_above(above, _made(above), folder)
    found = _made(folder)
    mode = stat.S_IMODE(found.st_mode)
    told = f"{folder} (mode {mode:04o}, owner {found.st_uid})"
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeFolderError(f"{folder} is a link, and {_WHY}: remove it, a folder is made anew")
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolderError(f"{told} is no folder: remove it, a folder is made anew")
    if found.st_uid != os.geteuid():
        raise UnsafeFolderError(
            f"{told} belongs to another user than {os.geteuid()}, and {_WHY}: remove it, or set "
            "another CRYPTOML_HOME"
        )
    if mode & _WRITABLE_BY_OTHERS:
        raise UnsafeFolderError(
            f"{told} is writable by others, and {_WHY}: remove it if others could have used that, "
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


def _check_above(above: Path, found: os.stat_result, folder: Path) -> None:
    """Refuse a folder above ``folder`` in which others could put another in its place.

    Raises:
        UnsafeFolderError: somebody else could.
    """
    mode = stat.S_IMODE(found.st_mode)
    told = f"{above} (mode {mode:04o}, owner {found.st_uid})"
    instead = f"or set another CRYPTOML_HOME or {_VARIABLE}"
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolderError(f"{told}, above {folder}, is no folder: remove it, {instead}")
    if found.st_uid not in (0, os.geteuid()):
        raise UnsafeFolderError(
            f"{told} belongs neither to root nor to user {os.geteuid()}; its owner could replace "
            f"{folder}, and {_WHY}: chown {os.geteuid()} {above}, {instead}"
        )
    others = stat.S_IWOTH if _is_ours_alone(found.st_gid) else _WRITABLE_BY_OTHERS
    # Where the sticky bit is, as in /tmp, nobody replaces what is somebody else's.
    if mode & others and not mode & stat.S_ISVTX:
        raise UnsafeFolderError(
            f"{told} is writable by others, who could replace {folder}, and {_WHY}: chmod go-w "
            f"{above}, {instead}"
        )


def _is_ours_alone(group: int) -> bool:
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


def _drop_half_written(folder: Path) -> None:
    """Remove what a killed process left of a program.

    JAX writes a program, then the time of its use, and stops keeping programs at the first one
    that has no time.
    """
    from filelock import FileLock  # noqa: PLC0415 - JAX's own lock of the folder

    with FileLock(folder / ".lockfile"):
        for program in folder.glob("*-cache"):
            if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
                program.unlink(missing_ok=True)
