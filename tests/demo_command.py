"""`cryptoml demo`, small, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cryptoml_assets.operations.demo import ANSWER_FIELDS
from cryptoml_assets.operations.processes import free_port

REPOSITORY = Path(__file__).parents[1]
#: The gate errs about the small world of some hour or other; about this one's it does not.
HOUR = "2026-11-20T12:00:00+00:00"
SMALL = {
    "CRYPTOML_DAYS": "20",
    "CRYPTOML_ENSEMBLE_SIZE": "2",
    "CRYPTOML_SANDBOX_SIGNAL": "1.5",
    "CRYPTOML_SANDBOX_BLOCK_SECONDS": "1800",
}


def demo(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CRYPTOML_")}
    return subprocess.run(
        [sys.executable, "-m", "cryptoml_assets.cli", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**kept, **SMALL, **_own_ports(), "CRYPTOML_HOME": str(home), **settings},
    )


def _own_ports() -> dict[str, str]:
    """Demos run beside each other: each asks for ports that the others do not."""
    sandbox, serving = free_port("127.0.0.1"), free_port("127.0.0.1")
    return {
        "CRYPTOML_SANDBOX_URL": f"http://127.0.0.1:{sandbox}",
        "CRYPTOML_SERVING_PORT": str(serving),
    }


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert tuple(answer) == ANSWER_FIELDS
    return dict(answer)
