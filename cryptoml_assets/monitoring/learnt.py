"""What the versions of a model learnt from, by their decisions and training runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptoml_assets.deployment.history import Entry
from cryptoml_assets.deployment.lineage import TrainedRun, trained_run
from cryptoml_assets.errors import TrainingRecordError
from cryptoml_assets.features.feature import TABLES
from cryptoml_assets.monitoring.commits import commits, version_by
from cryptoml_assets.monitoring.gone import record_gone
from cryptoml_assets.monitoring.revisions import Learnt
from cryptoml_assets.resources.lake import Lake


def learnt_by(
    client: Any, lake: Lake, model_name: str, entries: Sequence[Entry]
) -> Callable[[str], Learnt | None]:
    """Answers what a version learnt from; none where neither decision nor registry lead to its run.

    Where tracker or store do not say that the run is gone, as in an outage, the answer is a
    :class:`TrainingRecordError`: asked again later, it may be known.

    Args:
        client: of the tracker.
        lake: holds the tables it learnt from.
        model_name: the registered model.
        entries: all decisions.
    """
    decided = {e.record.model_version: e for e in entries if e.record.model_name == model_name}

    def learnt(version: str) -> Learnt | None:
        entry = decided.get(version)
        run_id = entry.record.run_id if entry else None
        try:
            run_id = run_id or _registered(client, model_name, version)
            run = trained_run(client, run_id)
        except TrainingRecordError as error:
            if record_gone(client, run_id, error):
                return None
            raise
        return learnt_of_run(lake, version, run, entry.record.data_versions if entry else {})

    return learnt


def learnt_of_run(lake: Lake, version: str, run: TrainedRun, signed: Mapping[str, int]) -> Learnt:
    """What a run's model learnt from.

    Args:
        lake: holds the tables; where the run names no version of one, the one that was the newest
            when it began.
        version: the registry's version of the model.
        run: its training run.
        signed: versions that its approval names.
    """
    manifest = run.manifest
    named = {**run.data_versions, **signed}
    versions: dict[str, int] = {}
    for table in TABLES:
        found = named.get(table)
        if found is None and lake.exists(table):
            found = version_by(commits(lake, table), run.started_at)
        if found is not None:
            versions[table] = found
    read = {view: {f.name for f in manifest.features if f.view == view} for view in TABLES}
    return Learnt(
        model_version=version,
        inputs={view: frozenset(names) for view, names in read.items()},
        start=manifest.training_start,
        end=max(manifest.test_end, manifest.training_end),
        versions=versions,
    )


def _registered(client: Any, model_name: str, version: str) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    try:
        return str(client.get_model_version(model_name, version).run_id)
    except MlflowException as error:
        raise TrainingRecordError(f"{model_name} has no version {version}: {error}") from error
