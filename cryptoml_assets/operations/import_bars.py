"""Bars that others recorded, into ``raw_prices``: examined first, then stored file by file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
from rich.console import Console
from rich.table import Table

from cryptoml_assets.errors import OtherTimeframeError, RecordingError
from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.prices.bars import SCHEMA, Span, check_one_source
from cryptoml_assets.prices.importer.files import Recording, read_recording, recordings_at
from cryptoml_assets.prices.importer.identity import Identity, identify
from cryptoml_assets.prices.importer.notes import Answers, Notes
from cryptoml_assets.prices.importer.shape import Scene, shape
from cryptoml_assets.prices.importer.weigh import Weighed, weigh
from cryptoml_assets.prices.ingest import store_bars
from cryptoml_assets.prices.ledger import received
from cryptoml_assets.prices.resample import scan_ledger
from cryptoml_assets.prices.tally import BARS_TABLE
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_assets.versions import version_events
from cryptoml_serving.contract.settings import SettingsError, World

_KEY = dg.AssetKey([BARS_TABLE])

#: For each day, how many bars it got from which files.
Told = dict[date, dict[str, int]]


@dataclass(frozen=True)
class Imported:
    """What one file gave.

    Attributes:
        recording: the file.
        identity: its venue and symbol.
        rows: its rows.
        bars: its bars.
        weighed: those bars against the stored ones.
        notes: what was decided about it.
    """

    recording: Recording
    identity: Identity
    rows: int
    bars: pl.DataFrame
    weighed: Weighed
    notes: Notes


@dataclass
class _Line:
    """A row of the table at the end."""

    name: str
    cells: tuple[str, ...]
    said: list[str] = field(default_factory=list)


def import_bars(configured: Settings, path: Path, answers: Answers, *, dry_run: bool) -> None:
    """Put the bars of the file or folder ``path`` into ``raw_prices``, where they are not yet.

    Every file is examined before any is stored, and each is stored whole. A bar that is stored
    already stays as it is. Files of another timeframe in a folder are left out and named.

    Args:
        configured: names lake, world, timeframe, venue and symbols.
        path: a file, or a folder whose files are taken.
        answers: what the files do not say.
        dry_run: only print what would be done.

    Raises:
        SettingsError: the world is simulated: recorded prices do not go among made-up ones.
        RecordingError: a file that cannot be used, or all questions that are open; nothing is
            stored then.
        LakeError: the lake holds bars of another world.
    """
    if configured.world is World.SIMULATED:
        raise SettingsError(
            "CRYPTOML_WORLD=simulated: its prices are made up, and recorded ones do not go among "
            "them; expected replay or live"
        )
    files, skipped = recordings_at(path)
    lake = Lake(configured.lake_uri)
    files, others = _examine_all(configured, lake, files, answers, alone=path.is_file())
    lines = [_Line(name, ("left out: not a file of bars",)) for name in skipped] + others
    told: Told = {}
    try:
        for file in files:
            imported = examine(configured, lake, file, answers)
            if not dry_run:
                store(configured, lake, imported, told)
            lines.append(_line(imported))
    finally:
        tell(configured, lake, told)
    _print(lines, dry_run=dry_run)


def examine(configured: Settings, lake: Lake, path: Path, answers: Answers) -> Imported:
    """What importing the file at ``path`` would do; stores nothing.

    Raises:
        RecordingError: it cannot be used, or not without the answers it asks for.
        LakeError: the lake holds bars of another world.
    """
    notes = Notes()
    recording = read_recording(path)
    identity = identify(recording, answers, configured.venue, configured.symbols, notes)
    scene = Scene(
        timeframe=configured.timeframe,
        source=configured.world.value,
        now=configured.clock(),
        start=configured.start,
        stored=lambda who, span: _stored(configured, lake, who, span),
    )
    shaped = shape(recording, identity, answers, scene, notes)
    if shaped is None:
        raise RecordingError("; ".join(notes.questions))
    days = shaped.bars["date"].unique().to_list()
    ledger = scan_ledger(lake, days).collect()
    weighed = weigh(shaped, ledger, configured.bar, configured.outlier_iqrs)
    return Imported(recording, identity, shaped.rows, shaped.bars, weighed, notes)


def store(configured: Settings, lake: Lake, imported: Imported, told: Told) -> None:
    """Store the new bars of ``imported``, and add to ``told`` what its days got from it."""
    new, recording = imported.weighed.new, imported.recording
    if new.is_empty():
        return
    file = f"{recording.name} sha256:{recording.digest}"
    settled_until = configured.clock() - configured.revision_window
    ledger = received(new, settled_until=settled_until, origin=f"import: {file}")
    change = store_bars(lake, new, ledger)
    counts = dict(new.group_by("date").len().iter_rows())
    for day in change.days_changed:
        told.setdefault(day, {})[f"{imported.identity.symbol}: {file}"] = counts[day]


def tell(configured: Settings, lake: Lake, told: Told) -> None:
    """Report each day that got bars to Dagster, with its files and its new data version."""
    if not told:
        return
    days = {
        day: {"imported_bars": sum(files.values()), "imported_from": "; ".join(files)}
        for day, files in told.items()
    }
    prepare_dagster_home(configured.home_path)
    with dg.DagsterInstance.get() as instance:
        for event in version_events(lake, _KEY, days):
            instance.report_runless_asset_event(event)


def _examine_all(
    configured: Settings, lake: Lake, files: list[Path], answers: Answers, *, alone: bool
) -> tuple[list[Path], list[_Line]]:
    """The files that can be imported, and those of another timeframe, of which one is no error.

    Raises:
        RecordingError: everything that is wrong with any of the files, or has to be asked.
    """
    usable, others, problems = [], [], []
    for file in files:
        try:
            examine(configured, lake, file, answers)
            usable.append(file)
        except OtherTimeframeError as error:
            if alone:
                raise RecordingError(f"{file.name}: {error}") from error
            others.append(_Line(file.name, (f"left out: {error}",)))
        except RecordingError as error:
            problems.append(f"{file.name}: {error}")
    if problems:
        raise RecordingError("\n".join([*problems, "Nothing was stored."]))
    return usable, others


def _stored(configured: Settings, lake: Lake, identity: Identity, span: Span) -> pl.DataFrame:
    """Stored bars of ``identity`` that open in ``span``, both ends included."""
    if not lake.exists(BARS_TABLE):
        return pl.DataFrame(schema=SCHEMA)
    first, count = span[0].date(), (span[1].date() - span[0].date()).days
    bars = lake.scan(BARS_TABLE, [first + timedelta(days=day) for day in range(count + 1)])
    check_one_source(
        bars.select("symbol", "date", "source").unique("source").collect(), configured.world
    )
    return bars.filter(
        pl.col("venue") == identity.venue,
        pl.col("symbol") == identity.symbol,
        pl.col("timeframe") == configured.timeframe,
        pl.col("open_time").is_between(*span),
    ).collect()


def _line(imported: Imported) -> _Line:
    bars, weighed = imported.bars, imported.weighed
    ends = bars["open_time"].gather([0, -1]).to_list() if bars.height else []
    cells = (
        str(imported.identity.symbol),
        *(f"{count:,}" for count in (imported.rows, weighed.new.height, weighed.equal)),
        *(f"{count:,}" for count in (weighed.other.height, weighed.absent)),
        *(f"{end:%Y-%m-%d}" for end in ends),
    )
    said = [*imported.notes.decisions, *_remarks(weighed)]
    return _Line(imported.recording.name, cells, said)


def _remarks(weighed: Weighed) -> Iterator[str]:
    if weighed.other.height:
        yield (
            f"{weighed.other.height} bars are stored with other figures and stay so: "
            f"{weighed.differences}"
        )
    if weighed.filled:
        yield f"{weighed.filled} bars fill slots of which the venue said that it has none"
    if weighed.absent:
        yield (
            f"{weighed.absent} slots have no row, at most {weighed.longest} in a row: "
            "the next run asks the venue for them"
        )
    if weighed.outliers.height:
        row = weighed.outliers.row(0, named=True)
        yield (
            f"{weighed.outliers['bars'].sum()} returns are outliers, the furthest "
            f"{row['log_return']:.4f} at {row['open_time']:%Y-%m-%d %H:%M}"
        )


def _print(lines: list[_Line], *, dry_run: bool) -> None:
    console = Console(highlight=False)
    heads = ("symbol", "rows", "new", "equal", "other", "absent", "first", "last")
    table = Table("file", *heads, show_edge=False)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.no_wrap = True
    for line in lines:
        console.print(line.name, style="bold", soft_wrap=True)
        for said in line.said or line.cells:
            console.print(f"  {said}", soft_wrap=True, markup=False)
        if line.said:
            table.add_row(line.name, *line.cells)
    if table.row_count:
        console.print(table)
    console.print("nothing was stored: --dry-run" if dry_run else "stored what is new")
