"""Files of bars as tables of their own columns, and what their format says of them."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import polars as pl

from cryptoml_assets.errors import RecordingError
from cryptoml_assets.prices.importer.columns import FIGURES, is_figure
from cryptoml_assets.prices.resample import TIMEFRAMES

#: Endings of files that can be read.
SUFFIXES = (".feather", ".parquet", ".csv", ".zip")
#: Names of the columns of Binance Vision, which most of its files do not carry.
VISION_COLUMNS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
_FREQTRADE_NAME = re.compile(r"(?P<base>[A-Z0-9]+)_(?P<quote>[A-Z0-9]+)-(?P<timeframe>\d+[mhdwM])")
_FREQTRADE_COLUMNS = ("date", *FIGURES)
_VISION_NAME = re.compile(
    r"(?P<ticker>[A-Z0-9]+)-(?P<timeframe>\d+(?:mo|[smhdw]))-\d{4}-\d{2}(?:-\d{2})?"
)
_TIMEFRAME = re.compile(r"(?<![A-Za-z0-9])\d+[mhd](?![A-Za-z0-9])")
#: Lines before the one with the names that a CSV may have.
_MOST_PREFACE = 5


class Form(StrEnum):
    """Who wrote a file, and by that what its rows mean."""

    FREQTRADE = "freqtrade"
    VISION = "Binance Vision"
    PLAIN = "plain"


@dataclass(frozen=True)
class Recording:
    """A file as it is.

    Attributes:
        name: file name.
        digest: SHA-256 of the file.
        modified: when the file was last written.
        form: who wrote it.
        pair: BASE/QUOTE, where the form's file names say it.
        ticker: symbol without its slash, where the form's file names say that.
        timeframes: lengths of bars that the file name mentions.
        table: the file's own columns; text where the file is text.
    """

    name: str
    digest: str
    modified: datetime
    form: Form
    pair: str | None
    ticker: str | None
    timeframes: tuple[str, ...]
    table: pl.DataFrame


def recordings_at(path: Path) -> tuple[list[Path], list[str]]:
    """The files to import at ``path``, a file or a folder, and the names of others left out.

    Raises:
        RecordingError: no such file, one that cannot be read, or a folder without any that can.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise RecordingError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
        return [path], []
    if not path.is_dir():
        raise RecordingError(f"{path}: no such file or folder")
    entries = sorted(path.iterdir())
    files = [e for e in entries if e.is_file() and e.suffix.lower() in SUFFIXES]
    if not files:
        raise RecordingError(f"{path}: holds no file that ends in {', '.join(SUFFIXES)}")
    return files, [entry.name for entry in entries if entry not in files]


def read_recording(path: Path) -> Recording:
    """The file at ``path``.

    Raises:
        RecordingError: it cannot be read as what its name says it is.
    """
    content = path.read_bytes()
    table = _table(path, content)
    form, named = _form(path, table)
    mentioned = (named["timeframe"],) if named else tuple(_TIMEFRAME.findall(path.stem))
    return Recording(
        name=path.name,
        digest=hashlib.sha256(content).hexdigest(),
        modified=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        form=form,
        pair=f"{named['base']}/{named['quote']}" if "base" in named else None,
        ticker=named.get("ticker"),
        timeframes=mentioned if named else tuple(t for t in mentioned if t in TIMEFRAMES),
        table=table,
    )


def _form(path: Path, table: pl.DataFrame) -> tuple[Form, dict[str, str]]:
    """The form of a file, and what its name says in it."""
    freqtrade = _FREQTRADE_NAME.fullmatch(path.stem)
    if (
        freqtrade
        and path.suffix in {".feather", ".parquet"}
        and set(_FREQTRADE_COLUMNS) <= set(table.columns)
    ):
        return Form.FREQTRADE, freqtrade.groupdict()
    if tuple(table.columns) == VISION_COLUMNS:
        vision = _VISION_NAME.fullmatch(path.stem)
        return Form.VISION, vision.groupdict() if vision else {}
    return Form.PLAIN, {}


def _table(path: Path, content: bytes) -> pl.DataFrame:
    suffix = path.suffix.lower()
    try:
        if suffix == ".feather":
            return pl.read_ipc(io.BytesIO(content))
        if suffix == ".parquet":
            return pl.read_parquet(io.BytesIO(content))
        return _csv(_unzipped(content) if suffix == ".zip" else content)
    except (pl.exceptions.PolarsError, zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise RecordingError(f"not a {suffix} file that can be read: {error}") from error


def _unzipped(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
        if len(names) != 1:
            raise RecordingError(f"expected one .csv file in the archive, found {len(names)}")
        return archive.read(names[0])


def _csv(content: bytes) -> pl.DataFrame:
    """A CSV as columns of text, named by its own header or by the one Binance Vision leaves out."""
    head = content[:65536].decode("utf-8-sig", errors="replace").splitlines()[: _MOST_PREFACE + 1]
    if not any(line.strip() for line in head):
        raise RecordingError("the file is empty")
    separator = max(",;\t", key=lambda mark: max(line.count(mark) for line in head))
    lines = [[cell.strip().strip('"') for cell in line.split(separator)] for line in head]
    if all(map(_is_number, filter(None, lines[0]))):
        if len(lines[0]) != len(VISION_COLUMNS):
            raise RecordingError(
                f"no header, and {len(lines[0])} columns: expected a line of names, or the "
                f"{len(VISION_COLUMNS)} columns of Binance Vision"
            )
        return _rows(content, separator, 0, list(VISION_COLUMNS))
    for number, cells in enumerate(lines):
        if {"open", "high", "low", "close"} <= {f for f in FIGURES if is_figure(cells, f)}:
            names = list(_distinct(cells))
            if tuple(names) != VISION_COLUMNS and _is_vision(names):
                names = list(VISION_COLUMNS)
            return _rows(content, separator, number + 1, names)
    raise RecordingError(
        f"no line with names of columns among the first {len(lines)}: expected a time, "
        f"{', '.join(FIGURES)}"
    )


def _rows(content: bytes, separator: str, first: int, names: list[str]) -> pl.DataFrame:
    return pl.read_csv(
        content,
        separator=separator,
        has_header=False,
        skip_lines=first,
        new_columns=names,
        infer_schema=False,
    )


def _is_vision(names: list[str]) -> bool:
    """Whether these are Binance Vision's columns under the other names it has for some."""
    alike = [name.lower().replace(" ", "_") for name in names]
    return len(alike) == len(VISION_COLUMNS) and alike[:7] == list(VISION_COLUMNS[:7])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _distinct(names: list[str]) -> Iterator[str]:
    """``names``, each of those seen before or empty with its position."""
    seen: set[str] = set()
    for position, name in enumerate(names):
        unique = f"{name}.{position}" if name in seen or not name else name
        seen.add(name)
        yield unique
