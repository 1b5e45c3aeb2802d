"""cryptoml import: recorded bars into a real lake, ledger and Dagster instance."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cryptoml_assets.errors import LakeError, RecordingError
from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.operations.import_bars import import_bars
from cryptoml_assets.prices.bars import KEY, bars_frame
from cryptoml_assets.prices.importer.notes import Answers
from cryptoml_assets.prices.ingest import run_ingest
from cryptoml_assets.prices.ledger import FROM_VENUE, LEDGER_TABLE
from cryptoml_assets.prices.resample import read_bars
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.settings import SettingsError
from tests.sandbox_server import sandbox

REPOSITORY = Path(__file__).parents[2]
BAR = timedelta(minutes=5)
Configure = Callable[..., None]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"CRYPTOML_{name.upper()}", value)
        settings.cache_clear()

    change(
        world="replay",
        symbols="BTC/USDT,ETH/USDT",
        retry_delays="0.01,0.02",
        now="2024-09-30T00:00:00Z",
    )
    return change


@pytest.fixture
def files(realdata: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for pair in ("BTC", "ETH"):
        shutil.copy(realdata / "ohlcv" / f"{pair}_USDT-5m.feather", folder)
    return folder


def lake() -> Lake:
    return Lake(settings().lake_uri)


def stored() -> pl.DataFrame:
    return lake().scan("raw_prices").collect().sort(KEY)


def ledger() -> pl.DataFrame:
    return lake().scan(LEDGER_TABLE).collect()


def run(path: Path, *, dry_run: bool = False, **answers: str) -> None:
    import_bars(settings(), path, Answers(**answers), dry_run=dry_run)  # type: ignore[arg-type]


def recorded(file: Path, symbol: str = "BTC/USDT", timeframe: str = "5m") -> pl.DataFrame:
    rows = pl.read_ipc(file).with_columns(pl.col("date").dt.epoch("ms").cast(pl.Float64))
    return bars_frame(
        rows.rows(),
        venue="binance",
        symbol=symbol,
        timeframe=timeframe,
        bar=BAR if timeframe == "5m" else timedelta(hours=1),
        source="replay",
    )


def vision(bars: pl.DataFrame, file: Path, unit: str = "ms") -> None:
    """A file as Binance Vision publishes it."""
    last = {"ms": 1000, "us": 1}[unit]
    bars.select(
        pl.col("open_time").dt.epoch(unit),  # type: ignore[arg-type]
        *("open", "high", "low", "close", "volume"),
        (pl.col("close_time") - pl.duration(microseconds=last)).dt.epoch(unit),  # type: ignore[arg-type]
        *(pl.lit(0).alias(f"_{column}") for column in range(5)),
    ).write_csv(file, include_header=False)


@pytest.mark.realdata
def test_recorded_feathers_are_stored_whole_and_add_up_to_the_recorded_hours(
    configure: Configure, files: Path, realdata: Path
) -> None:
    run(files)
    truth = pl.concat(
        [recorded(files / f"{p}_USDT-5m.feather", f"{p}/USDT") for p in ("BTC", "ETH")]
    )
    assert_frame_equal(stored(), truth.sort(KEY))
    days = truth["date"].unique().sort().to_list()
    hours = pl.concat(
        [
            recorded(realdata / "ohlcv" / f"{p}_USDT-1h.feather", f"{p}/USDT", "1h")
            for p in ("BTC", "ETH")
        ]
    )
    assert_frame_equal(read_bars(lake(), "1h", days), hours.sort(KEY), check_exact=True)


@pytest.mark.realdata
def test_what_binance_vision_publishes_is_the_same_as_the_feather(
    configure: Configure, files: Path, tmp_path: Path
) -> None:
    truth = recorded(files / "BTC_USDT-5m.feather").head(20_000)
    months = tmp_path / "months"
    months.mkdir()
    for (month,), bars in truth.group_by(pl.col("date").dt.month(), maintain_order=True):
        vision(bars, months / f"BTCUSDT-5m-2024-{month:02}.csv", "ms" if month == 1 else "us")
    run(months)
    assert_frame_equal(stored(), truth)
    origins = ledger()["origin"].unique().sort().to_list()
    assert [origin.split(" sha256:")[0] for origin in origins] == [
        f"import: BTCUSDT-5m-2024-0{month}.csv" for month in (1, 2, 3)
    ]
    assert all(len(origin.split(" sha256:")[1]) == 64 for origin in origins)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Two days of bars as freqtrade keeps them, and what they are."""
    times = pl.datetime_range(
        datetime(2024, 1, 1, tzinfo=UTC),
        datetime(2024, 1, 3, tzinfo=UTC),
        "5m",
        closed="left",
        eager=True,
    )
    closes = 100 + (pl.Series(range(len(times))) % 7)
    folder = tmp_path / "few"
    folder.mkdir()
    pl.DataFrame(
        {
            "date": times,
            "open": closes - 0.5,
            "high": closes + 1.0,
            "low": closes - 1.0,
            "close": closes * 1.0,
            "volume": closes * 3.0,
        }
    ).write_ipc(folder / "BTC_USDT-5m.feather")
    return folder


