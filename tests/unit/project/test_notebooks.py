"""Notebooks as git keeps them; what they do is tested over the demo's world, in ``test_demo``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import notebooks


def test_there_are_notebooks() -> None:
    assert notebooks.NOTEBOOKS


@pytest.mark.parametrize("notebook", notebooks.NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_a_notebook_is_kept_without_what_it_showed_somebody(notebook: Path) -> None:
    cells = [cell for cell in notebooks.read(notebook).cells if cell.cell_type == "code"]
    assert cells
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count] == []
    assert [cell.source for cell in cells if cell.metadata] == []
