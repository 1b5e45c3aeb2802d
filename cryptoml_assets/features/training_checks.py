"""Checks of the training set; what fails here is not learnt from."""

from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.features import audit
from cryptoml_assets.features.catalog import model_features
from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.features.results import faults_result
from cryptoml_assets.features.training_assets import training_set
from cryptoml_assets.features.training_set import model_inputs
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings

_SAMPLE = 500


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


@dg.asset_check(asset=training_set, blocking=True, additional_deps=TABLES)
def inputs_known(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """Every row's inputs are the newest known by its instant: joined again, they are the same.

    All rows, by polars' own as-of join over the table versions the training set was made of, to
    the bit. The metadata says how old the oldest row used of each table was.
    """
    version = lake.lake.version("training_set")
    made_of = _versions_made_of(context.instance, version)
    if made_of is None:
        return _unrecorded(version)
    stored = lake.lake.scan("training_set", version=version).collect()
    inputs = model_inputs(*_scanned(lake.lake, made_of))
    again = audit.by_asof_join(stored, inputs)
    oldest = {each.table: again[audit.age_of(each)].max() for each in inputs}
    return _compared(stored, again, "an as-of join", oldest={k: str(v) for k, v in oldest.items()})


@dg.asset_check(asset=training_set, blocking=True, additional_deps=TABLES)
def equals_feast(
    context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[LakeIOManager]
) -> dg.AssetCheckResult:
    """A sample of rows has the inputs that Feast's historical retrieval gives them, to the bit.

    Feast reads the table versions the training set was made of. The sample changes with the
    version of the training set and holds the newest row of each symbol.
    """
    version = lake.lake.version("training_set")
    made_of = _versions_made_of(context.instance, version)
    if made_of is None:
        return _unrecorded(version)
    stored = lake.lake.scan("training_set", version=version).collect()
    sample = audit.drawn_rows(stored, _SAMPLE, seed=version)
    inputs = model_inputs(*_scanned(lake.lake, made_of))
    again = audit.through_feast(sample, inputs, made_of, lake.uri)
    return _compared(sample, again, "Feast", seed=version, lake_versions=made_of)


def _compared(
    stored: pl.DataFrame, again: pl.DataFrame, reader: str, **metadata: Any
) -> dg.AssetCheckResult:
    found = audit.apart(stored, again)
    values = stored.height * len(model_features())
    return dg.AssetCheckResult(
        passed=not found,
        description=audit.told(found, reader) or f"{values} values of {stored.height} rows",
        metadata={"compared": values, "different_inputs": len(found), **metadata},
    )


def _versions_made_of(instance: dg.DagsterInstance, version: int) -> dict[str, int] | None:
    """Versions of the tables that ``version`` of the training set was made of, where recorded."""
    event = instance.get_latest_materialization_event(training_set.key)
    made = event.asset_materialization if event is not None else None
    recorded = {name: entry.value for name, entry in made.metadata.items()} if made else {}
    if recorded.get("table_version") != version:
        return None
    versions: Any = recorded["lake_versions"]
    return {table: int(number) for table, number in versions.items()}


def _unrecorded(version: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=False,
        description=(
            f"nothing records which table versions version {version} of training_set was made of: "
            "materialise it"
        ),
    )


def _scanned(lake: Lake, versions: dict[str, int]) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    price, onchain = (lake.scan(table, version=versions[table]) for table in TABLES)
    return price, onchain
