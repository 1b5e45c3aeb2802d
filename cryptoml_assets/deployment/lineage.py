"""From a prediction back to its decision, training run, feature rows, bars and blocks.

Every step is found by what the step before says, and a step that is missing is told, not guessed.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import ValidationError

from cryptoml_assets.deployment.standing import standing
from cryptoml_assets.errors import TrainingRecordError
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.reasons import NULL_REASON
from cryptoml_serving.contract.bundle import MANIFEST_FILE
from cryptoml_serving.contract.manifest import Manifest
from cryptoml_serving.contract.registry import BUNDLE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptoml_assets.deployment.history import Entry
    from cryptoml_assets.features.feature import Feature, Table

_VERSION_TAG = "lake."
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class TrainedRun:
    """A training run as it can be read now.

    Attributes:
        run_id: in MLflow.
        manifest: of the bundle it left behind.
        tags: provenance.
        started_at: by the clock of the machine that trained.
        status: what MLflow says of the run.
    """

    run_id: str
    manifest: Manifest
    tags: Mapping[str, str]
    started_at: datetime
    status: str

    @property
    def data_versions(self) -> dict[str, int]:
        """Lake table to the version its rows came from, as far as was recorded."""
        tagged = {
            name.removeprefix(_VERSION_TAG): int(value)
            for name, value in self.tags.items()
            if name.startswith(_VERSION_TAG) and value.isdecimal()
        }
        return {**tagged, **self.manifest.lake_versions}


@dataclass(frozen=True)
class Input:
    """The row of one feature table that a prediction was made of.

    Attributes:
        table: the feature table.
        event_timestamp: instant from which the row could be known; none where there was no row.
        known_in_time: whether that was not after the prediction was computed.
        values: what the model read.
        null_reason: why values are null.
        revised: what the same values are now, where they are others.
    """

    table: str
    event_timestamp: datetime | None
    known_in_time: bool
    values: Mapping[str, float | None]
    null_reason: str | None = None
    revised: Mapping[str, float | None] = field(default_factory=dict)


def trained_run(client: Any, run_id: str) -> TrainedRun:
    """What a training run left behind.

    Raises:
        TrainingRecordError: no such run, or one whose bundle cannot be read.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    try:
        run = client.get_run(run_id)
        with tempfile.TemporaryDirectory() as folder:
            name = f"{BUNDLE_FOLDER}/{MANIFEST_FILE}"
            data = Path(client.download_artifacts(run_id, name, folder)).read_bytes()
        manifest = Manifest.model_validate_json(data)
    except (MlflowException, OSError, ValidationError) as error:
        raise TrainingRecordError(f"run {run_id} cannot be read any more: {error}") from error
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return TrainedRun(run_id, manifest, run.data.tags, started, run.info.status)


def decision_of(entries: Sequence[Entry], prediction: Mapping[str, Any]) -> Entry | None:
    """The decision that was in force for the version which made a prediction, by its log."""
    made = [entry for entry in entries if entry.record.sequence <= prediction["sequence"]]
    subject = (prediction["model_version"], prediction["bundle_digest"])
    in_force = standing(made, prediction["model_name"]).entries
    return next(
        (e for e in in_force if (e.record.model_version, e.record.bundle_digest) == subject), None
    )


def inputs_of(manifest: Manifest, table: Table) -> tuple[Feature, ...]:
    """What a model reads of a feature table, as the catalog has it; names it lacks are left out."""
    read = {feature.name for feature in manifest.features if feature.view == table}
    return tuple(feature for feature in features_of(table) if feature.name in read)


def input_row(
    rows: pl.LazyFrame,
    manifest: Manifest,
    table: Table,
    prediction: Mapping[str, Any],
    *,
    ttl: timedelta,
) -> Input:
    """The row of a feature table that was known at the instant of a prediction.

    Args:
        rows: the table.
        manifest: names the inputs.
        table: its name.
        prediction: symbol, feature_timestamp and computed_at.
        ttl: age past which a row is no longer used.
    """
    kinds = rows.collect_schema()
    names = [feature.name for feature in inputs_of(manifest, table) if feature.name in kinds]
    at = prediction["feature_timestamp"]
    event = pl.col("event_timestamp")
    found = (
        rows.filter(pl.col("symbol") == prediction["symbol"], event.is_between(at - ttl, at))
        .select("event_timestamp", *names, NULL_REASON)
        .sort("event_timestamp")
        .tail(1)
        .collect()
    )
    if found.is_empty():
        return Input(table, None, known_in_time=False, values=dict.fromkeys(names))
    row = found.row(0, named=True)
    return Input(
        table,
        row["event_timestamp"],
        known_in_time=row["event_timestamp"] <= prediction["computed_at"],
        values={name: row[name] for name in names},
        null_reason=row[NULL_REASON],
    )


def changed_values(then: Input, now: Input) -> dict[str, float | None]:
    """Those values of ``now`` that are others than ``then``'s; two that are no numbers are one."""
    old, new = (pl.DataFrame([dict(each.values)]).cast(pl.Float64) for each in (then, now))
    return {
        name: new[name][0]
        for name in old.columns
        if name in new.columns and not old[name].equals(new[name], null_equal=True)
    }


def bar_window(
    features: Sequence[Feature], feature_timestamp: datetime, bar: timedelta
) -> tuple[datetime, datetime]:
    """Opens of the bars that price features are made of: from the first on, before the second."""
    reach = max((feature.warmup for feature in features), default=0)
    return feature_timestamp - (reach + 1) * bar, feature_timestamp


def day_window(features: Sequence[Feature], day: datetime) -> tuple[datetime, datetime]:
    """Days that the on-chain features of a UTC day are made of, as for :func:`bar_window`."""
    reach = max((feature.warmup for feature in features), default=0)
    return day - reach * _DAY, day + _DAY
