"""The code location as Dagster's own tools see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments", [("check", "defs"), ("list", "defs"), ("check", "toml")])
def test_dg_is_content(arguments: tuple[str, ...]) -> None:
    tools = Path(sys.executable).parent
    done = subprocess.run(
        [str(tools / "dg"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"},
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "warning" not in told.lower()
