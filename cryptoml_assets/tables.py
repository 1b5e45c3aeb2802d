"""Tables as asset metadata: what a column means, and rows for a person to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg


def described_columns(
    types: Mapping[str, Any], meanings: Mapping[str, str], key: Sequence[str] = ()
) -> dict[str, dg.TableSchema]:
    """The asset metadata that shows every column's type and meaning in the Dagster UI.

    Args:
        types: type of each column, in order.
        meanings: what each column of ``types`` holds; more is ignored.
        key: the columns that together are unique, where that is worth showing.
    """
    columns = [
        dg.TableColumn(name, type=str(kind), description=meanings[name])
        for name, kind in types.items()
    ]
    rules = [f"unique: {', '.join(key)}"] if key else []
    schema = dg.TableSchema(columns, constraints=dg.TableConstraints(other=rules))
    return {"dagster/column_schema": schema}


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats in six significant digits, absent values as a dash."""
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
