"""What an image says of the code it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROGRAM = "from cryptoml_assets.models.provenance import git_commit; print(git_commit())"


def commit(folder: Path) -> str:
    """What a run records whose code lies in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=folder
    )
    return done.stdout


def test_a_run_in_an_image_records_the_commit_it_was_built_from(tmp_path: Path) -> None:
    package = tmp_path / "cryptoml_assets" / "models"
    package.mkdir(parents=True)
    for file in ("__init__.py", "models/__init__.py", "models/provenance.py"):
        source = REPOSITORY / "cryptoml_assets" / file
        (tmp_path / "cryptoml_assets" / file).write_text(source.read_text())
    assert commit(tmp_path) == "unknown\n"
    (tmp_path / "COMMIT").write_text("0123abc\n")
    assert commit(tmp_path) == "0123abc\n"


def test_a_checkout_has_no_such_file() -> None:
    # It would be believed in place of git.
    assert not (REPOSITORY / "COMMIT").exists()
