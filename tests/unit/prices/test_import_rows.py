"""Which rows of a file of bars enter beside what is stored, and which are refused by number."""

from __future__ import annotations

import os
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import OtherTimeframeError, RecordingError
from cryptoml_assets.prices.importer.notes import Answers
from cryptoml_assets.prices.ledger import LEDGER_TABLE, NOTHING_TRADED, missing
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings, settings
from tests.bar_files import (
    ALL_KNOWN,
    BAR,
    COUNT,
    START,
    Write,
    csv,
    freqtrade,
    iso,
    live,
    read,
    rows_of,
    stored,
    truth,
    vision,
)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Settings:
    return live(monkeypatch)


@pytest.mark.parametrize("stamp", ["open", "close"])
def test_stored_bars_prove_what_the_times_of_a_plain_file_are(
    configured: Settings, tmp_path: Path, stamp: str
) -> None:
    lake = stored(configured, truth().head(20))
    file = csv("a.csv", time=pl.col(f"{stamp}_time").dt.epoch("ms"))(truth(), tmp_path)
    imported = read(configured, file, Answers(symbol="BTC/USDT", last="keep"), lake)
    assert_frame_equal(rows_of(imported), truth())
    assert (imported.weighed.equal, imported.weighed.new.height) == (20, COUNT - 20)
    other = {"open": "close", "close": "open"}[stamp]
    wrong = Answers(symbol="BTC/USDT", last="keep", stamp=other)  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match=f"only if times {stamp} them"):
        read(configured, file, wrong, lake)


def test_stored_bars_that_agree_with_neither_prove_nothing(
    configured: Settings, tmp_path: Path
) -> None:
    lake = stored(configured, truth().head(20).with_columns(volume=pl.col("volume") + 1))
    file = csv("a.csv", time=iso())(truth(), tmp_path)
    with pytest.raises(RecordingError, match="--stamp"):
        read(configured, file, Answers(symbol="BTC/USDT", last="keep"), lake)


def test_a_format_is_not_believed_against_stored_bars(configured: Settings, tmp_path: Path) -> None:
    lake = stored(configured, truth())
    shifted = freqtrade(truth().with_columns(pl.col("open_time") + BAR), tmp_path)
    with pytest.raises(RecordingError, match="only if times close them"):
        read(configured, shifted, lake=lake)


def written(file: Path, at: datetime) -> Path:
    os.utime(file, (at.timestamp(), at.timestamp()))
    return file


def test_a_last_bar_that_closes_after_the_file_was_written_is_dropped(
    configured: Settings, tmp_path: Path
) -> None:
    forming = START + COUNT * BAR - timedelta(minutes=2)
    for write in (freqtrade, vision, csv("a.csv", open_time=iso())):
        file = written(write(truth(), tmp_path), forming)
        imported = read(configured, file, Answers(symbol="BTC/USDT"))
        assert_frame_equal(rows_of(imported), truth().head(-1))
        assert any("dropped: the file was last" in said for said in imported.notes.decisions)


def test_an_old_file_time_says_nothing_of_the_last_bar(
    configured: Settings, tmp_path: Path
) -> None:
    file = written(freqtrade(truth(), tmp_path), START)
    assert_frame_equal(rows_of(read(configured, file)), truth())
    file = written(csv("a.csv", open_time=iso())(truth(), tmp_path), START)
    with pytest.raises(RecordingError, match="--last"):
        read(configured, file, Answers(symbol="BTC/USDT"))


def test_the_last_bar_is_dropped_when_asked_for(configured: Settings, tmp_path: Path) -> None:
    for write in (freqtrade, csv("a.csv", open_time=iso())):
        imported = read(
            configured, write(truth(), tmp_path), Answers(symbol="BTC/USDT", last="drop")
        )
        assert_frame_equal(rows_of(imported), truth().head(-1))


def test_a_stored_bar_decides_about_the_last_one(configured: Settings, tmp_path: Path) -> None:
    answers = Answers(symbol="BTC/USDT")
    file = csv("a.csv", open_time=iso())(truth(), tmp_path)
    lake = stored(configured, truth())
    assert_frame_equal(rows_of(read(configured, file, answers, lake)), truth())
    moved = truth().with_columns(volume=pl.col("volume") + 1)
    lake = stored(configured, moved)
    assert_frame_equal(rows_of(read(configured, file, answers, lake)), truth().head(-1))


