"""What a training asks of a machine: memory, processor cores and GPUs, before anything is started.

With V = rows x features, in bytes, on the host:

- 1.25 GiB for Python, the libraries, compiled programs, and what the allocator keeps of freed
  arrays below 32 MiB; 200 a row for symbols, times, labels and answers;
- 36 V while the table (8, as float64) is sorted (8), laid out as columns (8) and as a matrix (8),
  and made float32 (4); later the table and the rows (12 V) with, for each fold, its standardised
  rows (4 V) and their copy on the device (4 V). The larger of the two counts. Folds trained as one
  program are stacked in one more copy (4 V each). On a GPU the device's copies are not the host's;
- for each member, three copies of its parameters, their two moments and the best ones so far; and
  for each member trained at the same time, what a step needs: gradients, updates and activations of
  a batch there and back, or the activations of a chunk of validation rows. Members are either the
  trials of the search, on one fold from one start, or then the folds x seeds.

``tests/integration/test_training_memory.py`` holds the sum against the peak of a real training, and
``tests/unit/models/test_resources.py`` what a member needs against the compiler's own account.
From 20 000 x 40 to 1 000 000 x 40, over 1 to 6 folds on two cores, it was 1.2 to 1.7 times that
peak. The figures for GPUs follow from the shapes of the arrays alone.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoml_assets.errors import TrainingResourcesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    from cryptoml_assets.models.options import Family
    from cryptoml_assets.models.task import Task

_MEBI, _GIBI = 2**20, 2**30
_PROCESS_BYTES = 5 * _GIBI // 4
_ROW_BYTES = 200
_READING = 36
_HELD = 12
_FLOAT = 4
#: Parameters, two moments, best parameters: as they were, as they become, and as they are returned.
_STATE_COPIES = 12
#: Gradients, updates and moments while a step is made.
_STEP_COPIES = 6
#: Numbers that a step has of each number a row becomes: as it is, as it was kept, and its gradient.
_BATCH_COPIES = 3
#: Numbers of a row's two answers and its loss.
_LOSS_NUMBERS = 8
#: Rows of a chunk of validation rows; see ``population``.
_CHUNK = 8192
#: Steps one convolution sees; see ``families.tcn``.
_KERNEL = 4
#: More cores than this are seldom free on one node, and members beyond them wait their turn.
_MOST_CPUS = 4
_SPOT_LABELS = {
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
_GPU = "nvidia.com/gpu"
#: What makes each part smaller.
_LOWER = {
    "rows": "lower CRYPTOML_TRAINING_DAYS, CRYPTOML_SYMBOLS or CRYPTOML_FOLDS",
    "networks": "lower CRYPTOML_SEARCH_TRIALS, CRYPTOML_ENSEMBLE_SIZE, CRYPTOML_BATCH_SIZE or "
    "CRYPTOML_HIDDEN_UNITS, set CRYPTOML_LAYOUT=loop",
}


@dataclass(frozen=True)
class Workload:
    """A training by its sizes.

    Attributes:
        rows: of the training set.
        features: input columns.
        hidden_units: widths of the layers; none where nothing is trained step by step.
        batch_size: rows of a step.
        family: kind of model.
        folds: walk-forward folds.
        seeds: members of an ensemble.
        trials: searched configurations.
        vectorised: whether all members are trained as one program.
        gpus: devices; 0 is the processor.
        channels: of a window, 0 for a family that sees one row.
        steps: bars of a window, 1 for a family that sees one row.
    """

    rows: int
    features: int
    hidden_units: tuple[int, ...]
    batch_size: int
    family: Family = "mlp"
    folds: int = 1
    seeds: int = 1
    trials: int = 1
    vectorised: bool = False
    gpus: int = 0
    channels: int = 0
    steps: int = 1

    @property
    def population(self) -> int:
        """Members: most networks there are at once.

        A search tries its configurations on one fold from one start, and is over before each fold
        is trained from each seed.
        """
        if not self.hidden_units:
            return 1
        return max(self.trials if self.trials > 1 else 0, self.folds * self.seeds)


@dataclass(frozen=True)
class Request:
    """What a training asks for.

    Attributes:
        parts: bytes of host memory by what they are for: process, rows, networks.
        cpus: cores it has work for.
        gpus: devices it runs on.
        gpu_bytes: memory of each of them; 0 without any.
    """

    parts: Mapping[str, int]
    cpus: int
    gpus: int = 0
    gpu_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """Host memory in all, an upper bound."""
        return sum(self.parts.values())


def workload(task: Task, rows: int, *, gpus: int = 0) -> Workload:
    """The sizes of training one family.

    A layout that is yet to be chosen counts as the one a device of that kind gains most from.

    Args:
        task: what to train.
        rows: of the training set, or how many are expected.
        gpus: devices there are; 0 is the processor.
    """
    config = task.training
    layouts = {"loop": False, "vectorised": True}
    return Workload(
        rows=rows,
        features=len(task.features),
        hidden_units=() if task.family == "linear" else config.hidden_units,
        batch_size=config.batch_size,
        family=task.family,
        folds=task.folds,
        seeds=config.ensemble_size,
        trials=config.search_trials,
        vectorised=layouts.get(config.layout, gpus > 0),
        gpus=gpus,
        channels=len(task.channels),
        steps=max(map(len, task.channels), default=1),
    )


def planned_rows(window: timedelta, bar: timedelta, symbols: int) -> int:
    """Rows of a training set over a window of history, before any has been read."""
    return -(-window // bar) * symbols


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def training_threads(members: int, cores: int) -> int:
    """Members trained at the same time when they take turns.

    However many cores a node has, no more than are asked for: the memory asked for is for those.

    Args:
        members: networks to train.
        cores: that the process may use.
    """
    return max(1, min(_MOST_CPUS, cores, members))


def training_request(load: Workload, *, threads: int | None = None) -> Request:
    """What a training of these sizes asks for; the arithmetic stands at the head of this module.

    Args:
        load: the sizes.
        threads: cores there are for members that take turns, see :func:`training_threads`; as many
            as are asked for when not given.
    """
    asked = training_threads(load.population, _MOST_CPUS)
    cpus = 1 + bool(load.gpus) if load.vectorised else asked
    turns = training_threads(load.population, threads or asked)
    together = load.population if load.vectorised else turns
    networks = load.population * _STATE_COPIES * _FLOAT * _parameters(load)
    working = together * _working_bytes(load)
    values = load.rows * load.features
    copies = load.folds * (2 if load.vectorised else 1)
    on_device = values * _FLOAT * copies
    arrays = values * max(_READING, _HELD + _FLOAT * load.folds)
    if not load.gpus:
        arrays = max(arrays, values * (_HELD + _FLOAT * load.folds) + on_device)
        networks += working
    parts = {
        "process": _PROCESS_BYTES,
        "rows": load.rows * _ROW_BYTES + arrays,
        "networks": networks,
    }
    # Rows are on every device; members are dealt out among them.
    gpu_bytes = on_device + -(-(networks + working) // load.gpus) if load.gpus else 0
    return Request(parts, cpus, load.gpus, gpu_bytes)


def check_fits(request: Request, limit: int, gpu_limit: int | None = None) -> None:
    """Refuse a training that would be killed for its memory half-way.

    Args:
        request: what it asks for.
        limit: bytes it may use; see :func:`memory_limit`.
        gpu_limit: bytes it may use of each GPU; see :func:`gpu_memory`.

    Raises:
        TrainingResourcesError: naming the need, the limit and what to lower.
    """
    if request.memory_bytes > limit:
        largest = max(request.parts, key=lambda part: request.parts[part])
        told = ", ".join(f"{size / _GIBI:.1f} for {part}" for part, size in request.parts.items())
        lower = f"{_LOWER[largest]}, or " if largest in _LOWER else ""
        raise TrainingResourcesError(
            f"the training needs {request.memory_bytes / _GIBI:.1f} GiB of memory ({told}) and may "
            f"use {limit / _GIBI:.1f} GiB: {lower}give it more memory "
            "(CRYPTOML_TRAINING_MEMORY_GIB, or the container's limit)"
        )
    if gpu_limit is not None and request.gpu_bytes > gpu_limit:
        raise TrainingResourcesError(
            f"the training needs {request.gpu_bytes / _GIBI:.1f} GiB of the memory of each of "
            f"{request.gpus} GPUs and may use {gpu_limit / _GIBI:.1f} GiB: {_LOWER['networks']}, "
            f"{_LOWER['rows']}, or train on the processor (JAX_PLATFORMS=cpu)"
        )


def memory_limit(configured_gib: float = 0.0, *, root: Path = Path("/")) -> int:
    """Bytes of memory a process may use: as configured, else the container's or the machine's.

    Args:
        configured_gib: gibibytes; 0 is not configured.
        root: where the file systems ``proc`` and ``sys`` are.
    """
    if configured_gib:
        return int(configured_gib * _GIBI)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((machine, *_container_limits(root)))


def gpu_memory() -> int | None:
    """Bytes of a GPU that JAX may use; none where there is no GPU, or it does not say.

    It is less than the device has: JAX takes a share of it at its start.
    """
    import jax  # noqa: PLC0415 - the rest of the module is for processes without it

    if jax.default_backend() != "gpu":
        return None
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def kubernetes_tags(request: Request, *, spot: bool = True) -> dict[str, Any]:
    """The request as an asset's ``op_tags``, which Dagster's Kubernetes executor reads.

    Memory is requested and limited to the same: a pod that may take more is the first to be killed
    when its node runs short. Cores are requested only, since idle ones may be used.

    Args:
        request: what the training asks for.
        spot: prefer interruptible nodes of the three clouds, with any other node as the fallback;
            a training that is interrupted continues from its checkpoint.
    """
    memory = f"{-(-request.memory_bytes // _MEBI)}Mi"
    limits = {"memory": memory} | ({_GPU: str(request.gpus)} if request.gpus else {})
    tolerated = dict.fromkeys([_GPU] if request.gpus else [])
    pod: dict[str, Any] = {}
    if spot:
        tolerated |= _SPOT_LABELS
        pod["affinity"] = {
            "node_affinity": {
                "preferred_during_scheduling_ignored_during_execution": [
                    _preferred(label, value) for label, value in _SPOT_LABELS.items()
                ]
            }
        }
    if tolerated:
        pod["tolerations"] = [_toleration(key, value) for key, value in tolerated.items()]
    resources = {"requests": {"cpu": str(request.cpus), "memory": memory}, "limits": limits}
    return {
        "dagster-k8s/config": {
            "container_config": {"resources": resources},
            **({"pod_spec_config": pod} if pod else {}),
        }
    }


def _preferred(label: str, value: str) -> dict[str, Any]:
    expression = {"key": label, "operator": "In", "values": [value]}
    return {"weight": 100, "preference": {"match_expressions": [expression]}}


def _toleration(key: str, value: str | None) -> dict[str, str]:
    """Of a taint by its value, or by its key alone."""
    how = {"operator": "Exists"} if value is None else {"operator": "Equal", "value": value}
    return {"key": key, **how, "effect": "NoSchedule"}


def _parameters(load: Workload) -> int:
    """Numbers of one member; of the linear family, those of its normal equations."""
    if not load.hidden_units:
        return 4 * load.features**2
    units = load.hidden_units[-1]
    mixer = (units + load.features + 1) * units
    heads = 2 * (units + load.features + 1)
    if load.family == "tcn":
        widths = (load.channels, *[units] * len(_levels(load)))
        pairs = itertools.pairwise(widths)
        return sum((_KERNEL * before + 1) * after for before, after in pairs) + mixer + heads
    if load.family == "state_space":
        return (2 + load.channels) * units + mixer + heads
    widths = (load.features, *load.hidden_units)
    return sum((before + 1) * after for before, after in itertools.pairwise(widths)) + heads


def _activations(load: Workload) -> int:
    """Numbers that one row becomes on its way through a network, its inputs among them."""
    if not load.hidden_units:
        return load.features
    units, window = load.hidden_units[-1], load.channels * load.steps
    # The mixer reads the newest output and the inputs side by side.
    mixed = (units + load.features) + units
    if load.family == "tcn":
        return load.features + window + sum(_levels(load)) * units + mixed
    if load.family == "state_space":
        return load.features + window + units + mixed
    return load.features + sum(load.hidden_units)


def _levels(load: Workload) -> tuple[int, ...]:
    """Outputs of each convolution over a window: one for each ``_KERNEL`` of the level below."""
    levels, steps = [], load.steps
    while steps > 1:
        steps = -(-steps // _KERNEL)
        levels.append(steps)
    return tuple(levels)


def _working_bytes(load: Workload) -> int:
    """What one member needs while it is trained, its state apart."""
    numbers = _activations(load) + _LOSS_NUMBERS
    batch = _BATCH_COPIES * min(load.batch_size, load.rows) * numbers
    # Validation rows are looked at after a step, in the same memory.
    chunk = min(_CHUNK, load.rows) * numbers
    return _FLOAT * (_STEP_COPIES * _parameters(load) + max(batch, chunk))


def _container_limits(root: Path) -> Iterator[int]:
    """Memory limits of the control groups this process is in, versions 1 and 2, and of those above.

    A group that sets none says ``max``, or in version 1 a number no machine has.
    """
    groups = ""
    with suppress(OSError):
        groups = (root / "proc/self/cgroup").read_text()
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, file = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        top = root / "sys/fs/cgroup" / folder
        # Inside a container its own group is the top, whatever the path says from outside.
        own = top / group.lstrip("/")
        for place in {top, own, *(p for p in own.parents if p.is_relative_to(top))}:
            with suppress(OSError, ValueError):
                yield int((place / file).read_text())
