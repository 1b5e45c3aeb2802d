"""Train a run again from the record it left behind, and compare what comes out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cryptoml_assets.errors import LakeError, TrainingRecordError, UnsafeFolderError
from cryptoml_assets.models.record import (
    RECORD_FILE,
    TrainingRecord,
    differences,
    environment,
    read_record,
    rows_digest,
)
from cryptoml_assets.operations.tracking import tracking_client
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.bundle import WEIGHTS_FILE, read_manifest
from cryptoml_serving.contract.manifest import BundleError, Manifest
from cryptoml_serving.contract.registry import BUNDLE_FOLDER, DIGEST_TAG
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.contract.stores import masked

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TABLE = "training_set"


@dataclass(frozen=True)
class Differences:
    """In what a bundle differs from the one a run left behind.

    Attributes:
        files: names of files whose bytes differ.
        manifest: names of manifest entries that differ, metrics and files apart.
        weights: largest absolute difference of each array that differs; none where one of the two
            has no such array, or one of another shape.
        metrics: figures that differ, as they were and as they are.
    """

    files: tuple[str, ...] = ()
    manifest: tuple[str, ...] = ()
    weights: Mapping[str, float | None] = field(default_factory=dict)
    metrics: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a run's record gave when it was trained again.

    Attributes:
        run_id: the MLflow run.
        expected_digest: of the bundle the run left behind.
        digest: of the bundle trained now.
        same_rows: whether the table version still holds the rows the run learnt from.
        environment: what of code, libraries and machine was one thing then and is another now.
        differences: of the two bundles, where they differ and were compared.
        bundle: folder of the bundle trained now, where it was to be kept.
    """

    run_id: str
    expected_digest: str
    digest: str
    same_rows: bool
    environment: Mapping[str, tuple[Any, Any]]
    differences: Differences | None = None
    bundle: str | None = None

    @property
    def same(self) -> bool:
        """Whether the very same bundle came out, of the very same rows."""
        return self.same_rows and self.digest == self.expected_digest

    def told(self) -> dict[str, Any]:
        """As one JSON object."""
        return {**asdict(self), "same": self.same}


def retrain(
    configured: Settings,
    run_id: str,
    *,
    out: Path | None,
    compare: bool,
    say: Callable[[str], None],
) -> Outcome:
    """Train what a run trained, from its record alone; registers nothing.

    Args:
        configured: says where MLflow, the lake and the home are.
        run_id: an MLflow run of a training.
        out: where the bundle goes, new or empty; nowhere when not given.
        compare: look at the run's own bundle where its digest is another.
        say: receives progress, a line at a time.

    Raises:
        SettingsError: ``out`` already holds something.
        TrainingRecordError: no such run, a run without a record, or rows that are gone.
        TrainingResourcesError: it needs more memory than there is.
        TrainingDataError: rows that cannot be learnt from.
    """
    if out is not None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SettingsError(f"--out {out} already holds something; expected a new or empty folder")
    client = tracking_client(configured)
    with tempfile.TemporaryDirectory() as work:
        expected, record = _run(client, run_id, configured.tracking_address, Path(work))
        frame = _rows(configured, record)
        changed, same_rows = _announce(record, frame, say)
        folder = out or Path(work, "retrained")
        digest = _train(configured, frame, record, folder, say)
        found = None
        if compare and digest != expected:
            stored = Path(client.download_artifacts(run_id, BUNDLE_FOLDER, work))
            found = _compared(stored, folder, expected)
    kept = str(out) if out is not None else None
    return Outcome(run_id, expected, digest, same_rows, changed, found, kept)


def summary(outcome: Outcome) -> list[str]:
    """Lines for a person on how the two bundles compare."""
    if outcome.same:
        return [f"the same bundle: {outcome.digest}"]
    lines = [
        f"another bundle: {outcome.digest}",
        f"the run's was:  {outcome.expected_digest}",
    ]
    if not outcome.same_rows:
        lines.append("the rows are others than those the run learnt from")
    if outcome.environment:
        lines.append(
            "of code, libraries and machine there differ: " + ", ".join(outcome.environment)
        )
    found = outcome.differences or Differences()
    lines += [f"file {name} differs" for name in found.files]
    lines += [f"manifest: {name} differs" for name in found.manifest]
    for name, largest in found.weights.items():
        how = "is missing or of another shape" if largest is None else f"differs by {largest:.3g}"
        lines.append(f"weights {name}: {how}")
    for name, (before, after) in found.metrics.items():
        lines.append(f"metric {name}: {before} then, {after} now")
    return lines