def test_a_second_import_stores_nothing_more(configure: Configure, few: Path) -> None:
    run(few)
    before, versions = stored(), [lake().version(t) for t in ("raw_prices", LEDGER_TABLE)]
    run(few)
    assert_frame_equal(stored(), before)
    assert [lake().version(t) for t in ("raw_prices", LEDGER_TABLE)] == versions


def test_a_dry_run_prints_and_stores_nothing(
    configure: Configure, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (few / "CHECKSUM").write_text("")
    run(few, dry_run=True)
    assert not lake().exists("raw_prices")
    assert not settings().home_path.exists()
    said = capsys.readouterr().out
    assert "timeframe 5m: the name says 5m, rows lie 5m apart" in said
    assert "left out: not a file of bars" in said
    assert "576" in said
    assert "nothing was stored: --dry-run" in said


def test_days_show_in_dagster_with_file_and_version(configure: Configure, few: Path) -> None:
    run(few)
    prepare_dagster_home(settings().home_path)
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(dg.AssetKey("raw_prices"), limit=10).records
        events = {str(r.partition_key): r.asset_materialization for r in records}
    assert set(events) == {"2024-01-01", "2024-01-02"}
    versions = lake().day_versions("raw_prices", [date(2024, 1, 1), date(2024, 1, 2)])
    for day, event in events.items():
        assert event is not None
        file, digest = str(event.metadata["imported_from"].value).split(" sha256:")
        assert file == "BTC/USDT: BTC_USDT-5m.feather"
        assert len(digest) == 64
        assert event.metadata["imported_bars"].value == 288
        assert event.tags is not None
        assert event.tags["dagster/data_version"] == versions[date.fromisoformat(day)]


def test_the_next_run_asks_the_venue_for_what_the_file_lacked_and_no_more(
    configure: Configure, tmp_path: Path
) -> None:
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    configure(symbols="BTC/USDT", now="2024-01-04T00:00:00Z", world="simulated")
    with sandbox(now="2024-01-04T00:00:00Z") as world:
        configure(venue_url=world.url, lake=str(tmp_path / "venue"))
        run_ingest(settings(), lake(), days)
        truth = stored()
        configure(world="replay", lake=str(tmp_path / "imported"))
        lacks = truth.filter(~pl.int_range(pl.len()).is_in([50, 51, 52, 300]))
        file = tmp_path / "BTC_USDT-5m.feather"
        table = lacks.select(pl.col("open_time").alias("date"), *truth.columns[5:10])
        table.write_ipc(file)
        run(file)
        report = run_ingest(settings(), lake(), days)
    assert (report.new, report.changed) == (4, 0)
    assert_frame_equal(stored().drop("source"), truth.drop("source"))
    from_venue = ledger().filter(pl.col("origin") == FROM_VENUE)
    assert from_venue["bars"].to_list() == [3, 1]


def test_what_the_venue_gave_stays(configure: Configure, few: Path) -> None:
    run(few)
    file = few / "BTC_USDT-5m.feather"
    table = pl.read_ipc(file)
    before = stored()
    more = table.with_columns(pl.col("date") + timedelta(days=2))
    other = table.tail(5).with_columns(volume=pl.lit(1.0))
    pl.concat([other, more]).write_ipc(file)
    run(few)
    after = stored()
    assert after.height == 4 * 288
    assert_frame_equal(after.filter(pl.col("date") < date(2024, 1, 3)), before)


def test_one_bad_file_keeps_all_others_out(configure: Configure, few: Path) -> None:
    (few / "ETH.csv").write_text("date,open,high,low,close,volume\n2024-01-01,1,2,1,1,1\n")
    (few / "SOL.csv").write_text("nothing\n")
    with pytest.raises(RecordingError) as caught:
        run(few)
    for part in ("ETH.csv: one bar does not tell", "SOL.csv: no line with names", "Nothing was st"):
        assert part in str(caught.value)
    assert not lake().exists("raw_prices")


def test_questions_of_all_files_come_in_one_error(configure: Configure, few: Path) -> None:
    table = pl.read_ipc(few / "BTC_USDT-5m.feather").with_columns(pl.col("date").dt.epoch("ms"))
    table.write_csv(few / "one.csv")
    table.write_csv(few / "two.csv")
    with pytest.raises(RecordingError) as caught:
        run(few)
    assert str(caught.value).count("--symbol BASE/QUOTE") == 2
    assert str(caught.value).count("--last keep|drop") == 2


def test_longer_bars_in_a_folder_are_left_out_and_alone_are_refused(
    configure: Configure, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hourly = few / "BTC_USDT-1h.feather"
    table = pl.read_ipc(few / "BTC_USDT-5m.feather")
    table.filter(pl.col("date").dt.minute() == 0).write_ipc(hourly)
    run(few)
    assert stored().height == 576
    assert "left out: holds 1h bars: expected 5m ones" in capsys.readouterr().out
    with pytest.raises(RecordingError, match=r"BTC_USDT-1h.feather: holds 1h bars"):
        run(hourly)


def test_no_recorded_bars_among_made_up_ones(configure: Configure, few: Path) -> None:
    configure(world="simulated")
    with pytest.raises(SettingsError, match="expected replay or live"):
        run(few)
    configure(world="replay", lake=str(few.parent / "shared"))
    run(few)
    configure(world="live")
    with pytest.raises(LakeError, match="raw_prices holds replay bars"):
        run(few)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", "no such file or folder"),
        ("", "holds no file that ends in"),
        ("a.txt", "ends in"),
    ],
)
def test_a_path_without_bars_is_refused(
    configure: Configure, tmp_path: Path, name: str, expected: str
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    if name == "a.txt":
        (folder / name).write_text("")
    with pytest.raises(RecordingError, match=expected):
        run(folder / name)


def cryptoml(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cryptoml_assets.cli", "import", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "CRYPTOML_HOME": str(home), "COLUMNS": "160"},
    )


def test_the_command_asks_in_one_message_and_stores_once_answered(
    few: Path, tmp_path: Path
) -> None:
    home, file = tmp_path / "home", tmp_path / "bars.csv"
    table = pl.read_ipc(few / "BTC_USDT-5m.feather").with_columns(
        (pl.col("date") + BAR).dt.to_string("%Y-%m-%d %H:%M:%S")
    )
    table.write_csv(file)
    asked = cryptoml(home, str(file), "--world", "live")
    assert asked.returncode == 1
    assert "Traceback" not in asked.stderr
    assert [flag in asked.stderr for flag in ("--symbol", "--stamp", "--last", "--zone")] == [
        True
    ] * 4
    answers = ("--symbol", "BTC/USDT", "--stamp", "close", "--last", "keep", "--zone", "UTC")
    done = cryptoml(home, str(file), "--world", "live", *answers)
    assert done.returncode == 0, done.stderr
    assert "BTC/USDT" in done.stdout
    bars = Lake(str(home / "live" / "lake")).scan("raw_prices").collect()
    assert bars["open_time"].min() == datetime(2024, 1, 1, tzinfo=UTC)
    assert (bars.height, bars["source"].unique().to_list()) == (576, ["live"])