def test_a_bar_that_closes_in_the_future_never_enters(
    configured: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    almost = START + COUNT * BAR - timedelta(seconds=1)
    monkeypatch.setenv("CRYPTOML_NOW", almost.isoformat())
    settings.cache_clear()
    file = freqtrade(truth(), tmp_path)
    assert_frame_equal(rows_of(read(settings(), file)), truth().head(-1))
    with pytest.raises(RecordingError, match="close in the future of 2024-01-02 01:59:59: row 48"):
        read(settings(), file, Answers(last="keep"))
    monkeypatch.setenv("CRYPTOML_NOW", (almost - 2 * BAR).isoformat())
    settings.cache_clear()
    with pytest.raises(RecordingError, match="future"):
        read(settings(), file)


def test_absent_bars_stay_absent_and_are_counted(configured: Settings, tmp_path: Path) -> None:
    some = truth().filter(~pl.int_range(pl.len()).is_in([3, 4, 5, 9]))
    imported = read(configured, freqtrade(some, tmp_path))
    assert_frame_equal(rows_of(imported), some)
    assert (imported.weighed.absent, imported.weighed.longest) == (4, 3)


def test_bars_without_trades_stay(configured: Settings, tmp_path: Path) -> None:
    calm = truth().with_columns(volume=pl.lit(0.0))
    assert_frame_equal(rows_of(read(configured, freqtrade(calm, tmp_path))), calm)


def test_equal_rows_count_once(configured: Settings, tmp_path: Path) -> None:
    twice = pl.concat([truth(), truth().head(5)])
    imported = read(configured, freqtrade(twice, tmp_path))
    assert_frame_equal(rows_of(imported), truth())
    assert imported.rows == COUNT + 5
    assert "5 rows left out: each repeats another row" in imported.notes.decisions


def changed(row: int, **values: float | None) -> pl.DataFrame:
    at = pl.int_range(pl.len()) == row
    return truth().with_columns(
        pl.when(at).then(pl.lit(value, pl.Float64)).otherwise(name).alias(name)
        for name, value in values.items()
    )


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        (pl.concat([truth(), changed(2, volume=1.0)]), "different figures: row 3 .*; row 51 "),
        (changed(4, close=float("nan")), "no number: row 5 "),
        (changed(4, close=None), "no number: row 5 "),
        (changed(4, high=float("inf")), "no number: row 5 "),
        (changed(4, open=0.0, low=0.0), "not positive: row 5 "),
        (changed(4, low=-1.0), "not positive: row 5 "),
        (changed(4, volume=-0.5), "negative volume: row 5 "),
        (changed(4, high=1.0), "between the other prices: row 5 "),
        (changed(4, low=99999.0), "between the other prices: row 5 "),
        (
            truth().with_columns(
                pl.col("open_time") + pl.duration(seconds=pl.int_range(pl.len()) // 40)
            ),
            "off the 5m grid of the other rows: row 41 .*and 3 more",
        ),
        (truth().clear(), "holds no rows|empty CSV"),
    ],
)
@pytest.mark.parametrize("write", [freqtrade, csv("a.csv", open_time=iso())])
def test_rows_that_are_no_bars_are_refused_by_number(
    configured: Settings, tmp_path: Path, write: Write, bars: pl.DataFrame, expected: str
) -> None:
    with pytest.raises(RecordingError, match=expected):
        read(configured, write(bars, tmp_path), Answers(symbol="BTC/USDT", last="keep"))


def apart(length: timedelta, count: int = COUNT) -> pl.DataFrame:
    return truth(count).with_columns(
        (pl.lit(START) + pl.duration(seconds=length.seconds) * pl.int_range(pl.len())).alias(
            "open_time"
        )
    )


def test_a_few_bars_far_apart_are_believed_to_be_what_their_name_says(
    configured: Settings, tmp_path: Path
) -> None:
    sparse = apart(timedelta(hours=1), 8)
    assert read(configured, freqtrade(sparse, tmp_path)).weighed.absent == 7 * 11
    with pytest.raises(OtherTimeframeError, match="holds 1h bars"):
        read(configured, csv("a.csv", open_time=iso())(sparse, tmp_path), ALL_KNOWN)
    # Both times of each row prove its length.
    sparse = apart(timedelta(minutes=30)).with_columns(close_time=pl.col("open_time") + BAR)
    assert read(configured, vision(sparse, tmp_path)).weighed.new.height == COUNT


def test_another_timeframe_is_refused_by_what_is_accepted(
    configured: Settings, tmp_path: Path
) -> None:
    hourly = apart(timedelta(hours=1))
    for write in (freqtrade, csv("a.csv", open_time=iso())):
        with pytest.raises(OtherTimeframeError, match="1h bars: expected 5m ones"):
            read(configured, write(hourly, tmp_path), ALL_KNOWN)
    renamed = freqtrade(truth(), tmp_path).rename(tmp_path / "BTC_USDT-1h.feather")
    with pytest.raises(OtherTimeframeError, match="holds 1h bars"):
        read(configured, renamed)
    minutely = apart(timedelta(minutes=1))
    with pytest.raises(OtherTimeframeError, match="holds 1m bars"):
        read(configured, csv("BTC-5m.csv", open_time=iso())(minutely, tmp_path), ALL_KNOWN)
    with pytest.raises(RecordingError, match="the name says 1h, but its rows are 5m bars"):
        read(configured, csv("BTC-1h.csv", open_time=iso())(truth(), tmp_path), ALL_KNOWN)


