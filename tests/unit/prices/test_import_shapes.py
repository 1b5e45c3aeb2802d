"""Every shape in which bars are found in files gives the same bars, or a question."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import OtherTimeframeError, RecordingError
from cryptoml_assets.operations.import_bars import Imported, examine
from cryptoml_assets.prices.bars import SCHEMA, bars_frame
from cryptoml_assets.prices.importer.files import VISION_COLUMNS
from cryptoml_assets.prices.importer.notes import Answers
from cryptoml_assets.prices.ledger import LEDGER_TABLE, NOTHING_TRADED, missing
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings, settings

START = datetime(2024, 1, 1, 22, tzinfo=UTC)
BAR = timedelta(minutes=5)
COUNT = 48
ALL_KNOWN = Answers(symbol="BTC/USDT", stamp="open", last="keep", zone="UTC")
Write = Callable[[pl.DataFrame, Path], Path]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CRYPTOML_WORLD", "live")
    monkeypatch.setenv("CRYPTOML_NOW", "2024-02-01T00:00:00Z")
    monkeypatch.setenv("CRYPTOML_SYMBOLS", "BTC/USDT,ETH/USDT")
    settings.cache_clear()
    return settings()


def truth(count: int = COUNT) -> pl.DataFrame:
    """Bars as the venue would give them."""
    dice = random.Random(7)  # noqa: S311
    rows, price = [], 42000.0
    for i in range(count):
        close = round(price * (1 + dice.gauss(0, 0.001)), 2)
        high, low = max(price, close) + dice.randint(0, 900) / 100, min(price, close) - 1.25
        volume = dice.randint(0, 10**9) / 10**5
        rows.append(
            [(START + i * BAR).timestamp() * 1000, price, round(high, 2), low, close, volume]
        )
        price = close
    return bars_frame(
        rows, venue="binance", symbol="BTC/USDT", timeframe="5m", bar=BAR, source="live"
    )


def plain(bars: pl.DataFrame, **columns: pl.Expr) -> pl.DataFrame:
    times = columns or {"timestamp": pl.col("open_time").dt.epoch("ms")}
    return bars.select(
        *(expression.alias(name) for name, expression in times.items()),
        "open",
        "high",
        "low",
        "close",
        "volume",
    )


def iso(shift: timedelta = timedelta(0), pattern: str = "%Y-%m-%dT%H:%M:%SZ") -> pl.Expr:
    return (pl.col("open_time") + shift).dt.to_string(pattern)


def freqtrade(bars: pl.DataFrame, folder: Path, suffix: str = "feather") -> Path:
    date = pl.col("open_time").dt.cast_time_unit("ns")
    file = folder / f"BTC_USDT-5m.{suffix}"
    table = plain(bars, date=date)
    table.write_ipc(file) if suffix == "feather" else table.write_parquet(file)
    return file


def vision_table(bars: pl.DataFrame, unit: str = "ms") -> pl.DataFrame:
    last = pl.duration(milliseconds=1) if unit == "ms" else pl.duration(microseconds=1)
    zero = pl.lit(0)
    figures = (zero.alias(name) for name in VISION_COLUMNS[7:])
    return bars.select(
        pl.col("open_time").dt.epoch(unit),  # type: ignore[arg-type]
        "open",
        "high",
        "low",
        "close",
        "volume",
        (pl.col("close_time") - last).dt.epoch(unit),  # type: ignore[arg-type]
        *figures,
    )


def vision(bars: pl.DataFrame, folder: Path, unit: str = "ms", *, header: bool = False) -> Path:
    file = folder / "BTCUSDT-5m-2024-01.csv"
    vision_table(bars, unit).write_csv(file, include_header=header)
    return file


def vision_zip(bars: pl.DataFrame, folder: Path) -> Path:
    file = folder / "BTCUSDT-5m-2024-01.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(vision(bars, folder), "BTCUSDT-5m-2024-01.csv")
    return file


def vision_both_units(bars: pl.DataFrame, folder: Path) -> Path:
    file = folder / "BTCUSDT-5m-2024-01.csv"
    halves = [vision_table(bars.head(20), "ms"), vision_table(bars.tail(-20), "us")]
    pl.concat(halves).write_csv(file, include_header=False)
    return file


def csv(name: str, **columns: pl.Expr) -> Write:
    def write(bars: pl.DataFrame, folder: Path) -> Path:
        plain(bars, **columns).write_csv(folder / name)
        return folder / name

    return write


def parquet(**columns: pl.Expr) -> Write:
    def write(bars: pl.DataFrame, folder: Path) -> Path:
        plain(bars, **columns).write_parquet(folder / "bars.parquet")
        return folder / "bars.parquet"

    return write


def crypto_data_download(bars: pl.DataFrame, folder: Path) -> Path:
    """Newest first, a line before the names, two times, a symbol column, two volumes."""
    file = folder / "Binance_BTCUSDT_5m.csv"
    table = bars.reverse().select(
        pl.col("open_time").dt.epoch("s").alias("Unix"),
        iso(pattern="%Y-%m-%d %H:%M:%S").alias("Date"),
        pl.lit("BTCUSDT").alias("Symbol"),
        pl.col("open").alias("Open"),
        pl.col("high").alias("High"),
        pl.col("low").alias("Low"),
        pl.col("close").alias("Close"),
        pl.col("volume").alias("Volume BTC"),
        (pl.col("volume") * pl.col("close")).alias("Volume USDT"),
        pl.lit(7).alias("tradecount"),
    )
    file.write_text("https://example.com/data\n" + table.write_csv())
    return file


def junk(bars: pl.DataFrame, folder: Path) -> Path:
    """As pandas leaves it: an index, duplicate columns, others' figures."""
    file = folder / "bars.csv"
    table = plain(bars).with_columns(
        pl.int_range(pl.len()).alias("Unnamed: 0"),
        (pl.col("open") + 1).alias("open.1"),
        (pl.col("close") * 2).alias("close.1"),
        pl.lit(3.5).alias("quote_volume"),
        pl.lit(1.0).alias("adj close"),
    )
    table.select("Unnamed: 0", pl.exclude("Unnamed: 0")).write_csv(file)
    return file


def semicolons(bars: pl.DataFrame, folder: Path) -> Path:
    file = folder / "bars.csv"
    names = ["TIMESTAMP", "Open", "HIGH", "low", "Close", "Vol"]
    table = plain(bars)
    table.columns = names
    file.write_text("\ufeff" + table.write_csv(separator=";"))
    return file


def first_of(bars: pl.DataFrame, order: str) -> pl.DataFrame:
    return (
        bars.reverse() if order == "descending" else bars.sample(fraction=1, shuffle=True, seed=3)
    )


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


def read(
    configured: Settings, file: Path, answers: Answers | None = None, lake: Lake | None = None
) -> Imported:
    return examine(configured, lake or Lake(configured.lake_uri), file, answers or Answers())


def rows_of(imported: Imported) -> pl.DataFrame:
    assert imported.bars.schema == SCHEMA
    return imported.bars


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


def stored(configured: Settings, bars: pl.DataFrame) -> Lake:
    lake = Lake(configured.lake_uri)
    lake.replace_days("raw_prices", bars, bars["date"].unique().to_list())
    return lake


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
