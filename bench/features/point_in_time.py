"""Training rows joined as of their instant, against Feast's own retrieval.

Both sides read the same three Delta tables from disk and end with the same rows in memory: ours as
a polars frame, Feast's as an Arrow table. Their values are checked equal to the bit, nulls
included, before anything is timed.

Feast pairs every entity row with every row of its symbol in a table and keeps the newest of those
within the time to live, so its time grows with the length of the tables and its memory with the
time to live. A million rows are therefore compared over a short history and with times to live of
a few rows, all in Feast's favour. What a week's time to live costs is compared on fewer rows, and
Feast's default store, which holds all pairs at once, on fewer still. Ours depends on neither: the
peak memory is that of a million rows over a year of minutes with a week's time to live.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.report import Claim, measure
from cryptoml_assets.features.point_in_time import FeatureRows, as_of
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.feature_store import import_feast

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WEEK = 7 * DAY
INSTANT = pl.Datetime("us", "UTC")
ROWS = 1_000_000
LIMIT_GB = 3.0
SEED = 11


@dataclass(frozen=True)
class Table:
    """A feature table: a row every ``step``, known as soon as it is there."""

    name: str
    step: timedelta
    features: int
    ttl: timedelta

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{index}" for index in range(self.features))


@dataclass(frozen=True)
class Case:
    """What is joined: ``rows`` instants drawn from ``days`` days, all but the first week."""

    rows: int
    days: int
    tables: tuple[Table, ...]
    symbols: int

    @property
    def names(self) -> list[str]:
        return [f"S{index:03d}/USDT" for index in range(self.symbols)]


TABLES = (
    Table("minutely", timedelta(minutes=1), 12, timedelta(minutes=3)),
    Table("hourly", timedelta(hours=1), 4, timedelta(hours=2)),
    Table("daily", DAY, 4, 3 * DAY),
)


def write_tables(folder: Path, case: Case) -> Lake:
    """The tables of ``case``, stored by days; one row and one value in twenty are missing."""
    lake = Lake(str(folder))
    rng = np.random.default_rng(SEED)
    end = FIRST + case.days * DAY
    for table in case.tables:
        instants = pl.datetime_range(
            FIRST, end, table.step, closed="right", time_unit="us", time_zone="UTC", eager=True
        )
        every = pl.DataFrame({"symbol": case.names}).join(
            pl.DataFrame({"event_timestamp": instants}), how="cross"
        )
        there = rng.random(every.height) > 0.05
        rows = every.filter(pl.Series(there)).with_columns(
            *(_values(rng, int(there.sum()), name) for name in table.columns),
            date=pl.col("event_timestamp").dt.offset_by("-1us").dt.date(),
        )
        lake.replace_days(table.name, rows, rows["date"].unique().to_list())
    return lake


def _values(rng: np.random.Generator, count: int, name: str) -> pl.Series:
    values = pl.Series(name, rng.standard_normal(count))
    return values.set(pl.Series(rng.random(count) < 0.05), None)


def make_entities(case: Case) -> pl.DataFrame:
    """Symbols and instants to the microsecond, in no order."""
    rng = np.random.default_rng(SEED)
    begin, end = (
        int((FIRST + days * DAY).timestamp()) * 1_000_000 for days in (WEEK // DAY, case.days)
    )
    return pl.DataFrame(
        {
            "symbol": rng.choice(case.names, case.rows),
            "event_timestamp": pl.Series(rng.integers(begin, end, case.rows)).cast(INSTANT),
        }
    )


def ours(lake: Lake, case: Case, entities: pl.DataFrame) -> pl.DataFrame:
    return as_of(
        entities,
        [
            FeatureRows(each.name, lake.scan(each.name), each.columns, each.ttl)
            for each in case.tables
        ],
    )


def feast_reader(
    sources: dict[str, Any], case: Case, folder: Path, offline_store: dict[str, str]
) -> Callable[[Any], Any]:
    """What reads ``get_historical_features`` of entities in pandas into an Arrow table."""
    from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType  # noqa: PLC0415
    from feast.types import Float64, String  # noqa: PLC0415

    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    views = [
        FeatureView(
            name=table.name,
            entities=[symbol],
            ttl=table.ttl,
            schema=[
                Field(name="symbol", dtype=String),
                *(Field(name=name, dtype=Float64) for name in table.columns),
            ],
            source=sources[table.name],
        )
        for table in case.tables
    ]
    folder.mkdir(parents=True)
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=None,
            offline_store=offline_store,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    with contextlib.redirect_stdout(io.StringIO()):
        store.apply([symbol, *views])
    references = [f"{table.name}:{name}" for table in case.tables for name in table.columns]
    return lambda entities: store.get_historical_features(
        entity_df=entities, features=references
    ).to_arrow()


def feast_on_delta(lake: Lake, case: Case, folder: Path) -> Callable[[Any], Any]:
    """Feast with the DuckDB offline store of this repository."""
    from feast import FileSource  # noqa: PLC0415
    from feast.data_format import DeltaFormat  # noqa: PLC0415

    sources = {
        table.name: FileSource(
            name=f"lake_{table.name}",
            path=lake.address(table.name),
            file_format=DeltaFormat(),
            timestamp_field="event_timestamp",
        )
        for table in case.tables
    }
    kind = "feature_repo.lake_offline_store.LakeOfflineStore"
    return feast_reader(sources, case, folder, {"type": kind})


def feast_by_default(lake: Lake, case: Case, folder: Path) -> Callable[[Any], Any]:
    """Feast with its default offline store, which reads no Delta: the same rows as parquet."""
    from feast import FileSource  # noqa: PLC0415

    folder.mkdir(parents=True)
    sources = {}
    for table in case.tables:
        path = folder / f"{table.name}.parquet"
        lake.scan(table.name).drop("date").collect().write_parquet(path)
        sources[table.name] = FileSource(
            name=table.name, path=str(path), timestamp_field="event_timestamp"
        )
    return feast_reader(sources, case, folder / "repository", {"type": "dask"})


def check_equal(found: pl.DataFrame, theirs: Any, *, all_rows: bool) -> None:
    """Stop unless both hold the same rows, values to the bit."""
    bits = pl.col(pl.Float64).reinterpret(dtype=pl.Int64)
    order = ["symbol", "event_timestamp"]
    other = pl.DataFrame(theirs).select(found.columns).cast({"event_timestamp": INSTANT})
    kept = found if all_rows else found.join(other, on=order, how="semi")
    sides = [frame.with_columns(bits).sort(order) for frame in (kept, other)]
    assert sides[0].equals(sides[1])
    nulls = kept.null_count().sum_horizontal().item()
    assert 0 < nulls < kept.height * (kept.width - 2), "nothing to tell apart"


@dataclass(frozen=True)
class Peer:
    """Feast in one way: what makes its reader, and whether it answers with every row asked for."""

    name: str
    reader: Callable[[Lake, Case, Path], Callable[[Any], Any]]
    all_rows: bool


ON_DELTA = Peer("Feast on DuckDB", feast_on_delta, all_rows=True)
#: It leaves out a row whose symbol is known to a table, but by none young enough.
BY_DEFAULT = Peer("Feast's default store", feast_by_default, all_rows=False)


def against(peer: Peer, case: Case, what: str, runs: int, target: float | None) -> Claim:
    """Rows a second of both sides, whose values are found equal in the first, untimed round."""
    with tempfile.TemporaryDirectory() as name:
        lake = write_tables(Path(name) / "lake", case)
        read = peer.reader(lake, case, Path(name) / "feast")
        entities = make_entities(case)
        theirs = entities.to_pandas()
        unchecked = True

        def run_ours() -> float:
            began = time.perf_counter()
            ours(lake, case, entities)
            return time.perf_counter() - began

        def run_theirs() -> float:
            nonlocal unchecked
            began = time.perf_counter()
            answer = read(theirs)
            spent = time.perf_counter() - began
            if unchecked:
                check_equal(ours(lake, case, entities), answer, all_rows=peer.all_rows)
                unchecked = False
            print(f"  {peer.name}, {case.rows} rows: {spent:.1f} s", flush=True)
            return spent

        spent = measure({"ours": run_ours, "theirs": run_theirs}, runs)
    return Claim.of_pairs(
        f"as-of join of {case.rows} rows and {len(case.tables)} tables, {what}: {peer.name}",
        spent["ours"],
        spent["theirs"],
        target,
        work=case.rows,
        unit="rows/s",
    )


def peak_memory(symbols: int) -> Claim:
    """Largest resident memory of a process that joins a million rows over a year."""
    case = year_of(symbols)
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), case)
        command = [sys.executable, "-m", "bench.features.point_in_time", "--peak", folder]
        done = subprocess.run(
            [*command, f"--symbols={symbols}"], check=True, capture_output=True, text=True
        )
    peak, seconds = (float(each) for each in done.stdout.split())
    claim = (
        f"peak memory of {case.rows} rows over {case.days} days, joined in {seconds:.2f} s: limit"
    )
    return Claim(claim, round(peak, 3), LIMIT_GB, "GB", round(LIMIT_GB / peak, 3), 1.0)


def year_of(symbols: int) -> Case:
    return Case(ROWS, 365, tuple(replace(table, ttl=WEEK) for table in TABLES), symbols)


def claims(options: argparse.Namespace) -> list[Claim]:
    """Everything this file claims."""
    import_feast()
    # ibis calls what DuckDB deprecates, and Feast sets filters of its own.
    warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
    few = Case(ROWS, 10, TABLES, options.symbols)
    week = tuple(replace(table, ttl=WEEK) for table in TABLES)
    return [
        against(ON_DELTA, few, "young rows only", min(options.runs, 2), 10.0),
        against(ON_DELTA, Case(1000, 30, week, options.symbols), "a week's rows", 1, None),
        against(BY_DEFAULT, replace(few, rows=500), "young rows only", 1, None),
        peak_memory(options.symbols),
    ]


def peak_so_far() -> float:
    """Gigabytes this process ever held; other than getrusage's not those of what started it."""
    (line,) = (
        each for each in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in each
    )
    return float(line.split()[1]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", required=True, metavar="LAKE", help="in GB, and seconds")
    parser.add_argument("--symbols", type=int, required=True)
    options = parser.parse_args()
    case = year_of(options.symbols)
    entities = make_entities(case)
    began = time.perf_counter()
    ours(Lake(options.peak), case, entities)
    print(peak_so_far(), time.perf_counter() - began)


if __name__ == "__main__":
    main()
