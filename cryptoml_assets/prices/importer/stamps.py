"""How long the bars of a file are, and when they open."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from cryptoml_assets.errors import OtherTimeframeError, RecordingError
from cryptoml_assets.prices.importer.columns import FIGURES
from cryptoml_assets.prices.importer.files import Form, Recording
from cryptoml_assets.prices.importer.notes import Answers, Notes, refuse_rows
from cryptoml_assets.prices.importer.rows import Rows, Stamp
from cryptoml_assets.prices.resample import bar_length, multiples
from cryptoml_serving.contract.settings import format_duration

#: How far before the end of its bar a time may lie that means the end.
_LAST_INSTANTS = (timedelta(microseconds=1), timedelta(milliseconds=1), timedelta(seconds=1))
#: Bars that must agree with stored ones before they prove anything.
_PROOF = 2
#: So many bars may all lie several bars apart by chance.
_FEW = 8
_MICROSECOND = timedelta(microseconds=1)


def check_timeframe(recording: Recording, rows: Rows, timeframe: str, notes: Notes) -> None:
    """Hold the file's name, columns and rows against the ``timeframe`` of the stored bars.

    Raises:
        OtherTimeframeError: they are of another.
        RecordingError: they contradict each other, or do not say.
    """
    bar = bar_length(timeframe)
    names = recording.timeframes
    if recording.form is not Form.PLAIN and names and timeframe not in names:
        raise _other(names[0], timeframe)
    spacing = _spacing(rows.frame)
    spans = rows.frame.filter(pl.col("other").is_not_null())
    if spacing is None and not names and spans.is_empty():
        raise RecordingError(
            "one bar does not tell how long it is: name the file like BTC_USDT-5m.csv"
        )
    if spacing is not None and spacing % bar:
        _refuse_strays(rows.frame, bar, timeframe)
        raise _other(format_duration(spacing), timeframe)
    sparse = spacing is not None and spacing != bar and spans.is_empty()
    # Of few bars, all may happen to lie several bars apart.
    if sparse and (timeframe not in names or rows.frame["time"].n_unique() > _FEW):
        raise _other(format_duration(spacing or bar), timeframe)
    if names and timeframe not in names:
        raise RecordingError(f"the name says {names[0]}, but its rows are {timeframe} bars")
    length = pl.col("other") - pl.col("time")
    fits = length.is_in([bar, *(bar - early for early in _LAST_INSTANTS)])
    refuse_rows(spans.filter(~fits).select("row", "time", "other"), f"no bar of {timeframe}")
    ways = [f"the name says {timeframe}"] if names else []
    ways += [f"rows lie {format_duration(spacing)} apart"] if spacing else []
    ways += ["opening and closing times"] if spans.height else []
    notes.decide(f"timeframe {timeframe}", ", ".join(ways))


def opening_offset(
    rows: Rows, answers: Answers, timeframe: str, stored: pl.DataFrame, notes: Notes
) -> timedelta | None:
    """What to add to each time to get the opening of its bar; none where it has to be asked.

    Args:
        rows: the file's rows, each once.
        answers: what the file's owner says.
        timeframe: length of the bars.
        stored: stored bars of the same series, as far as they overlap.
        notes: gets the decision or the question.

    Raises:
        RecordingError: times off the grid, or an answer or a format that other facts contradict.
    """
    bar = bar_length(timeframe)
    early = _early(rows.frame, bar) if rows.zoned else timedelta(0)
    stamp, why = rows.stamp, rows.why
    if early:
        if stamp == "open":
            raise RecordingError(f"times lie {early} before the grid, but {why}: they open bars")
        stamp, why = "close", f"each lies {format_duration(early)} before the end of a bar"
    proved = _proved(rows.frame, bar, stored) if rows.zoned and not early else None
    for claim, by in ((stamp, why), (answers.stamp, f"--stamp {answers.stamp}")):
        if proved is not None and claim not in (None, proved):
            raise RecordingError(
                f"{by}, but the figures are those of stored bars only if times {proved} them"
            )
    if stamp is None and proved is not None:
        stamp, why = proved, "so the figures are those of the bars already stored"
    if stamp is not None and answers.stamp not in (None, stamp):
        raise RecordingError(f"--stamp {answers.stamp}: {why}: times {stamp} bars")
    if stamp is None:
        if answers.stamp is None:
            notes.ask("do times open or close their bars?", "--stamp open|close")
            return None
        stamp, why = answers.stamp, "--stamp"
    notes.decide(f"times {stamp} bars", why)
    return timedelta(0) if stamp == "open" else early - bar


def _refuse_strays(frame: pl.DataFrame, bar: timedelta, timeframe: str) -> None:
    """Refuse rows that lie between those of ``timeframe`` which most of ``frame`` are."""
    phase = pl.col("time").dt.epoch("us") % (bar // _MICROSECOND)
    most = frame.select(phase).to_series().value_counts(sort=True).row(0)
    if 2 * most[1] > frame.height:
        refuse_rows(
            frame.filter(phase != most[0]).select("row", "time"),
            f"off the {timeframe} grid of the other rows",
        )


def _spacing(frame: pl.DataFrame) -> timedelta | None:
    """The greatest length that all distances between times are multiples of."""
    gaps = frame["time"].unique().sort().dt.epoch("us").diff().drop_nulls().to_numpy()
    return int(np.gcd.reduce(gaps)) * _MICROSECOND if len(gaps) else None


def _early(frame: pl.DataFrame, bar: timedelta) -> timedelta:
    """By how much all times lie before the grid of ``bar``: not at all, or one last instant."""
    for early in (timedelta(0), *_LAST_INSTANTS):
        off = (pl.col("time").dt.epoch("us") + early // _MICROSECOND) % (bar // _MICROSECOND) != 0
        odd = frame.filter(off)
        if odd.is_empty():
            return early
    on_grid = pl.col("time").dt.epoch("us") % (bar // _MICROSECOND) == 0
    refuse_rows(frame.filter(~on_grid).select("row", "time"), f"off the grid of {bar} bars")
    return timedelta(0)


def _proved(frame: pl.DataFrame, bar: timedelta, stored: pl.DataFrame) -> Stamp | None:
    """What the stored bars prove: one reading gives exactly their figures, the other does not."""
    agrees: dict[Stamp, bool] = {}
    for stamp, offset in (("open", timedelta(0)), ("close", -bar)):
        read = frame.with_columns((pl.col("time") + offset).alias("open_time"))
        both = read.join(stored, on="open_time", suffix="_stored")
        same = pl.all_horizontal(pl.col(f) == pl.col(f"{f}_stored") for f in FIGURES)
        equal = both.filter(same).height
        agrees[stamp] = both.height >= _PROOF and equal == both.height  # type: ignore[index]
    if agrees["open"] == agrees["close"]:
        return None
    return "open" if agrees["open"] else "close"


def _other(found: str, timeframe: str) -> OtherTimeframeError:
    longer = ", ".join(multiples(timeframe)[1:])
    return OtherTimeframeError(
        f"holds {found} bars: expected {timeframe} ones (CRYPTOML_TIMEFRAME); "
        f"{longer or 'no longer'} bars are made of those"
    )
