"""Runs a notebook as a person would: in a kernel of its own, over a home that exists."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def read(notebook: Path) -> Any:
    return nbformat.read(notebook, as_version=4)


def execute(notebook: Path, scratch: Path, **settings: str) -> Any:
    """The notebook with its outputs, run by this very Python from the repository's folder.

    Args:
        notebook: which.
        scratch: where Jupyter and IPython keep what they keep of a person.
        settings: variables it sees, and no other ``CRYPTOML_*``.
    """
    from nbclient import NotebookClient  # noqa: PLC0415 - pulls in the whole of Jupyter's client

    content = read(notebook)
    content.cells.append(nbformat.v4.new_code_cell("import sys; sys.executable"))
    # The kernel shows figures by a backend of its own.
    other = ("CRYPTOML_", "MPLBACKEND")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(other)}
    own = {name: str(scratch) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    environment = {**kept, **own, "JUPYTER_PLATFORM_DIRS": "1", **settings}
    with patch.dict(os.environ, environment, clear=True):
        client = NotebookClient(
            content,
            kernel_name="python3",
            timeout=120,
            resources={"metadata": {"path": str(REPOSITORY)}},
        )
        client.execute()
    assert shown(content)[-1] == repr(sys.executable)
    return content


def shown(content: Any) -> list[str]:
    """What each cell with a result shows as text."""
    return [
        output.data["text/plain"]
        for cell in content.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]


def complaints(content: Any) -> list[str]:
    """What cells wrote to standard error, warnings among it."""
    return [
        output.text
        for cell in content.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
