"""Every shape in which bars are found in files gives the same bars, or a question."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import RecordingError
from cryptoml_assets.prices.importer.notes import Answers
from cryptoml_assets.settings import Settings
from tests.bar_files import (
    ALL_KNOWN,
    BAR,
    COUNT,
    Write,
    crypto_data_download,
    csv,
    first_of,
    freqtrade,
    iso,
    junk,
    live,
    parquet,
    plain,
    read,
    rows_of,
    semicolons,
    truth,
    vision,
    vision_both_units,
    vision_zip,
)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Settings:
    return live(monkeypatch)


NEEDS_NOTHING: dict[str, Write] = {
    "freqtrade": freqtrade,
    "freqtrade parquet": lambda bars, folder: freqtrade(bars, folder, "parquet"),
    "freqtrade without zone": lambda bars, folder: freqtrade(
        bars.with_columns(pl.col("open_time").dt.replace_time_zone(None)), folder
    ),
    "vision": vision,
    "vision microseconds": lambda bars, folder: vision(bars, folder, "us"),
    "vision header": lambda bars, folder: vision(bars, folder, header=True),
    "vision zip": vision_zip,
    "vision both units": vision_both_units,
}
NEEDS_ANSWERS: dict[str, tuple[Write, Answers]] = {
    "epoch s": (csv("a.csv", time=pl.col("open_time").dt.epoch("s")), ALL_KNOWN),
    "epoch ms": (csv("a.csv", ts=pl.col("open_time").dt.epoch("ms")), ALL_KNOWN),
    "epoch us": (csv("a.csv", timestamp=pl.col("open_time").dt.epoch("us")), ALL_KNOWN),
    "epoch ns": (csv("a.csv", timestamp=pl.col("open_time").dt.epoch("us") * 1000), ALL_KNOWN),
    "epoch with a fraction": (
        csv("a.csv", timestamp=pl.col("open_time").dt.epoch("s").cast(pl.Float64)),
        ALL_KNOWN,
    ),
    "iso": (csv("a.csv", date=iso()), ALL_KNOWN),
    "iso offset": (
        csv("a.csv", date=iso(timedelta(hours=2), "%Y-%m-%d %H:%M:%S+02:00")),
        ALL_KNOWN,
    ),
    "iso minutes": (csv("a.csv", date=iso(pattern="%Y-%m-%d %H:%M+0000")), ALL_KNOWN),
    "iso fraction": (csv("a.csv", date=iso(pattern="%Y-%m-%dT%H:%M:%S.000Z")), ALL_KNOWN),
    "local to UTC": (csv("a.csv", date=iso(pattern="%Y-%m-%d %H:%M:%S")), ALL_KNOWN),
    "local to a zone": (
        csv("a.csv", date=iso(timedelta(hours=9), "%Y-%m-%d %H:%M:%S")),
        Answers(symbol="BTC/USDT", stamp="open", last="keep", zone="Asia/Tokyo"),
    ),
    "open_time column": (
        csv("a.csv", open_time=pl.col("open_time").dt.epoch("ms")),
        Answers(symbol="BTC/USDT", last="keep"),
    ),
    "close_time column": (
        csv("a.csv", close_time=pl.col("close_time").dt.epoch("ms")),
        Answers(symbol="BTC/USDT", last="keep"),
    ),
    "both columns": (
        csv("a.csv", open_time=iso(), close_time=iso(BAR)),
        Answers(symbol="BTC/USDT", last="keep"),
    ),
    "last instants of bars": (
        csv("a.csv", date=iso(BAR - timedelta(milliseconds=1), "%Y-%m-%dT%H:%M:%S.999Z")),
        Answers(symbol="BTC/USDT", last="keep"),
    ),
    "last seconds of bars": (
        csv("a.csv", date=iso(BAR - timedelta(seconds=1))),
        Answers(symbol="BTC/USDT", last="keep"),
    ),
    "stamped at close": (
        csv("a.csv", timestamp=pl.col("close_time").dt.epoch("ms")),
        Answers(symbol="BTC/USDT", stamp="close", last="keep"),
    ),
    "parquet": (parquet(Timestamp=pl.col("open_time")), ALL_KNOWN),
    "parquet without zone": (
        parquet(Timestamp=pl.col("open_time").dt.replace_time_zone(None)),
        ALL_KNOWN,
    ),
    "download site": (crypto_data_download, Answers(stamp="open", last="keep")),
    "junk columns": (junk, ALL_KNOWN),
    "semicolons": (semicolons, ALL_KNOWN),
}


@pytest.mark.parametrize("write", NEEDS_NOTHING.values(), ids=NEEDS_NOTHING.keys())
def test_a_format_that_says_all_needs_no_answer(
    configured: Settings, tmp_path: Path, write: Write
) -> None:
    assert_frame_equal(rows_of(read(configured, write(truth(), tmp_path))), truth())


@pytest.mark.parametrize(("write", "answers"), NEEDS_ANSWERS.values(), ids=NEEDS_ANSWERS.keys())
def test_every_shape_gives_the_same_bars(
    configured: Settings, tmp_path: Path, write: Write, answers: Answers
) -> None:
    imported = read(configured, write(truth(), tmp_path), answers)
    assert_frame_equal(rows_of(imported), truth())
    assert imported.weighed.new.height == COUNT


@pytest.mark.parametrize("order", ["descending", "shuffled"])
@pytest.mark.parametrize("write", [freqtrade, vision, csv("a.csv", open_time=iso())])
def test_any_order_gives_the_same_bars(
    configured: Settings, tmp_path: Path, write: Write, order: str
) -> None:
    file = write(first_of(truth(), order), tmp_path)
    imported = read(configured, file, Answers(symbol="BTC/USDT", last="keep"))
    assert_frame_equal(rows_of(imported), truth())
    assert any(said.startswith("rows sorted") for said in imported.notes.decisions)


def test_what_is_not_known_is_asked_in_one_error(configured: Settings, tmp_path: Path) -> None:
    file = csv("a.csv", date=iso(pattern="%Y-%m-%d %H:%M:%S"))(truth(), tmp_path)
    with pytest.raises(RecordingError) as caught:
        read(configured, file)
    for flag in ("--symbol BASE/QUOTE", "--stamp open|close", "--last keep|drop", "--zone UTC"):
        assert flag in str(caught.value)


@pytest.mark.parametrize("answered", ["symbol", "stamp", "last", "zone"])
def test_each_question_is_asked_until_it_is_answered(
    configured: Settings, tmp_path: Path, answered: str
) -> None:
    file = csv("a.csv", date=iso(pattern="%Y-%m-%d %H:%M:%S"))(truth(), tmp_path)
    given = {**vars(ALL_KNOWN), answered: None}
    with pytest.raises(RecordingError, match=f"--{answered} ") as caught:
        read(configured, file, Answers(**given))
    assert str(caught.value).count("--") == 1


def test_two_volumes_and_no_symbol_ask_for_the_symbol(configured: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    named = plain(truth()).rename({"volume": "Volume BTC"})
    named.with_columns(pl.lit(1.0).alias("Volume USDT")).write_csv(file)
    with pytest.raises(RecordingError, match="which symbol is it"):
        read(configured, file, Answers(stamp="open", last="keep"))
    assert_frame_equal(rows_of(read(configured, file, ALL_KNOWN)), truth())


def test_a_ticker_that_no_setting_spells_out_is_asked_for(
    configured: Settings, tmp_path: Path
) -> None:
    file = vision(truth(), tmp_path).rename(tmp_path / "XBTUSDT-5m-2024-01.csv")
    with pytest.raises(RecordingError, match="which symbol is XBTUSDT"):
        read(configured, file)
    spelt = rows_of(read(configured, file, Answers(symbol="XBT/USDT")))
    assert spelt["symbol"].unique().to_list() == ["XBT/USDT"]


@pytest.mark.parametrize(
    ("write", "answers", "expected"),
    [
        (freqtrade, Answers(symbol="ETH/USDT"), "the file name says BTC/USDT"),
        (freqtrade, Answers(symbol="BTCUSDT"), "expected base and quote"),
        (freqtrade, Answers(stamp="close"), "freqtrade stamps bars so"),
        (vision, Answers(symbol="ETH/USDT"), "the file name says BTCUSDT"),
        (vision, Answers(venue="kraken"), "files are of binance"),
        (csv("a.csv", open_time=iso()), Answers(symbol="BTC/USDT", stamp="close"), "column open_t"),
        (
            csv("a.csv", date=iso(BAR - timedelta(seconds=1))),
            Answers(symbol="BTC/USDT", stamp="open"),
            "each lies 1s before the end",
        ),
        (
            csv("a.csv", date=iso(pattern="%Y-%m-%d %H:%M:%S")),
            Answers(zone="Mars/Olympus"),
            "no such time zone",
        ),
    ],
)
def test_an_answer_that_contradicts_the_file_is_refused(
    configured: Settings, tmp_path: Path, write: Write, answers: Answers, expected: str
) -> None:
    with pytest.raises(RecordingError, match=expected):
        read(configured, write(truth(), tmp_path), answers)


LEFT_OUT = (
    "left out: column Unnamed: 0, open.1, close.1, quote_volume, adj close: "
    "holds nothing of a bar by its name"
)


def test_every_decision_has_its_reason(configured: Settings, tmp_path: Path) -> None:
    file = junk(truth(), tmp_path)
    decisions = read(configured, file, ALL_KNOWN).notes.decisions
    assert decisions == [
        "venue binance: CRYPTOML_VENUE, since the file names none",
        "symbol BTC/USDT: --symbol",
        LEFT_OUT,
        "times from column timestamp: epochs in milliseconds",
        "timeframe 5m: rows lie 5m apart",
        "times open bars: --stamp",
        "the bar that closes at 2024-01-02 02:00 kept: --last keep",
    ]
