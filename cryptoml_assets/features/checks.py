"""Checks of the feature tables; what fails here does not flow on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import chain
from typing import TypeVar

import dagster as dg
import polars as pl

from cryptoml_assets.features import proofs
from cryptoml_assets.features.assets import onchain_features, price_features
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.feature import Table
from cryptoml_assets.features.inputs import bars_of_settings
from cryptoml_assets.features.nulls import null_faults
from cryptoml_assets.features.pins import versions_read
from cryptoml_assets.features.remake import OfChain, OfPrices, Raw, Recipe
from cryptoml_assets.features.results import faults_result, proof_result
from cryptoml_assets.partitions import check_days
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings

_Found = TypeVar("_Found")

_SAMPLED_DAYS = 3
#: A day's on-chain rows may be missing for so long after they can be known.
_GRACE = timedelta(hours=1)
#: Longest that a run takes from its commit to what it tells of a few days.
_TELLING_SECONDS = 0.25
_KEYS = ("symbol", "event_timestamp")


def _specs(asset: dg.AssetsDefinition, *tables: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset,
            blocking=True,
            additional_deps=tables,
            description=f"{meaning} On a sample of the run, every feature, to the bit.",
        )
        for name, meaning in proofs.MEANINGS.items()
    ]


@dg.asset_check(asset=price_features, blocking=True, additional_deps=["raw_prices"])
def one_row_per_bar(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Every bar of the run's days has exactly one feature row, dated at the bar's close.

    The bars are those the run has read, whatever came since.
    """
    days = check_days(context) or sorted(
        {*_days_held(lake.lake, "raw_prices"), *_days_held(lake.lake, "price_features")}
    )
    return _settled(lambda: _row_per_bar(context.instance, lake.lake, days), _failed)


@dg.multi_asset_check(specs=_specs(price_features, "raw_prices"))
def exact_prices(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.AssetCheckResult]:
    """The proofs of exactness, repeated on a sample of the run's days.

    What is recomputed, from the bars that the run has read, is compared with what is stored; each
    feature that differs is named, with the oldest instant at which it does.
    """
    features = features_of("price_features")

    def recipe(pin: Mapping[str, int], _: pl.DataFrame) -> Recipe:
        stored = lake.lake.scan("raw_prices", version=pin.get("raw_prices"))
        return OfPrices(settings().bar, features, bars_of_settings(stored), bars_of_settings)

    yield from _proved(context, lake.lake, "price_features", recipe)


@dg.multi_asset_check(specs=_specs(onchain_features, "network_metrics", "onchain_blocks"))
def exact_onchain(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.AssetCheckResult]:
    """The proofs of exactness, repeated on a sample of the run's days.

    What is recomputed, from the metrics and blocks that the run has read, is compared with what is
    stored; each feature that differs is named, with the oldest day on which it does.
    """
    configured, features = settings(), features_of("onchain_features")

    def recipe(_: Mapping[str, int], rows: pl.DataFrame) -> Recipe:
        return OfChain(
            # Which symbols were configured when the day was computed, its rows say.
            tuple(rows["symbol"].unique().sort()),
            delay=_onchain_delay(),
            metrics_lag=configured.metrics_lag,
            finality_delay=configured.finality_delay,
            now=configured.clock(),
            features=features,
        )

    yield from _proved(context, lake.lake, "onchain_features", recipe)


