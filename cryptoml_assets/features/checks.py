"""Checks of the feature tables; what fails here does not flow on."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import dagster as dg
import polars as pl

from cryptoml_assets.days import day_start
from cryptoml_assets.features import proofs
from cryptoml_assets.features.assets import onchain_features, price_features
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import days_before
from cryptoml_assets.features.inputs import bars_of_settings
from cryptoml_assets.features.results import faults_result
from cryptoml_assets.partitions import check_days
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings

_SHOWN = 20
_SAMPLED_DAYS = 3
_PROOFS = {
    "no_look_ahead": "Changing or deleting all bars after an instant changes nothing known by it.",
    "warm_up_suffices": "Starting the computation a day earlier changes nothing.",
    "partition_independent": "Computing days alone, in any order, changes nothing.",
}


@dg.asset_check(asset=price_features, blocking=True, additional_deps=["raw_prices"])
def one_row_per_bar(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Every bar of the run's days has exactly one feature row, dated at the bar's close."""
    days = check_days(context)
    keys = ("symbol", "event_timestamp")
    bars = (
        bars_of_settings(lake.lake.scan("raw_prices", days))
        .select("symbol", event_timestamp="close_time")
        .collect()
    )
    rows = lake.lake.scan("price_features", days).select(keys).collect()
    return faults_result(
        without_row=bars.join(rows, on=keys, how="anti").height,
        without_bar=rows.join(bars, on=keys, how="anti").height,
        duplicates=rows.height - rows.unique().height,
        rows=rows.height,
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            name,
            asset=price_features,
            blocking=True,
            additional_deps=["raw_prices"],
            description=f"{meaning} On a sample of the run, every feature, to the bit.",
        )
        for name, meaning in _PROOFS.items()
    ]
)
def exact_prices(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> Iterator[dg.AssetCheckResult]:
    """The proofs of exactness, repeated on a sample of the run's days.

    What is recomputed is compared with what is stored; each feature that differs is named, with the
    oldest instant at which it does.
    """
    # Another sample whenever the table has changed, and the same one when a check is repeated.
    seed = lake.lake.version("price_features")
    sample = _sample(lake.lake, check_days(context), seed)
    if sample is None:
        for name in _PROOFS:
            yield dg.AssetCheckResult(passed=True, check_name=name, description="no rows")
        return
    compared = sample.rows.height * len(features_of("price_features"))
    for name, found in proofs.proved(sample, settings().bar).items():
        shown = [str(difference) for difference in found[:_SHOWN]]
        yield dg.AssetCheckResult(
            passed=not found,
            check_name=name,
            description="; ".join(shown) or f"{compared} values compared",
            metadata={
                "days": ", ".join(day.isoformat() for day in sorted(sample.days)),
                "compared": compared,
                "different": len(found),
                "seed": sample.seed,
            },
        )


@dg.asset_check(asset=onchain_features, blocking=True)
def known_by_now(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """No on-chain row exists before it can be known, and each is dated after its day's end."""
    rows = lake.lake.scan("onchain_features", check_days(context)).collect()
    day_end = pl.col("date").cast(pl.Datetime("us", "UTC")) + timedelta(days=1)
    return faults_result(
        not_yet_known=rows.filter(pl.col("event_timestamp") > settings().clock()).height,
        before_day_end=rows.filter(pl.col("event_timestamp") < day_end).height,
        duplicates=rows.height - rows.unique(["symbol", "event_timestamp"]).height,
        rows=rows.height,
    )


def _sample(lake: Lake, days: Sequence[date] | None, seed: int) -> proofs.Sample | None:
    """A few of ``days``, of all when not given, with their bars; none where nothing is stored."""
    held = lake.scan("price_features", days).select(pl.col("date").unique()).collect()["date"]
    if held.is_empty():
        return None
    chosen, seconds = proofs.drawn(held.to_list(), seed, _SAMPLED_DAYS)
    around = proofs.days_around(chosen, days_before(settings().bar))
    return proofs.Sample(
        bars_of_settings(lake.scan("raw_prices", around)).collect(),
        lake.scan("price_features", chosen).collect(),
        chosen,
        tuple(
            day_start(day) + timedelta(seconds=second)
            for day, second in zip(chosen, seconds, strict=True)
        ),
        seed,
    )
