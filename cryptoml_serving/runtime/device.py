"""Where models run: the device of the settings, and what is left when that one is gone."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge

from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptoml_serving.contract.bundle import Bundle
    from cryptoml_serving.settings import ServingSettings
    from cryptoml_serving.telemetry import Metrics

_LOG = logging.getLogger(__name__)
_COMPILED = "/jax/core/compile/backend_compile_duration"
_KINDS = ("cpu", "cuda")


def batch_sizes(explicit: Iterable[int], symbols: int) -> tuple[int, ...]:
    """Numbers of rows to compile for.

    Args:
        explicit: those asked for, for rows that callers send.
        symbols: rows of a snapshot, which goes through the next larger program if there is one.
    """
    sizes = sorted(set(explicit))
    return tuple(sizes) if symbols <= sizes[-1] else (*sizes, symbols)


class Device:
    """The device models run on, and the count of what XLA compiles.

    A CPU is always kept beside a GPU, with programs of its own, so that a GPU that dies costs no
    more than the answer of its first failure. It is not tried again: a process whose GPU failed
    has to be started anew to use one.
    """

    def __init__(self, settings: ServingSettings, metrics: Metrics) -> None:
        """Touch nothing yet; ``prepare`` does.

        Args:
            settings: the device wanted, and the numbers of rows to compile for.
            metrics: gets this one's.
        """
        self._wanted = settings.serving_device
        self.sizes = batch_sizes(settings.serving_batch_sizes, len(settings.symbols))
        self._devices: tuple[Any, ...] = ()
        self._lock = threading.Lock()
        self._count(metrics)

    def _count(self, metrics: Metrics) -> None:
        self._compilations = Counter(
            "compilations_total",
            "Programs XLA compiled or read from its cache; none once the service is ready",
            registry=metrics.registry,
        )
        self._fallbacks = Counter(
            "device_fallbacks_total",
            "Times the CPU took over because the GPU was absent or failed",
            registry=metrics.registry,
        )
        self._gauge = Gauge(
            "serving_device",
            "1 for the device models run on",
            ["device"],
            registry=metrics.registry,
        )

    @property
    def devices(self) -> tuple[Any, ...]:
        """JAX devices that work, as far as is known, the one in use first."""
        return self._devices

    def prepare(self) -> None:
        """Import JAX and find the devices, once; every other import of JAX has to come later.

        An absent GPU that was asked for is an alarm, and no error.
        """
        with self._lock:
            if self._devices:
                return
            self._set_environment()
            import jax  # noqa: PLC0415 - takes seconds, and reads the environment

            # A prediction on a CPU takes less time than handing it to another thread does.
            jax.config.update("jax_cpu_enable_async_dispatch", val=False)
            jax.monitoring.register_event_duration_secs_listener(self._compiled)
            cpu = jax.devices("cpu")[0]
            gpu = self._find_gpu(jax)
            self._devices = (cpu,) if gpu is None else (gpu, cpu)
            self._show()

    def _set_environment(self) -> None:
        """What XLA reads when it is first imported; what somebody set on purpose stays."""
        # By default JAX takes three quarters of a GPU's memory at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if self._wanted == "cpu":
            os.environ.setdefault("JAX_PLATFORMS", "cpu")

    def _find_gpu(self, jax: Any) -> Any:
        if self._wanted == "cpu":
            return None
        try:
            return jax.devices("cuda")[0]
        except RuntimeError as error:
            if self._wanted == "cuda":
                self._alarm(f"there is no GPU to use, so models run on the CPU: {error}")
            return None

    def compiled(self, bundle: Bundle) -> bool:
        """Whether a model that is loaded already has every program of this one.

        Raises:
            BundleError: it was exported for none of these devices.
        """
        self.prepare()
        return bundle.compiled(self.sizes, self)

    def warm(self, bundle: Bundle, *, pause: Callable[[], float] = float) -> None:
        """Compile every program of a bundle, on the GPU and the CPU, before it takes over.

        Args:
            bundle: to be used soon.
            pause: gives the seconds to wait before the next program, asked each time; every one
                stops all threads for some milliseconds even where it is only read from the cache.

        Raises:
            BundleError: it was exported for none of these devices.
        """
        self.prepare()
        for number, size in enumerate(self.sizes):
            if number:
                time.sleep(pause())
            bundle.warm([size], self)

    def lost(self, device: Any, error: Exception) -> None:
        """Use a GPU that failed no more; a CPU's failure is that of what it ran."""
        with self._lock:
            if device.platform == "cpu" or device not in self._devices:
                return
            self._devices = tuple(each for each in self._devices if each != device)
            self._show()
            self._alarm(f"{device} failed, so models run on the CPU from now on: {error}")

    def _alarm(self, message: str) -> None:
        self._fallbacks.inc()
        event(_LOG, logging.ERROR, "error", message, error_type="device_fallback", part="device")

    def _show(self) -> None:
        used = "cpu" if self._devices[0].platform == "cpu" else "cuda"
        for kind in _KINDS:
            self._gauge.labels(kind).set(float(kind == used))

    def _compiled(self, name: str, _seconds: float, **_fields: str | int) -> None:
        if name == _COMPILED:
            self._compilations.inc()