@dg.asset_check(asset=onchain_features, blocking=True)
def known_by_now(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """No on-chain row exists before it can be known, and every day with blocks has rows by then."""
    days, now = check_days(context), settings().clock()
    rows = lake.lake.scan("onchain_features", days).collect()
    day_end = pl.col("date").cast(pl.Datetime("us", "UTC")) + timedelta(days=1)
    pins = versions_read(
        context.instance, onchain_features.key, days or _days_held(lake.lake, "onchain_blocks")
    )
    # Of a day that has just become known, the run that computes it may be still to come.
    known = (pl.col("finality") == "finalized") & (day_end + _onchain_delay() + _GRACE <= now)
    with_blocks = [
        lake.lake.scan("onchain_blocks", group, version).filter(known).select("date").unique()
        for version, group in _by_version(list(pins), pins, "onchain_blocks").items()
    ]
    expected = [frame.collect()["date"].to_list() for frame in with_blocks]
    return faults_result(
        days_without_rows=len(set(chain.from_iterable(expected)).difference(rows["date"])),
        not_yet_known=rows.filter(pl.col("event_timestamp") > now).height,
        before_day_end=rows.filter(pl.col("event_timestamp") < day_end).height,
        duplicates=rows.height - rows.unique(_KEYS).height,
        rows=rows.height,
    )


def _row_per_bar(
    instance: dg.DagsterInstance, lake: Lake, days: Sequence[date]
) -> dg.AssetCheckResult:
    pins = versions_read(instance, price_features.key, days)
    rows = lake.scan("price_features", days).select(_KEYS).collect()
    groups = [
        bars_of_settings(lake.scan("raw_prices", group, version))
        .select("symbol", event_timestamp="close_time")
        .collect()
        for version, group in _by_version(days, pins, "raw_prices").items()
    ]
    bars = pl.concat([rows.clear(), *groups])
    return faults_result(
        without_row=bars.join(rows, on=_KEYS, how="anti").height,
        without_bar=rows.join(bars, on=_KEYS, how="anti").height,
        duplicates=rows.height - rows.unique().height,
        rows=rows.height,
    )


def _onchain_delay() -> timedelta:
    configured = settings()
    return max(configured.metrics_lag, configured.finality_delay)


def _proved(
    context: dg.AssetCheckExecutionContext,
    lake: Lake,
    table: Table,
    recipe: Callable[[Mapping[str, int], pl.DataFrame], Recipe],
) -> Iterator[dg.AssetCheckResult]:
    """A result for each proof, over some days of the run; ``recipe`` is of the versions read."""
    # Another sample whenever the table has changed, and the same one when a check is repeated.
    seed, days = lake.version(table), check_days(context)
    held = _days_held(lake, table, days)
    chosen, seconds = proofs.drawn(held, seed, _SAMPLED_DAYS) if held else ((), ())

    def look() -> tuple[int, dict[str, tuple[proofs.Difference, ...]]]:
        pins = versions_read(context.instance, dg.AssetKey(table), chosen)
        cases = []
        for day, second in zip(chosen, seconds, strict=True):
            pin, rows = pins.get(day, {}), lake.scan(table, [day]).collect()
            made = recipe(pin, rows)
            raw, cuts = _raw(lake, made, day, pin), made.cuts(rows, day, second)
            cases.append(proofs.Case(made, raw, rows, day, cuts, seed))
        return sum(case.rows.height for case in cases), proofs.proved(cases)

    compared, proved = _settled(look, lambda found: any(found[1].values()))
    names = [feature.name for feature in features_of(table)]
    faults = null_faults(lake.scan(table, days), names)
    for name, found in proved.items():
        yield proof_result(
            name,
            found,
            rows=compared,
            features=len(names),
            days=sorted(chosen),
            seed=seed,
            faults=faults if name == "nulls_have_reasons" else {},
        )


def _settled(look: Callable[[], _Found], wrong: Callable[[_Found], bool]) -> _Found:
    """What ``look`` finds; where that is wrong, what it finds a moment later.

    Another run may have stored rows and have yet to tell which inputs it had read.
    """
    found = look()
    if wrong(found):
        time.sleep(_TELLING_SECONDS)
        found = look()
    return found


def _failed(result: dg.AssetCheckResult) -> bool:
    return not result.passed


def _raw(lake: Lake, recipe: Recipe, day: date, pin: Mapping[str, int]) -> Raw:
    """Raw rows of ``day``, of those around it and of their warm-up, at the versions of ``pin``."""
    around = proofs.days_around(day, recipe.days_before)
    return {
        table: recipe.narrowed(table, lake.scan(table, around, pin.get(table))).collect()
        for table in recipe.tables
    }


def _days_held(lake: Lake, table: str, days: Sequence[date] | None = None) -> tuple[date, ...]:
    """Which of ``days``, of all when not given, have rows; oldest first."""
    held = lake.scan(table, days).select(pl.col("date").unique().sort()).collect()["date"]
    return tuple(held.to_list())


def _by_version(
    days: Sequence[date], pins: Mapping[date, Mapping[str, int]], table: str
) -> dict[int | None, list[date]]:
    """The days that were made of each version of ``table``; none stands for the newest."""
    groups: dict[int | None, list[date]] = {}
    for day in days:
        groups.setdefault(pins.get(day, {}).get(table), []).append(day)
    return groups