def _run(client: Any, run_id: str, address: str, work: Path) -> tuple[str, TrainingRecord]:
    """Bundle digest and record of a run in MLflow at ``address``.

    Raises:
        TrainingRecordError: no such run, or one that has none.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise TrainingRecordError(
            f"no run {run_id} in {masked(address)}: {error.message}"
        ) from error
    folder, _, _ = RECORD_FILE.rpartition("/")
    files = {each.path for each in client.list_artifacts(run_id, folder)}
    if RECORD_FILE not in files or DIGEST_TAG not in run.data.tags:
        raise TrainingRecordError(
            f"run {run_id} left no {RECORD_FILE} and bundle behind, so it cannot be trained again: "
            "it is no training of a bundle, failed, or is older than these records"
        )
    record = Path(client.download_artifacts(run_id, RECORD_FILE, str(work))).read_bytes()
    return run.data.tags[DIGEST_TAG], read_record(record)


def _rows(configured: Settings, record: TrainingRecord) -> pl.DataFrame:
    """The training set in the version that a record names.

    Raises:
        TrainingRecordError: it names none, or that version is gone.
    """
    version = record.task.lake_versions.get(_TABLE)
    if version is None:
        raise TrainingRecordError(f"the record names no version of {_TABLE}")
    lake = Lake(configured.lake_uri)
    try:
        return lake.scan(_TABLE, version=version).collect()
    except (LakeError, OSError, pl.exceptions.PolarsError) as error:
        raise TrainingRecordError(
            f"version {version} of {_TABLE} in {lake.uri} cannot be read any more: its files were "
            f"vacuumed or its log was cleaned, or this is another lake than the run's ({error})"
        ) from error


def _announce(
    record: TrainingRecord, frame: pl.DataFrame, say: Callable[[str], None]
) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Say what is about to be trained, and what stands in the way of the same numbers."""
    task = record.task
    say(
        f"{task.family} of {task.model_name}, asked for by {record.triggered_by}: {frame.height} "
        f"rows of {_TABLE} version {task.lake_versions[_TABLE]}, {len(task.features)} features"
    )
    changed = differences(record.environment, environment())
    for name, (before, after) in changed.items():
        say(f"{name}: {before} then, {after} now")
    if changed:
        say("the same bundle is not to be expected")
    same_rows = rows_digest(frame, task) == record.rows
    if not same_rows:
        say("these rows are not those the run learnt from: the table was altered")
    return changed, same_rows


def _train(
    configured: Settings,
    frame: pl.DataFrame,
    record: TrainingRecord,
    folder: Path,
    say: Callable[[str], None],
) -> str:
    """Train into ``folder``; the bundle's digest."""
    import jax  # noqa: PLC0415 - seconds to import

    from cryptoml_assets.models.candidates import train_candidate  # noqa: PLC0415
    from cryptoml_assets.models.compilation import (  # noqa: PLC0415
        CACHE_FOLDER,
        use_compilation_cache,
    )
    from cryptoml_assets.models.resources import (  # noqa: PLC0415
        check_fits,
        cores,
        gpu_memory,
        memory_limit,
        training_request,
        workload,
    )

    gpus = jax.device_count() if jax.default_backend() == "gpu" else 0
    need = training_request(workload(record.task, frame.height, gpus=gpus), threads=cores())
    check_fits(need, memory_limit(configured.training_memory_gib), gpu_memory())
    try:
        use_compilation_cache(configured.home_path / CACHE_FOLDER)
    except UnsafeFolderError as error:
        say(f"compiling anew, nothing kept: {error}")
    return train_candidate(frame, record.task, folder, log=say).digest


def _compared(stored: Path, trained: Path, expected: str) -> Differences:
    """In what two bundles differ.

    Raises:
        TrainingRecordError: the stored one is not the one the run was tagged with.
    """
    try:
        before = read_manifest(stored, expected_digest=expected)
    except BundleError as error:
        raise TrainingRecordError(f"the run's own bundle was altered: {error}") from error
    after = read_manifest(trained)
    files = {*before.files, *after.files}
    entries = set(Manifest.model_fields) - {"files", "metrics"}
    names = {*before.metrics, *after.metrics}
    metrics = {name: (before.metrics.get(name), after.metrics.get(name)) for name in sorted(names)}
    return Differences(
        files=tuple(sorted(f for f in files if before.files.get(f) != after.files.get(f))),
        manifest=tuple(sorted(e for e in entries if getattr(before, e) != getattr(after, e))),
        weights=_weight_differences(stored / WEIGHTS_FILE, trained / WEIGHTS_FILE),
        metrics={name: pair for name, pair in metrics.items() if pair[0] != pair[1]},
    )


def _weight_differences(before: Path, after: Path) -> dict[str, float | None]:
    from safetensors.numpy import load_file  # noqa: PLC0415 - only bundles that differ need it

    old: dict[str, NDArray[Any]] = load_file(before)
    new: dict[str, NDArray[Any]] = load_file(after)
    found: dict[str, float | None] = {}
    for name in sorted({*old, *new}):
        if name not in old or name not in new or old[name].shape != new[name].shape:
            found[name] = None
        elif old[name].tobytes() != new[name].tobytes():
            gap = np.abs(old[name].astype(np.float64) - new[name].astype(np.float64))
            found[name] = float(gap.max())
    return found
