"""Assets of the models room: candidates for serving, each a registered version of one model."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cryptoml_assets.errors import UnsafeFolderError
from cryptoml_assets.models.compilation import CACHE_FOLDER, use_compilation_cache
from cryptoml_assets.models.options import Layout
from cryptoml_assets.models.planning import resource_tags, tasks
from cryptoml_assets.models.provenance import triggered_by
from cryptoml_assets.models.resources import (
    check_fits,
    cores,
    gpu_memory,
    memory_limit,
    training_request,
    workload,
)
from cryptoml_assets.models.task import Task, TrainingConfig, input_digest
from cryptoml_assets.plots import figure_metadata
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns, markdown_table
from cryptoml_serving.contract.registry import (
    AS_OF_TAG,
    DIGEST_TAG,
    FAMILY_TAG,
    INPUT_TAG,
    SOURCE_TAG,
    TRIGGER_TAG,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryptoml_assets.models.candidates import Trained
    from cryptoml_assets.models.checkpoints import Checkpoints

#: Below the home: which layout was measured to be faster.
_LAYOUTS = "layouts.json"
#: Age past which the checkpoints of a training that nobody went on with are removed.
_FORGOTTEN = timedelta(days=7)
_NAMES = {
    "family": "kind of model",
    "model_name": "registered model",
    "model_version": "the registry's version",
    "run_id": "MLflow run that trained it",
    "bundle_digest": "SHA-256 of the bundle",
}
_HEADLINES = {
    "test_rows": "rows out of sample",
    "log_loss_skill": "share of the base rate's log loss saved",
    "direction_p_value": "chance of so much directional skill by luck",
    "crps_skill": "share of the past distribution's CRPS saved",
    "crps_p_value": "chance of so much distributional skill by luck",
    "information_coefficient": "correlation of expected return and label",
    "accuracy": "share of directions told right",
    "coverage": "share of labels inside the 90 % interval",
}
#: Settings that say how rows are cut into parts, and what trades cost.
_SPLIT = {"test_share", "embargo", "folds", "fold_window", "fee_bps", "slippage_bps"}
_TYPES = dict.fromkeys(_NAMES, pl.String()) | dict.fromkeys(_HEADLINES, pl.Float64())


class CandidateConfig(dg.Config):
    """What one run of ``candidate_models`` may do in another way than the settings say."""

    search_trials: int = 0
    """Configurations to try for each family; 0: as many as ``CRYPTOML_SEARCH_TRIALS`` says."""


@dg.asset(
    deps=["training_set"],
    group_name="models",
    kinds={"jax", "flax", "mlflow"},
    owners=["team:research"],
    code_version="1",
    io_manager_key="lake",
    metadata=described_columns(_TYPES, _NAMES | _HEADLINES, ("family",)),
    op_tags=resource_tags(settings()),
)
def candidate_models(
    context: dg.AssetExecutionContext,
    config: CandidateConfig,
    lake: dg.ResourceParam[LakeIOManager],
    tracker: Tracker,
) -> dg.MaterializeResult[pl.DataFrame]:
    """Trained, calibrated and registered models that ask to be approved.

    One row per model family: its registered version, the digest of its bundle, and its headline
    figures in the newest walk-forward fold. Where rows, settings, code and libraries of a family
    are those of its newest registered version, that version stands again and nothing is trained.
    """
    from cryptoml_assets.models.registration import newest_version  # noqa: PLC0415

    # Read at a pinned version, so that the manifest names the very rows the model learnt from.
    configured, table_version = settings(), lake.lake.version("training_set")
    as_of = configured.clock()
    if config.search_trials:
        configured = configured.model_copy(update={"search_trials": config.search_trials})
    rows = lake.lake.scan("training_set", version=table_version).collect()
    wanted: dict[str, Task] = {task.family: task for task in tasks(configured, table_version)}
    inputs = {family: input_digest(rows, task) for family, task in wanted.items()}
    versions: dict[str, Any] = {}
    for family, task in wanted.items():
        newest = newest_version(tracker.client(), task.model_name, family)
        if newest is not None and newest.tags.get(INPUT_TAG) == inputs[family]:
            context.log.info(
                "%s: version %s was trained on all the same: reused", family, newest.version
            )
            versions[family] = newest
    missing = [task for family, task in wanted.items() if family not in versions]
    plots: dict[str, dict[str, Figure]] = {}
    if missing:
        session = _Session(context, tracker, rows, inputs, configured, as_of)
        session.prepare(missing)
        with tempfile.TemporaryDirectory() as work:
            # All are trained before any is registered: a family that fails leaves nothing behind.
            learnt = {task.family: session.train(task, Path(work, task.family)) for task in missing}
            plots = {family: _plots(trained) for family, trained in learnt.items()}
            for task in missing:
                family, folder = task.family, Path(work, task.family)
                versions[family] = session.register(task, learnt[family], plots[family], folder)
    return _result(tracker, {family: versions[family] for family in wanted}, plots)


@dataclass
class _Session:
    """The trainings of one run.

    Attributes:
        context: of the run.
        tracker: where candidates are registered.
        rows: the training set.
        inputs: digest of all that decides a candidate's numbers, by family.
        configured: the settings.
        as_of: the world's instant at which the rows were read.
        vectorised: the layout, once prepared.
    """

    context: dg.AssetExecutionContext
    tracker: Tracker
    rows: pl.DataFrame
    inputs: Mapping[str, str]
    configured: Settings
    as_of: datetime
    vectorised: bool = False

    def prepare(self, missing: Sequence[Task]) -> None:
        """Tell the layout, and refuse what cannot be trained before anything starts.

        Without a folder that is ours alone nothing compiled is kept, which costs time only.

        Raises:
            TrainingResourcesError: more memory than there is.
        """
        import jax  # noqa: PLC0415

        from cryptoml_assets.models.checkpoints import forget_old  # noqa: PLC0415
        from cryptoml_assets.models.layout import is_vectorised  # noqa: PLC0415

        home = self.configured.home_path
        try:
            use_compilation_cache(home / CACHE_FOLDER)
        except UnsafeFolderError as error:
            self.context.log.warning("compiling anew, nothing kept: %s", error)
        forget_old(self.configured.checkpoints_path, _FORGOTTEN, time.time())
        known, log = home / _LAYOUTS, self.context.log.info
        self.vectorised = is_vectorised(self.configured.layout, known, log)
        gpus = jax.device_count() if jax.default_backend() == "gpu" else 0
        limit = memory_limit(self.configured.training_memory_gib)
        for task in missing:
            load = workload(task, self.rows.height, gpus=gpus)
            load = replace(load, vectorised=self.vectorised)
            check_fits(training_request(load, threads=cores()), limit, gpu_memory())

    def train(self, task: Task, folder: Path) -> "Trained":
        """Train one family into a new folder, or go on where a killed training stopped."""
        from cryptoml_assets.models.candidates import train_candidate  # noqa: PLC0415

        def log(line: str) -> None:
            self.context.log.info("%s: %s", task.family, line)

        folder.mkdir()
        trained = train_candidate(
            self.rows,
            task,
            folder / "bundle",
            log=log,
            vectorised=self.vectorised,
            checkpoints=self._checkpoints(task, log),
        )
        if trained.unseen:
            names = ", ".join(trained.unseen)
            self.context.log.warning(
                "%s: too few changes of value to learn from: %s", task.family, names
            )
        return trained

    def register(
        self, task: Task, trained: "Trained", plots: "Mapping[str, Figure]", folder: Path
    ) -> Any:
        """Record what a training left behind, register it, and forget its checkpoints."""
        from cryptoml_assets.models.record import write_record  # noqa: PLC0415
        from cryptoml_assets.models.registration import Candidate, register  # noqa: PLC0415

        asked = triggered_by(self.context.run.tags)
        upstream = _upstream_versions(self.context.instance, task.lake_versions["training_set"])
        candidate = Candidate(
            trained=trained,
            inputs=self.inputs[task.family],
            record=write_record(_laid_out(task, trained), self.rows, triggered_by=asked),
            parameters=_parameters(self.configured),
            tags={TRIGGER_TAG: asked, AS_OF_TAG: self.as_of.isoformat(), **upstream},
            figures={f"{name}.png": figure for name, figure in plots.items()},
            training_set=self.rows,
        )
        with self.tracker.run(self.context, task.family) as run:
            version = register(self.tracker.client(), run.info.run_id, candidate, folder)
        self._checkpoints(task, self.context.log.info).clear()
        return version

    def _checkpoints(self, task: Task, log: Callable[[str], None]) -> "Checkpoints":
        """Those of this very training, on such a machine and in this layout."""
        from cryptoml_assets.models.checkpoints import Checkpoints  # noqa: PLC0415
        from cryptoml_assets.models.record import environment  # noqa: PLC0415

        decides = (self.inputs[task.family], self.vectorised, sorted(asdict(environment()).items()))
        name = hashlib.sha256(repr(decides).encode()).hexdigest()
        folder = self.configured.checkpoints_path / name
        return Checkpoints(folder, self.configured.checkpoint_interval, log)


def _laid_out(task: Task, trained: "Trained") -> Task:
    """The task with the layout that was really used: the last bits of a model depend on it."""
    layout: Layout = "vectorised" if trained.vectorised else "loop"
    return replace(task, training=replace(task.training, layout=layout))


def _result(
    tracker: Tracker, versions: Mapping[str, Any], plots: "Mapping[str, Mapping[str, Figure]]"
) -> dg.MaterializeResult[pl.DataFrame]:
    """A row for each registered version, as the tracker has it, and what was drawn of new ones."""
    from cryptoml_assets.models.registration import out_of_sample_figures  # noqa: PLC0415

    runs = {name: tracker.client().get_run(each.run_id) for name, each in versions.items()}
    figures = {name: out_of_sample_figures(run) for name, run in runs.items()}
    rows = [
        {
            "family": version.tags[FAMILY_TAG],
            "model_name": version.name,
            "model_version": str(version.version),
            "run_id": version.run_id,
            "bundle_digest": version.tags[DIGEST_TAG],
            **{name: figures[family][name] for name in _HEADLINES},
        }
        for family, version in versions.items()
    ]
    drawn = {
        f"{name}_{family}": figure_metadata(figure)
        for family, own in plots.items()
        for name, figure in own.items()
    }
    return dg.MaterializeResult(
        value=pl.DataFrame(rows, schema=_TYPES),
        metadata={
            "families": len(rows),
            "trained": list(plots),
            "reused": [family for family in versions if family not in plots],
            "source": sorted({version.tags[SOURCE_TAG] for version in versions.values()}),
            "git_commit": sorted({run.data.tags["git_commit"] for run in runs.values()}),
            "figures": dg.MetadataValue.md(_figures_table(figures)),
            **drawn,
        },
    )


def _figures_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Every figure of the newest fold, a column for each family."""
    names = sorted(set().union(*figures.values()))
    rows = [(name, *(each.get(name, "") for each in figures.values())) for name in names]
    return markdown_table(("figure", *figures), rows)


def _parameters(configured: Settings) -> dict[str, Any]:
    """The settings a candidate was trained with, spelled as in the environment."""
    names = {field.name for field in fields(TrainingConfig)} | _SPLIT
    return configured.model_dump(mode="json", include=names)


def _upstream_versions(instance: dg.DagsterInstance, training_set_version: int) -> dict[str, str]:
    """Tags that name the tables this version of the training set was made of, where recorded."""
    event = instance.get_latest_materialization_event(dg.AssetKey("training_set"))
    made = event.asset_materialization if event is not None else None
    recorded: dict[str, Any] = {}
    if made is not None:
        recorded = {name: entry.value for name, entry in made.metadata.items()}
    if recorded.get("table_version") != training_set_version:
        return {}
    return {f"lake.{table}": str(number) for table, number in recorded["lake_versions"].items()}


def _plots(trained: "Trained") -> "dict[str, Figure]":
    from cryptoml_assets.models import figures  # noqa: PLC0415

    newest = trained.folds[-1]
    plots = {"calibration": figures.calibration_plot(newest.rows, newest.answers)}
    if trained.history:
        plots["learning_curve"] = figures.learning_curve(trained.history)
    return plots
