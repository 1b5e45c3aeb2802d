"""From a file to bars: what its format defines and other rows prove is used, the rest is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from cryptoml_assets.prices.bars import KEY, SCHEMA, Span
from cryptoml_assets.prices.importer.columns import FIGURES
from cryptoml_assets.prices.importer.files import Form, Recording
from cryptoml_assets.prices.importer.identity import Identity
from cryptoml_assets.prices.importer.notes import Answers, Notes, refuse_rows
from cryptoml_assets.prices.importer.rows import Rows, read_rows
from cryptoml_assets.prices.importer.stamps import check_timeframe, opening_offset
from cryptoml_assets.prices.resample import bar_length

#: Stored bars of a venue and symbol that open in a span.
Stored = Callable[[Identity, Span], pl.DataFrame]
_ASK_LAST = ("is the last bar complete, or was it still forming?", "--last keep|drop")


@dataclass(frozen=True)
class Scene:
    """What bars are imported into.

    Attributes:
        timeframe: that of the stored bars.
        source: the world.
        now: the present.
        start: first day of the partitions.
        stored: reads stored bars.
    """

    timeframe: str
    source: str
    now: datetime
    start: date
    stored: Stored

    @property
    def bar(self) -> timedelta:
        """Length of a bar."""
        return bar_length(self.timeframe)


@dataclass(frozen=True)
class Shaped:
    """Bars of one file.

    Attributes:
        bars: rows of ``raw_prices``, sorted, each once.
        rows: rows of the file.
        stored: stored bars of the same series around them.
    """

    bars: pl.DataFrame
    rows: int
    stored: pl.DataFrame


def shape(
    recording: Recording, identity: Identity, answers: Answers, scene: Scene, notes: Notes
) -> Shaped | None:
    """The bars of ``recording``, or none while ``notes`` holds questions.

    Raises:
        RecordingError: the file holds rows that are no bars, or contradicts itself or an answer.
    """
    rows = read_rows(recording, identity.base, answers, notes)
    check_timeframe(recording, rows, scene.timeframe, notes)
    _note_order(rows.frame, notes)
    once = Rows(_once(rows.frame, notes), rows.stamp, rows.why, rows.zoned)
    stored = _around(once, identity, scene)
    offset = opening_offset(once, answers, scene.timeframe, stored, notes)
    if offset is None or notes.questions:
        if recording.form is Form.PLAIN and answers.last is None:
            notes.ask(*_ASK_LAST)
        return None
    opens = once.frame.with_columns((pl.col("time") + offset).alias("open_time"))
    opens = _without_forming(
        opens.sort("open_time"),
        stored,
        recording=recording,
        answers=answers,
        scene=scene,
        notes=notes,
    )
    if notes.questions:
        return None
    bars = _without_early(_bars(opens, identity, scene), scene, notes)
    return Shaped(bars, rows.frame.height, stored)


def _note_order(frame: pl.DataFrame, notes: Notes) -> None:
    if not frame["time"].is_sorted():
        falls = frame["time"].is_sorted(descending=True)
        notes.decide("rows sorted", "they are in descending order" if falls else "they are in none")


def _once(frame: pl.DataFrame, notes: Notes) -> pl.DataFrame:
    """Rows of ``frame`` that do not repeat another."""
    once = frame.unique(["time", *FIGURES], keep="first", maintain_order=True)
    refuse_rows(
        once.filter(pl.col("time").is_duplicated()).sort("time", "row").drop("other"),
        "the same bar with different figures",
    )
    if repeated := frame.height - once.height:
        notes.decide(f"{repeated} rows left out", "each repeats another row")
    return once


def _around(rows: Rows, identity: Identity, scene: Scene) -> pl.DataFrame:
    """Stored bars that the rows may be, whether their times open or close bars."""
    if not rows.zoned or identity.symbol is None:
        return pl.DataFrame(schema=SCHEMA)
    times = rows.frame["time"].sort()
    return scene.stored(identity, (times[0] - scene.bar, times[-1] + scene.bar))


def _without_forming(
    opens: pl.DataFrame,
    stored: pl.DataFrame,
    *,
    recording: Recording,
    answers: Answers,
    scene: Scene,
    notes: Notes,
) -> pl.DataFrame:
    """``opens`` without a last bar that is not complete, or with a question about it.

    Raises:
        RecordingError: bars that close in the future, or one is to be kept that does.
    """
    last = opens.tail(1)
    closes = last["open_time"][0] + scene.bar
    at = f"the bar that closes at {closes:%Y-%m-%d %H:%M}"
    future = opens.filter(pl.col("open_time") + scene.bar > scene.now).drop("time", "other")
    if future.height > 1 or (future.height and answers.last == "keep"):
        refuse_rows(future, f"bars that close in the future of {scene.now:%Y-%m-%d %H:%M:%S}")
    known = last.join(stored, on="open_time", how="inner", suffix="_stored")
    same = known.filter(pl.all_horizontal(pl.col(f) == pl.col(f"{f}_stored") for f in FIGURES))
    for drop, what in (
        (answers.last == "drop", "--last drop"),
        (future.height == 1, f"it has not closed at {scene.now:%Y-%m-%d %H:%M:%S}"),
        (_written_before(opens, recording, scene), "the file was last written before that"),
    ):
        if drop:
            notes.decide(f"{at} dropped", what)
            return opens.head(-1)
    if answers.last == "keep":
        notes.decide(f"{at} kept", "--last keep")
    elif recording.form is not Form.PLAIN:
        notes.decide(f"{at} kept", f"{recording.form} writes complete bars")
    elif same.height:
        notes.decide(f"{at} kept", "the stored one is equal")
    elif known.height:
        notes.decide(f"{at} dropped", "the stored one is another")
        return opens.head(-1)
    else:
        notes.ask(*_ASK_LAST)
    return opens


def _written_before(opens: pl.DataFrame, recording: Recording, scene: Scene) -> bool:
    """Whether the file was written while its last bar, and no other, was forming."""
    closes = opens["open_time"].tail(2) + scene.bar
    later = (closes > recording.modified).to_list()
    # Where more bars close after it, it is not the time at which the rows were written.
    return later[-1] and not any(later[:-1])


def _without_early(bars: pl.DataFrame, scene: Scene, notes: Notes) -> pl.DataFrame:
    kept = bars.filter(pl.col("date") >= scene.start)
    if early := bars.height - kept.height:
        notes.decide(
            f"{early} bars left out",
            f"they open before CRYPTOML_START={scene.start}, the first partition",
        )
    return kept


def _bars(opens: pl.DataFrame, identity: Identity, scene: Scene) -> pl.DataFrame:
    columns = {
        "venue": pl.lit(identity.venue),
        "symbol": pl.lit(identity.symbol),
        "timeframe": pl.lit(scene.timeframe),
        "close_time": pl.col("open_time") + scene.bar,
        "source": pl.lit(scene.source),
        "date": pl.col("open_time").dt.date(),
    }
    rows = opens.select(columns.get(name, pl.col(name)).alias(name) for name in SCHEMA)
    return rows.cast(SCHEMA).sort(KEY)
