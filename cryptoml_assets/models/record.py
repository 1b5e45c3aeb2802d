"""What a training run leaves behind so that it can be made again: ``evaluation/task.json``."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from cryptoml_assets.errors import TrainingRecordError
from cryptoml_assets.models.provenance import code_digest, library_versions
from cryptoml_assets.models.resources import cores
from cryptoml_assets.models.rows import rows_from_frame
from cryptoml_assets.models.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

#: Artifact of the training run that holds its record.
RECORD_FILE = "evaluation/task.json"
FORMAT_VERSION = 1
#: Variables that change what JAX and XLA compute, and nothing that could be a secret.
_FLAGS = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_PLATFORMS")


@dataclass(frozen=True)
class Environment:
    """What of a machine and its software the numbers of a training can depend on.

    Attributes:
        code: digest of the source of our packages.
        libraries: versions by name.
        python: version.
        platform: operating system, architecture and C library.
        processor: its model.
        threads: cores the process may use; sums are split among them.
        device: kind of accelerator JAX trains on.
        devices: how many of them.
        flags: variables that JAX and XLA read.
    """

    code: str
    libraries: Mapping[str, str]
    python: str
    platform: str
    processor: str
    threads: int
    device: str
    devices: int
    flags: Mapping[str, str]


@dataclass(frozen=True)
class TrainingRecord:
    """Everything that decides the numbers of a training run.

    Attributes:
        task: what was learnt, and how, with the version of each table read.
        rows: digest of the rows that version held.
        environment: where it was learnt.
        triggered_by: who or what asked for it.
    """

    task: Task
    rows: str
    environment: Environment
    triggered_by: str


_ENVIRONMENT = TypeAdapter(Environment)


def write_record(task: Task, frame: pl.DataFrame, *, triggered_by: str) -> bytes:
    """The record of a training in this process, as JSON.

    Args:
        task: what is trained, in the layout that is really used: another one gives numbers that
            differ in their last bits.
        frame: the training set.
        triggered_by: see :func:`~cryptoml_assets.models.provenance.triggered_by`.

    Raises:
        ValueError: the task leaves its layout open.
        TrainingDataError: rows that cannot be learnt from.
    """
    if task.training.layout == "auto":
        message = "layout='auto': a record names the layout that was used, loop or vectorised"
        raise ValueError(message)
    record = {
        "format_version": FORMAT_VERSION,
        "task": _tasks().dump_python(task, mode="json"),
        "rows": rows_digest(frame, task),
        "environment": _ENVIRONMENT.dump_python(environment(), mode="json"),
        "triggered_by": triggered_by,
    }
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def read_record(data: bytes) -> TrainingRecord:
    """The record that :func:`write_record` wrote, by this or by older code.

    What older code did not know has today's default.

    Raises:
        TrainingRecordError: no record, or one that says what this code does not know.
    """
    try:
        written = json.loads(data)
        version = written.pop("format_version")
        if version != FORMAT_VERSION:
            message = f"format {version}, this code reads {FORMAT_VERSION}"
            raise ValueError(message)  # noqa: TRY301 - told like every other unusable record
        record = TrainingRecord(
            task=_tasks().validate_python(written["task"]),
            rows=str(written["rows"]),
            environment=_ENVIRONMENT.validate_python(written["environment"]),
            triggered_by=str(written["triggered_by"]),
        )
        _check_known(written["task"], _tasks().dump_python(record.task, mode="json"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise TrainingRecordError(f"{RECORD_FILE} is no record of a training: {why}") from error
    return record


def rows_digest(frame: pl.DataFrame, task: Task) -> str:
    """SHA-256 of the rows a task learns from, by value, and of where they came from.

    Raises:
        TrainingDataError: rows that cannot be learnt from.
    """
    rows = rows_from_frame(frame, [feature.name for feature in task.features])
    sources = "+".join(sorted(set(frame["source"])))
    return hashlib.sha256(f"{rows.digest()} {sources}".encode()).hexdigest()


def environment() -> Environment:
    """That of this process; asks JAX for its devices."""
    import jax  # noqa: PLC0415 - the record of another process is read without it

    devices = jax.devices()
    libc = "-".join(platform.libc_ver())
    return Environment(
        code=code_digest(),
        libraries=library_versions(),
        python=platform.python_version(),
        platform=f"{platform.system()}-{platform.machine()}-{libc}",
        processor=_processor(),
        threads=cores(),
        device=devices[0].device_kind,
        devices=len(devices),
        flags={name: os.environ[name] for name in _FLAGS if name in os.environ},
    )


def differences(then: Environment, now: Environment) -> dict[str, tuple[Any, Any]]:
    """What of the environment was one thing and is another, by name; ``libraries.jax`` is JAX's."""
    found = {}
    for field in fields(Environment):
        before, after = getattr(then, field.name), getattr(now, field.name)
        if isinstance(before, Mapping):
            for name in sorted({*before, *after}):
                pair = (before.get(name), after.get(name))
                found[f"{field.name}.{name}"] = pair
        else:
            found[field.name] = (before, after)
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


@cache
def _tasks() -> TypeAdapter[Task]:
    """Reads and writes tasks, whatever their fields are."""
    # What the fields are annotated with: pydantic looks the names up where it is called.
    from collections.abc import Mapping  # noqa: F401, PLC0415
    from datetime import timedelta  # noqa: F401, PLC0415

    from cryptoml_serving.contract.manifest import FeatureSpec  # noqa: F401, PLC0415

    return TypeAdapter(Task)


def _check_known(written: Any, read: Any, place: str = "task") -> None:
    """That nothing written was overlooked in reading: a task is all of what it says.

    Raises:
        ValueError: something was; names it.
    """
    for found, kept, where in _nested(written, read, place):
        if unknown := sorted(found.keys() - kept.keys()):
            message = f"{where} says {', '.join(unknown)}, which this code does not know"
            raise ValueError(message)


def _nested(written: Any, read: Any, place: str) -> Iterator[tuple[dict[str, Any], Any, str]]:
    """Each object of a JSON tree beside its counterpart in the other."""
    if isinstance(written, dict):
        yield written, read, place
        for name in written.keys() & read.keys():
            yield from _nested(written[name], read[name], f"{place}.{name}")
    elif isinstance(written, list):
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from _nested(one, other, f"{place}[{number}]")


def _processor() -> str:
    """Model of the processor, where the machine tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
