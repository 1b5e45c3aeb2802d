"""Figures as asset metadata."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float = 8.0, height: float = 4.0) -> Figure:
    """An empty figure of ``width`` by ``height`` inches that needs no display."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow to import, needed by runs only)

    # A figure made without pyplot draws with Agg and is not kept alive by any global state.
    return Figure(figsize=(width, height), layout="constrained")


def figure_metadata(figure: Figure) -> dg.MarkdownMetadataValue:
    """``figure`` as a picture that the Dagster UI shows in an asset's metadata."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")