def test_one_bar_needs_a_name_or_two_times(configured: Settings, tmp_path: Path) -> None:
    one = truth(1)
    assert_frame_equal(rows_of(read(configured, freqtrade(one, tmp_path))), one)
    assert_frame_equal(rows_of(read(configured, vision(one, tmp_path))), one)
    with pytest.raises(RecordingError, match="one bar does not tell"):
        read(configured, csv("a.csv", open_time=iso())(one, tmp_path), ALL_KNOWN)


def test_times_that_do_not_span_a_bar_are_refused(configured: Settings, tmp_path: Path) -> None:
    file = csv("a.csv", open_time=iso(), close_time=iso(2 * BAR))(truth(), tmp_path)
    with pytest.raises(RecordingError, match="no bar of 5m: row 1 "):
        read(configured, file, ALL_KNOWN)


def test_what_is_stored_with_other_figures_stays_and_is_shown(
    configured: Settings, tmp_path: Path
) -> None:
    half = truth().with_columns(
        volume=pl.when(pl.int_range(pl.len()) == 3).then(5.0).otherwise("volume")
    )
    weighed = read(configured, freqtrade(truth(), tmp_path), lake=stored(configured, half)).weighed
    assert (weighed.new.height, weighed.equal, weighed.other.height) == (0, COUNT - 1, 1)
    assert "2024-01-01 22:15 volume " in weighed.differences
    assert ", stored 5.0" in weighed.differences


def test_bars_where_the_venue_has_none_are_counted(configured: Settings, tmp_path: Path) -> None:
    lake = Lake(configured.lake_uri)
    gap = missing(
        [(START + 2 * BAR, START + 4 * BAR)],
        venue="binance",
        symbol="BTC/USDT",
        timeframe="5m",
        bar=BAR,
        cause=NOTHING_TRADED,
        settled_until=START + 99 * BAR,
        source="live",
    )
    lake.replace_days(LEDGER_TABLE, gap, [START.date()])
    assert read(configured, freqtrade(truth(), tmp_path), lake=lake).weighed.filled == 2


def test_bars_before_the_first_partition_are_left_out(
    configured: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTOML_START", "2024-01-02")
    settings.cache_clear()
    imported = read(settings(), freqtrade(truth(), tmp_path))
    assert_frame_equal(rows_of(imported), truth().filter(pl.col("date") > START.date()))
    assert any("CRYPTOML_START=2024-01-02" in said for said in imported.notes.decisions)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "empty"),
        ("a.csv", "1704067200000,1,2,0.5,1,3\n", "no header, and 6 columns"),
        ("a.csv", "when,what\n1,2\n", "no line with names"),
        ("a.csv", "date,open,high,low,close\n2024-01-01T00:00Z,1,2,1,1\n", "no column for volume"),
        ("a.csv", "open,high,low,close,volume\n1,2,1,1,1\n", "no column for a time"),
        ("a.csv", "date,open,high,low,close,volume\n01/02/2024,1,2,1,1,1\n", "no time .*: row 1"),
        ("a.csv", "ts,open,high,low,close,volume\n17,1,2,1,1,1\n", "no time between 2009 and 2100"),
        (
            "a.csv",
            "ts,o,h,l,c,v\n2024-01-01T00:00Z,1,2,1,1,1\n2024-01-01 00:05,1,2,1,1,1\n",
            "some times have a zone",
        ),
        ("a.csv", "ts,open,Open,high,low,close,volume\n1704067200,1,9,2,1,1,1\n", "different fig"),
        (
            "a.csv",
            "symbol,ts,open,high,low,close,volume\nA/B,1704067200,1,2,1,1,1\nC/D,1704067500,1,2,1,1,1\n",
            "expected one symbol a file",
        ),
        (
            "a.csv",
            "ts,time,open,high,low,close,volume\n1704067200,1704067500,1,2,1,1,1\n",
            "hold different times",
        ),
        ("a.zip", "no archive", "not a .zip file"),
        ("a.parquet", "no parquet", "not a .parquet file"),
        ("a.feather", "no feather", "not a .feather file"),
    ],
)
def test_files_that_are_none_of_bars_are_refused(
    configured: Settings, tmp_path: Path, name: str, content: str, expected: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RecordingError, match=expected):
        read(configured, tmp_path / name, ALL_KNOWN)


def test_an_archive_of_several_files_is_refused(configured: Settings, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(RecordingError, match=r"expected one .csv file in the archive, found 2"):
        read(configured, tmp_path / "a.zip")
