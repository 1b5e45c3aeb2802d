"""Compiled programs of one model, one for each number of rows and each device.

A row gets the same answer to the last bit in whatever batch it comes, on a CPU. Two things see to
that: no program is for a single row, which XLA would multiply as a vector, and none uses XLA's
library of matrix kernels (YNNPACK), which chooses its order of summation by the number of rows.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cryptoml_serving.contract.executables import Executable, Kind, executable, known
from cryptoml_serving.contract.manifest import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from cryptoml_serving.contract.executables import Run

_LOG = logging.getLogger(__name__)
_CPU = "cpu"
_LEAST_ROWS = 2
_TIMED_RUNS = 10
#: Rows whose computing takes as long as calling a program does, roughly.
_CALL_ROWS = {_CPU: 32}
_OTHER_CALL_ROWS = 4096
_OPTIONS: dict[str, dict[str, str | bool]] = {
    _CPU: {
        "xla_cpu_experimental_ynn_fusion_type": "",
        # The products of a batch are too small to be worth sharing out among cores.
        "xla_cpu_multi_thread_eigen": False,
    }
}


class ProgramError(BundleError):
    """A program failed while it ran, or there is no device for it."""


class Devices(Protocol):
    """Where programs run."""

    @property
    def devices(self) -> tuple[Any, ...]:
        """JAX devices that work, as far as is known, the preferred one first."""

    def lost(self, device: Any, error: Exception) -> None:
        """Take note that a program failed there."""


@dataclass(frozen=True)
class Prediction:
    """What a model computes.

    Attributes:
        exported: what ``jax.export`` made of it.
        digest: SHA-256 of its bytes.
        columns: features of a row.
        outputs: names of its answers, in the order in which they are to come.
        weights: arrays it takes before the features, by name; none: it holds its numbers itself.
    """

    exported: Any
    digest: str
    columns: int
    outputs: tuple[str, ...]
    weights: Mapping[str, NDArray[Any]] | None = None


class Programs:
    """Programs of one model, kept once they are compiled."""

    def __init__(self, prediction: Prediction) -> None:
        """Compile nothing yet."""
        self._prediction = prediction
        self._devices: Devices | None = None
        #: Devices on which these programs failed while they were prepared, and others do not.
        self._unfit: tuple[Any, ...] = ()
        #: Sizes there are programs of; none: one is compiled for each number of rows that comes.
        self._sizes: tuple[int, ...] = ()
        self._compiled: dict[tuple[Any, int], Executable] = {}
        #: The weights, in a device's own memory.
        self._placed: dict[Any, tuple[Any, ...]] = {}

    def compiled(self, sizes: Iterable[int], devices: Devices | None) -> bool:
        """Whether other models of this process have all the programs that warming would need."""
        wanted = {max(size, _LEAST_ROWS) for size in sizes}
        return all(
            known(self._kind(device, size)) for device in self._usable(devices) for size in wanted
        )

    def warm(self, sizes: Iterable[int], devices: Devices | None) -> None:
        """Compile for these numbers of rows on every device; from now on nothing else is.

        Each program is run too, a new one some times: the first takes longer, and the quickest is
        kept. Where one fails on a GPU that works, these programs are for the CPU from then on, and
        those of other models stay on the GPU.

        Args:
            sizes: numbers of rows, beside those of earlier calls.
            devices: where to run; none: on JAX's own choice.

        Raises:
            ProgramError: no device is of a platform the prediction was exported for, or a program
                failed on the CPU, or on the only device there is for it.
        """
        wanted = sorted({*self._sizes, *(max(size, _LEAST_ROWS) for size in sizes)})
        for device in self._usable(devices):
            try:
                for size in wanted:
                    self._try(device, size)
            except RuntimeError as error:
                self._give_up(devices, device, error)
        self._devices, self._sizes = devices, tuple(wanted)

    def seconds(self, count: int) -> float:
        """Time that many rows take on the CPU at best; infinite elsewhere, or if not known."""
        try:
            device = self._device()
        except ProgramError:
            # Running them says so to whoever asked.
            return math.inf
        if not self._sizes or (device is not None and device.platform != _CPU):
            return math.inf
        size = self._size(device, count)
        return math.ceil(count / size) * self._compiled[device, size].seconds

    def run(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """The answers to rows (n, k), shape (outputs, n).

        Rows go through the program that should take the least time, padded, or part by part.

        Raises:
            ProgramError: it failed, and there is no other device.
        """
        count = len(rows)
        if count == 0:
            return np.empty((len(self._prediction.outputs), 0), np.float32)
        size = self._size(self._device(), count)
        if count <= size:
            return self._padded(rows, size)
        parts = [self._padded(rows[at : at + size], size) for at in range(0, count, size)]
        return np.concatenate(parts, axis=1)

    def _size(self, device: Any, count: int) -> int:
        """Rows of the program to use for so many."""
        if not self._sizes:
            return max(count, _LEAST_ROWS)
        platform = _CPU if device is None else device.platform
        call = _CALL_ROWS.get(platform, _OTHER_CALL_ROWS)
        return min(self._sizes, key=lambda size: math.ceil(count / size) * (call + size))

    def _padded(self, rows: NDArray[Any], size: int) -> NDArray[np.float32]:
        count = len(rows)
        if count == size and rows.dtype == np.float32:
            return self._run(rows)
        batch = self._empty(size)
        batch[:count] = rows
        return self._run(batch)[:, :count]

    def _empty(self, size: int) -> NDArray[np.float32]:
        """Rows without a single feature."""
        return np.full((size, self._prediction.columns), np.nan, np.float32)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        device = self._device()
        try:
            return self._call(device, batch)
        except RuntimeError as error:
            _failed(self._devices, device, error)
        return self._run(batch)

    def _call(self, device: Any, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        size = len(batch)
        program = self._program(device, size)
        began = time.perf_counter()
        answers = np.asarray(program.run(self._weights(device), batch))
        seconds = time.perf_counter() - began
        program.seconds = min(program.seconds, seconds)
        return answers

    def _try(self, device: Any, size: int) -> None:
        """Run a program: once with these weights, and some more times where it is new."""
        empty = self._empty(size)
        runs = 1 if math.isfinite(self._program(device, size).seconds) else _TIMED_RUNS
        for _ in range(runs):
            self._call(device, empty)

    def _weights(self, device: Any) -> tuple[Any, ...]:
        """The weights, by name in order, where the device has them at hand."""
        placed = self._placed.get(device)
        if placed is None:
            import jax  # noqa: PLC0415 - the contract imports without it

            named = self._prediction.weights or {}
            arrays = tuple(named[name] for name in sorted(named))
            placed = self._placed[device] = jax.device_put(arrays, device)
        return placed

    def _device(self) -> Any:
        """The first device that works, as far as is known; none is JAX's own choice."""
        return None if self._devices is None else self._usable(self._devices)[0]

    def _usable(self, devices: Devices | None) -> tuple[Any, ...]:
        """Those of the devices that the prediction was exported for, and that it can be run on."""
        if devices is None:
            return (None,)
        platforms = self._prediction.exported.platforms
        usable = tuple(
            each
            for each in devices.devices
            if _platform(each) in platforms and each not in self._unfit
        )
        if not usable:
            message = f"the model is for {platforms}; the devices are {devices.devices}"
            raise ProgramError(message)
        return usable

    def _give_up(self, devices: Devices | None, device: Any, error: RuntimeError) -> None:
        """Do without a device on which a program failed that never worked there.

        That says little of the device: the model may be too large for it, or have an operation it
        lacks. Only if it takes no data either, it is lost to every model.

        Raises:
            ProgramError: it is the CPU, or there is no other device for these programs.
        """
        others = [each for each in self._usable(devices) if each != device]
        if devices is None or device.platform == _CPU or not others:
            message = f"the model's program failed: {error}"
            raise ProgramError(message) from error
        # What it holds of this model is of no use.
        self._placed.pop(device, None)
        self._compiled = {each: made for each, made in self._compiled.items() if each[0] != device}
        if not _responds(device):
            devices.lost(device, error)
            return
        self._unfit = (*self._unfit, device)
        _LOG.error("%s cannot run this model, which is for %s alone: %s", device, others[0], error)

    def _kind(self, device: Any, size: int) -> Kind:
        return Kind(self._prediction.digest, self._prediction.outputs, device, size)

    def _program(self, device: Any, size: int) -> Executable:
        program = self._compiled.get((device, size))
        if program is None:
            program = executable(self._kind(device, size), lambda: self._compile(device, size))
            self._compiled[device, size] = program
        return program

    def _compile(self, device: Any, size: int) -> Run:
        import jax  # noqa: PLC0415 - the contract imports without it

        # Nothing of this model but its program is in what is made of it: others use it too.
        call, outputs = self._prediction.exported.call, self._prediction.outputs
        names = None if self._prediction.weights is None else sorted(self._prediction.weights)

        def answers(weights: tuple[Any, ...], features: Any) -> Any:
            taken = () if names is None else (dict(zip(names, weights, strict=True)),)
            named = call(*taken, features)
            # Fetching one array takes a fraction of the time that several do.
            return jax.numpy.stack([named[name] for name in outputs])

        platform = jax.default_backend() if device is None else device.platform
        sharding = None if device is None else jax.sharding.SingleDeviceSharding(device)

        def shaped(array: Any) -> Any:
            return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

        weights = tuple(map(shaped, self._weights(device)))
        lowered = jax.jit(answers).lower(weights, shaped(self._empty(size)))
        program: Run = lowered.compile(compiler_options=_OPTIONS.get(platform))
        return program


def _platform(device: Any) -> str:
    """The name ``jax.export`` has for a device's platform."""
    return "cuda" if device.platform == "gpu" else str(device.platform)


def _responds(device: Any) -> bool:
    """Whether a device still takes data."""
    import jax  # noqa: PLC0415 - the contract imports without it

    try:
        jax.device_put(np.zeros(1, np.float32), device).block_until_ready()
    except RuntimeError:
        return False
    return True


def _failed(devices: Devices | None, device: Any, error: RuntimeError) -> None:
    """Take note of what XLA raised on a device where the program had worked.

    Raises:
        ProgramError: there is no other device.
    """
    if devices is not None:
        devices.lost(device, error)
    if devices is None or device in devices.devices:
        message = f"the model's program failed: {error}"
        raise ProgramError(message) from error
