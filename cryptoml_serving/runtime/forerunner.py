"""Compiles a model in a process of its own, before the one that answers loads it.

Compiling keeps every core busy for seconds, and callers waiting. The other process has the lowest
priority, and leaves its programs in the cache that both share, so that this one only reads them::

    python -m cryptoml_serving.runtime.forerunner BUNDLE DIGEST PROGRAMS 8,64,512 30
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoml_serving.runtime.processes import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOG = logging.getLogger(__name__)
_LOWEST = 19
#: A program this small has hardly any operations.
_SMALL_BYTES = 8192
#: Where a machine is so busy that this priority gets nowhere, compiling here is the lesser evil.
_MOST_SECONDS = 30.0


def compile_beside(bundle: Path, digest: str, programs: Path, sizes: Sequence[int]) -> bool:
    """Have a bundle's programs for the CPU compiled into a cache, and wait for it.

    That it fails is told, and no error: then whoever loads the bundle compiles it. A small program
    takes less time to compile than a process to start, and is left to the loader too.

    Args:
        bundle: folder of a verified bundle.
        digest: of it; it is verified again.
        programs: folder of the cache.
        sizes: numbers of rows.

    Returns:
        Whether it was compiled.
    """
    from cryptoml_serving.contract.bundle import MODEL_FILE  # noqa: PLC0415 - see main
    from cryptoml_serving.telemetry import event  # noqa: PLC0415 - see main

    # Without the working directory: nothing that lies there is imported.
    command = [sys.executable, "-P", "-m", __name__, str(bundle), digest, str(programs)]
    command += [",".join(map(str, sizes)), str(_MOST_SECONDS)]
    try:
        if (bundle / MODEL_FILE).stat().st_size < _SMALL_BYTES:
            return False
        done = subprocess.run(  # noqa: S603 - our own module, and what we verified
            command, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False
        )
        why = (done.stderr[-500:] or f"it ended with {done.returncode}") if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        message = f"the model is compiled by the process that answers: {why}"
        event(_LOG, logging.WARNING, "error", message, error_type="forerunner")
    return not why


@dataclass(frozen=True)
class _Alone:
    """One device, named as the service names it, or its programs would be others."""

    devices: tuple[Any, ...]

    def lost(self, device: Any, error: Exception) -> None:
        """There is no other one."""


def main() -> int:
    """Compile, at the lowest priority, and end."""
    bundle, digest, programs, sizes, seconds = sys.argv[1:]
    # Whatever becomes of the process that waits for this one.
    end_with_parent()
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    os.nice(_LOWEST)
    if sys.platform == "linux":
        # Whoever answers need not wait for the end of this one's turn.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # The GPU is another process's, and compiles for itself.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Importing is work too, and comes after the priority.
    from cryptoml_serving.contract.bundle import load_bundle  # noqa: PLC0415
    from cryptoml_serving.contract.compilation import use_compilation_cache  # noqa: PLC0415

    use_compilation_cache(Path(programs))
    loaded = load_bundle(Path(bundle), expected_digest=digest)
    import jax  # noqa: PLC0415 - reads the environment

    loaded.warm(map(int, sizes.split(",")), _Alone((jax.devices("cpu")[0],)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
