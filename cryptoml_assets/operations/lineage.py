"""Where a served prediction comes from, told to a person or as JSON."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cryptoml_assets.deployment.lineage import (
    Input,
    TrainedRun,
    changed_values,
    decision_of,
    input_row,
    trained_run,
)
from cryptoml_assets.errors import ApprovalError, CryptomlError, LakeError, TrainingRecordError
from cryptoml_assets.features.catalog import TTL
from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.features.point_in_time import LONGEST_LAG
from cryptoml_assets.monitoring.commits import commits, version_by
from cryptoml_assets.operations.decisions import sound_entries, told
from cryptoml_assets.operations.sources import sources_of
from cryptoml_assets.operations.tracking import tracking_client
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.bundle import load_bundle
from cryptoml_serving.contract.manifest import BundleError
from cryptoml_serving.contract.prediction import prediction_id as name_of
from cryptoml_serving.contract.registry import BUNDLE_FOLDER, TRIGGER_TAG
from cryptoml_serving.contract.served import SERVED_PREDICTIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryptoml_assets.features.feature import Table

#: Newest days among whose predictions close ids are looked for.
_NEAR_DAYS = 7
_RAW = ("raw_prices", "onchain_blocks", "network_metrics")
_GONE = (LakeError, OSError, pl.exceptions.PolarsError)
#: Largest difference at which a bundle's answer counts as the one that was served.
SAME = 1e-6


class UnknownPredictionError(CryptomlError):
    """No prediction of that id was logged; the message names close ones."""


@dataclass
class Lineage:
    """What is known of a prediction; each part is what one step back has found.

    Attributes:
        prediction: the row of ``served_predictions``.
        approval: the decision under which its version served; none where there is none.
        run: the training run; none where it cannot be read.
        training_data: lake table to the version that the training read.
        read_at: lake table to its version when the prediction was logged.
        inputs: the feature rows it was made of.
        sources: the bars, blocks and metrics those were made of.
        same_inputs: whether the prediction's id, which is made of its inputs too, is theirs; none
            where they cannot be read.
        answers_again: whether the bundle, given the inputs, answers what was served; none where
            that was not asked.
        revised: whether an input or a source is another by now.
        known_in_time: whether every input was known when it was computed.
        problems: what is missing or does not fit, in words.
    """

    prediction: dict[str, Any]
    approval: dict[str, Any] | None = None
    run: dict[str, Any] | None = None
    training_data: dict[str, int] = field(default_factory=dict)
    read_at: dict[str, int] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    same_inputs: bool | None = None
    answers_again: bool | None = None
    revised: bool = False
    known_in_time: bool = False
    problems: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As one JSON object; instants in ISO 8601, UTC."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def lineage(configured: Settings, prediction_id: str, *, verify: bool = False) -> Lineage:
    """Walk a prediction back to its bars and blocks.

    Args:
        configured: says where lake and MLflow are.
        prediction_id: as answered; its beginning will do where no other begins so.
        verify: also let the bundle answer again from the very inputs.

    Raises:
        UnknownPredictionError: no such prediction was logged.
    """
    lake = Lake(configured.lake_uri)
    row = _prediction(lake, prediction_id)
    found = Lineage(row)
    run = _decision_and_run(configured, found, row)
    found.read_at = _read_at(lake, row)
    if run is not None:
        _inputs(lake, found, run, row)
        try:
            found.sources = sources_of(configured, lake, run.manifest, row, found.read_at)
        except _GONE as error:
            found.problems.append(f"bars or blocks cannot be read: {error}")
        given = _given(found, run)
        if len(found.inputs) == len({feature.view for feature in run.manifest.features}):
            _compare_id(found, row, given)
        if verify:
            _answer_again(configured, found, run, row, given)
    found.revised = any(each["revised"] for each in (*found.inputs, *found.sources))
    found.known_in_time = bool(found.inputs) and all(i["known_in_time"] for i in found.inputs)
    return found


def _prediction(lake: Lake, wanted: str) -> dict[str, Any]:
    if not lake.exists(SERVED_PREDICTIONS) or not lake.row_count(SERVED_PREDICTIONS):
        raise UnknownPredictionError(
            "no prediction has been logged yet: the inference service logs those it makes"
        )
    rows = lake.scan(SERVED_PREDICTIONS)
    name = pl.col("prediction_id")
    found = rows.filter(name == wanted).collect()
    if found.is_empty() and wanted:
        found = rows.filter(name.str.starts_with(wanted)).head(2).collect()
    if found.height == 1:
        return dict(found.drop("date").row(0, named=True))
    newest = sorted(lake.day_versions(SERVED_PREDICTIONS))[-_NEAR_DAYS:]
    ids = lake.scan(SERVED_PREDICTIONS, newest).sort("computed_at", descending=True)
    known = ids.select("prediction_id", "computed_at").collect()
    near = difflib.get_close_matches(wanted, known["prediction_id"].head(5000), cutoff=0.5)
    hint = f"close: {', '.join(near)}" if near else f"the newest: {known['prediction_id'][0]}"
    raise UnknownPredictionError(
        f"{'more than one prediction begins' if found.height else 'no prediction begins'} with "
        f"{wanted!r}; {hint}; logged are {lake.row_count(SERVED_PREDICTIONS)}"
    )


def _decision_and_run(
    configured: Settings, found: Lineage, row: Mapping[str, Any]
) -> TrainedRun | None:
    """Fill in the decision and the training run."""
    version = row["model_version"]
    try:
        entry = decision_of(sound_entries(configured), row)
    except ApprovalError as error:
        found.problems.append(str(error))
        return None
    if entry is None:
        found.problems.append(
            f"by decision {row['sequence']} version {version} had no role for bundle "
            f"{row['bundle_digest'][:12]}"
        )
        return None
    found.approval = told(entry)
    found.training_data = dict(entry.record.data_versions)
    try:
        run = trained_run(tracking_client(configured), entry.record.run_id)
    except TrainingRecordError as error:
        found.problems.append(str(error))
        return None
    found.training_data |= run.data_versions
    manifest = run.manifest
    found.run = {
        "run_id": run.run_id,
        "status": run.status,
        "started_at": run.started_at,
        "family": manifest.family,
        "git_commit": manifest.git_commit,
        "triggered_by": run.tags.get(TRIGGER_TAG),
        "dagster_run_id": run.tags.get("dagster_run_id"),
        "training_start": manifest.training_start,
        "training_end": manifest.training_end,
        "test_start": manifest.test_start,
        "test_end": manifest.test_end,
        "features": [feature.name for feature in manifest.features],
        "again": f"cryptoml retrain --run {run.run_id} --verify",
    }
    return run


def _read_at(lake: Lake, row: Mapping[str, Any]) -> dict[str, int]:
    """Version of each table when the prediction was logged, soon after it was computed."""
    day, mine = row["feature_timestamp"].date(), pl.col("prediction_id") == row["prediction_id"]
    log = commits(lake, SERVED_PREDICTIONS)
    first, last = 0, len(log) - 1
    while first < last:
        middle = (first + last) // 2
        held = lake.scan(SERVED_PREDICTIONS, [day], log[middle].version).filter(mine)
        if held.select(pl.len()).collect().item():
            last = middle
        else:
            first = middle + 1
    read = {
        table: version_by(commits(lake, table), log[last].at)
        for table in (*TABLES, *_RAW)
        if lake.exists(table)
    }
    return {table: version for table, version in read.items() if version is not None}


def _inputs(lake: Lake, found: Lineage, run: TrainedRun, row: Mapping[str, Any]) -> None:
    """Fill in the feature rows, as they were when the prediction was logged and as they are."""
    views = {feature.view for feature in run.manifest.features}
    for table in TABLES:
        if table not in views:
            continue
        try:
            then, now = (
                _input(lake, run, table, row, version)
                for version in (found.read_at.get(table), None)
            )
        except _GONE as error:
            found.problems.append(f"{table} cannot be read: {error}")
            continue
        revised = changed_values(then, now)
        told_of = asdict(then) | {"revised": revised, "version": found.read_at.get(table)}
        found.inputs.append(told_of)
        if then.event_timestamp is None:
            found.problems.append(f"{table} held no row of {row['symbol']} by then")


def _input(
    lake: Lake, run: TrainedRun, table: Table, row: Mapping[str, Any], version: int | None
) -> Input:
    """A prediction has the instant of its price features; of others it read the newest row."""
    own = table == TABLES[0]
    at = row["feature_timestamp" if own else "computed_at"]
    ttl = timedelta(0) if own else TTL
    oldest = (at - ttl - LONGEST_LAG).date()
    stored = lake.day_versions(table, version=version)
    days = [day for day in stored if oldest <= day <= at.date()]
    rows = lake.scan(table, days, version)
    return input_row(rows, run.manifest, table, {**row, "feature_timestamp": at}, ttl=ttl)


def _given(found: Lineage, run: TrainedRun) -> NDArray[np.float64]:
    """The inputs as the bundle takes them, shape (1, features)."""
    known = {name: value for each in found.inputs for name, value in each["values"].items()}
    values = [known.get(feature.name) for feature in run.manifest.features]
    return np.array([[np.nan if value is None else value for value in values]])


def _compare_id(found: Lineage, row: Mapping[str, Any], given: NDArray[np.float64]) -> None:
    """Say whether these are the very inputs that the prediction's id is made of."""
    name = name_of(row["bundle_digest"], row["symbol"], row["feature_timestamp"], given[0])
    found.same_inputs = str(name) == row["prediction_id"]
    if not found.same_inputs:
        found.problems.append(
            f"these are not the inputs it was made of: of them it would be called {name}"
        )


def _answer_again(
    configured: Settings,
    found: Lineage,
    run: TrainedRun,
    row: Mapping[str, Any],
    given: NDArray[np.float64],
) -> None:
    """Let the verified bundle answer from the inputs as they were."""
    client = tracking_client(configured)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetched = Path(client.download_artifacts(run.run_id, BUNDLE_FOLDER, folder))
            bundle = load_bundle(fetched, expected_digest=row["bundle_digest"])
        except (OSError, BundleError) as error:
            found.problems.append(f"the bundle cannot answer again: {error}")
            return
        answers = bundle.predict(given)
    gaps = {name: abs(float(answer[0]) - row[name]) for name, answer in answers.items()}
    found.answers_again = max(gaps.values()) <= SAME
    if not found.answers_again:
        worst = max(gaps, key=lambda name: gaps[name])
        found.problems.append(
            f"from these inputs the bundle answers another {worst}, by {gaps[worst]:.3g}"
        )


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it."""
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(name): plain(each) for name, each in value.items()}
        case str() | int() | None:
            return value
        case float():
            return value if np.isfinite(value) else None
        case Sequence():
            return [plain(each) for each in value]
        case _:
            return str(value)
