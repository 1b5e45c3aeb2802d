"""Checks of the training set; what fails here is not learnt from."""

import dagster as dg
import polars as pl

from cryptoml_assets.features.results import faults_result
from cryptoml_assets.features.training_assets import training_set
from cryptoml_assets.settings import settings


@dg.asset_check(asset=training_set, blocking=True)
def labels_known(training_set: pl.LazyFrame) -> dg.AssetCheckResult:
    """Every label is a number, spans exactly the horizon and is known by now; rows are unique."""
    configured = settings()
    rows = training_set.select("symbol", "event_timestamp", "label_timestamp", "label").collect()
    span = pl.col("label_timestamp") - pl.col("event_timestamp")
    return faults_result(
        other_horizon=rows.filter(span != configured.horizon).height,
        not_yet_known=rows.filter(pl.col("label_timestamp") > configured.clock()).height,
        not_a_number=rows.filter(~pl.col("label").is_finite().fill_null(value=False)).height,
        duplicates=rows.height - rows.unique(["symbol", "event_timestamp"]).height,
        rows=rows.height,
    )
