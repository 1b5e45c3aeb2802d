"""Compiled programs kept on disk, so that the next process starts at once instead of compiling.

What lies in the folder is machine code that JAX runs unseen: whoever can write there runs code as
us. So the folder is ours alone, or it is not used.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptoml_serving.contract.private_folder import Purpose, private_folder

#: Most bytes the programs of one folder may take; the least recently used go first. Those of one
#: training, or of a model in all batch sizes, take well under 1 MB.
CACHE_BYTES = 256 * 2**20
_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_WHY = "JAX runs the compiled programs in it"


def use_compilation_cache(folder: Path, setting: str = "CRYPTOML_HOME") -> None:
    """Keep every program this process compiles from now on in ``folder``, and take it from there.

    A program is found again by its own text, the versions of JAX and XLA, the compiler's options
    and the features of the processor or the kind of GPU, so that a home on a shared disk serves
    machines of several kinds. A damaged one is compiled anew, with a warning.

    Args:
        folder: made when absent, readable and writable by this user alone. A folder named by JAX's
            own variable ``JAX_COMPILATION_CACHE_DIR`` takes its place, and must be as private.
        setting: the variable that chooses another folder, for the message of a refusal.

    Raises:
        UnsafeFolderError: somebody else could have written what is in it.
        OSError: it cannot be made.
    """
    folder = private_folder(Path(os.environ.get(_VARIABLE) or folder), purpose(setting))
    import jax  # noqa: PLC0415 - the check of a folder needs none of it
    from jax.experimental.compilation_cache import compilation_cache  # noqa: PLC0415

    _drop_half_written(folder)
    if jax.config.jax_compilation_cache_dir not in (None, str(folder)):
        compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    # By default JAX keeps nothing that compiles in under a second, which is all of ours.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_dir", str(folder))


def purpose(setting: str = "CRYPTOML_HOME") -> Purpose:
    """What the folder is for; ``setting`` is the variable that chooses another one."""
    return Purpose(_WHY, f"{setting} or {_VARIABLE}")


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
