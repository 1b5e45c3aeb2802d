"""Where training keeps its compiled programs, so that the next process starts without compiling."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptoml_assets.errors import UnsafeFolderError
from cryptoml_serving.contract import compilation
from cryptoml_serving.contract import private_folder as folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Name of the folder below the home.
CACHE_FOLDER = "jax-cache"


def use_compilation_cache(folder: Path) -> None:
    """Keep every program this process compiles from now on in ``folder``, and take it from there.

    Args:
        folder: as the contract's function of this name has it.

    Raises:
        UnsafeFolderError: somebody else could have written what is in it.
    """
    with _as_ours():
        compilation.use_compilation_cache(folder)


def private_folder(folder: Path) -> Path:
    """Make a folder of compiled programs, or check that nobody else can write to it.

    Raises:
        UnsafeFolderError: somebody else can.
    """
    with _as_ours():
        return folders.private_folder(folder, compilation.purpose())


@contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except folders.UnsafeFolderError as error:
        raise UnsafeFolderError(str(error)) from error
