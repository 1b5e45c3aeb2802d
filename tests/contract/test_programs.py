"""Compiled programs, on whatever device is left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from cryptoml_serving.contract.bundle import Bundle, load_bundle, write_bundle
from cryptoml_serving.contract.executables import Executable
from cryptoml_serving.contract.manifest import BundleError
from cryptoml_serving.contract.programs import Prediction, Programs
from tests.programs_world import Served, bits, some_rows
from tests.serving_world import FEATURES, _manifest, scaled_program


class Gpu:
    """A device that answers through the CPU until it dies.

    Attributes:
        alive: whether it does.
        holds: rows of the largest program it has memory for.
        runs: of programs, failed ones too.
    """

    platform = "gpu"

    def __init__(self) -> None:
        self.alive = True
        self.holds = 10**9
        self.runs = 0

    def program(self, on_cpu: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(*given: Any) -> Any:
            self.runs += 1
            if len(given[-1]) > self.holds:
                message = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate"
                raise JaxRuntimeError(message)
            if not self.alive:
                message = "INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"
                raise JaxRuntimeError(message)
            return on_cpu(*given)

        return run


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A GPU that JAX finds."""
    made = Gpu()
    compile_for, devices, put = Programs._compile, jax.devices, jax.device_put

    def compile_(self: Programs, device: Any, size: int) -> Any:
        if device is made:
            return made.program(compile_for(self, devices("cpu")[0], size))
        return compile_for(self, device, size)

    def put_(array: Any, device: Any) -> Any:
        if device is not made:
            return put(array, device)
        return made.program(put)(array)

    monkeypatch.setattr(Programs, "_compile", compile_)
    monkeypatch.setattr(jax, "device_put", put_)
    monkeypatch.setattr(jax, "devices", lambda kind: [made] if kind == "cuda" else devices(kind))
    return made


def small(folder: Path, platforms: tuple[str, ...] = ("cpu", "cuda"), serial: int = 0) -> Bundle:
    """A bundle that adds up its columns."""
    manifest = _manifest(platforms=platforms, metrics={"serial": serial})
    write_bundle(folder, stablehlo=scaled_program(1.0, platforms), weights={}, manifest=manifest)
    return load_bundle(folder, expected_digest=None)


def for_cuda_alone(folder: Path) -> Bundle:
    """The same for a GPU and no CPU, though this one's answers through it."""
    bundle = small(folder)
    made = bundle._programs._prediction
    exported = SimpleNamespace(platforms=("cuda",), call=made.exported.call)
    bundle._programs._prediction = replace(made, exported=exported)
    return bundle


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]


def test_nothing_is_compiled_once_a_bundle_is_warm(tmp_path: Path) -> None:
    served = Served(symbols=("A/B", "B/C", "C/D"))
    bundle = small(tmp_path / "bundle")
    served.device.prepare()
    before = served.compiled
    served.device.warm(bundle)
    warm = served.compiled
    assert before is not None
    assert warm is not None
    assert warm > before
    for count in (0, 1, 2, 3, 4, 5, 9, 100):
        assert bundle.answer(some_rows(count, len(FEATURES))).shape == (4, count)
        bundle.predict(some_rows(count, len(FEATURES)).astype(np.float64))
    served.device.warm(bundle)
    assert served.compiled == warm


def test_a_bundle_never_warmed_compiles_and_the_counter_sees_it(tmp_path: Path) -> None:
    served = Served()
    bundle = small(tmp_path / "bundle")
    served.device.prepare()
    before = served.compiled or 0
    bundle.predict(some_rows(7, len(FEATURES)))
    assert (served.compiled or 0) > before


@pytest.mark.parametrize(("wanted", "told"), [("cuda", 1), ("auto", 0), ("cpu", 0)])
def test_without_a_gpu_models_run_on_the_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: str, told: int
) -> None:
    served = Served(serving_device=wanted)
    bundle = small(tmp_path / "bundle")
    served.device.warm(bundle)
    served.device.prepare()
    assert bundle.answer(np.ones((2, 3), np.float32))[0].tolist() == [3.0, 3.0]
    assert served.used == ["cpu"]
    assert served.value("device_fallbacks_total") == told
    assert len(alarms(caplog)) == told


def test_a_gpu_that_is_there_is_used_unless_the_cpu_is_asked_for(gpu: Gpu, tmp_path: Path) -> None:
    for wanted, used in (("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")):
        served = Served(serving_device=wanted)
        bundle = small(tmp_path / wanted)
        served.device.warm(bundle)
        runs = gpu.runs
        bundle.answer(np.ones((2, 3), np.float32))
        assert served.used == [used]
        assert (gpu.runs > runs) == (used == "cuda")
        # The event loop is never kept by a GPU, however quick it is.
        assert (bundle.seconds(1) == np.inf) == (used == "cuda")


def test_a_gpu_that_dies_costs_no_answer_and_compiles_nothing(
    gpu: Gpu, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served()
    one, two = (small(tmp_path / str(serial), serial=serial) for serial in (1, 2))
    served.device.warm(one)
    served.device.warm(two)
    rows = some_rows(6, len(FEATURES))
    on_gpu = one.answer(rows)
    compiled = served.compiled
    gpu.alive = False
    assert bits(one.answer(rows)) == bits(on_gpu)
    runs = gpu.runs
    assert bits(two.answer(rows)) == bits(on_gpu)
    assert gpu.runs == runs, "one failure is told to all models"
    assert served.compiled == compiled
    assert served.used == ["cpu"]
    assert served.value("device_fallbacks_total") == 1
    (alarm,) = alarms(caplog)
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in alarm
    assert one.seconds(1) < np.inf
    later = small(tmp_path / "3", serial=3)
    served.device.warm(later)
    assert bits(later.answer(rows)) == bits(on_gpu)
    assert gpu.runs == runs


def test_a_gpu_that_dies_while_a_model_is_loaded_does_not_keep_it(gpu: Gpu, tmp_path: Path) -> None:
    served = Served()
    gpu.alive = False
    bundle = small(tmp_path / "bundle")
    served.device.warm(bundle)
    assert bundle.answer(np.ones((1, 3), np.float32))[0].tolist() == [3.0]
    assert served.used == ["cpu"]
    assert served.value("device_fallbacks_total") == 1


@pytest.mark.parametrize("holds", [1, 2])
def test_a_model_that_a_gpu_cannot_run_leaves_it_to_the_others(
    gpu: Gpu, tmp_path: Path, caplog: pytest.LogCaptureFixture, holds: int
) -> None:
    """Be it the first of its programs that fails, or a larger one."""
    served = Served()
    one, large = (small(tmp_path / str(serial), serial=serial) for serial in (1, 2))
    served.device.warm(one)
    gpu.holds = holds
    served.device.warm(large)
    gpu.holds = 10**9
    (alarm,) = alarms(caplog)
    assert "RESOURCE_EXHAUSTED" in alarm
    assert served.used == ["cuda"]
    assert served.value("device_fallbacks_total") == 0
    runs, compiled = gpu.runs, served.compiled
    rows = some_rows(6, len(FEATURES))
    on_cpu = large.answer(rows)
    assert gpu.runs == runs
    assert large.seconds(1) < np.inf
    assert bits(one.answer(rows)) == bits(on_cpu)
    assert gpu.runs > runs
    assert served.compiled == compiled


def test_a_model_that_the_only_device_for_it_cannot_run_is_refused_alone(
    gpu: Gpu, tmp_path: Path
) -> None:
    served = Served()
    one = small(tmp_path / "1")
    only = for_cuda_alone(tmp_path / "2")
    served.device.warm(one)
    gpu.holds = 1
    with pytest.raises(BundleError, match="RESOURCE_EXHAUSTED"):
        served.device.warm(only)
    assert served.used == ["cuda"]


def test_a_model_for_the_cpu_alone_runs_there_beside_a_gpu(gpu: Gpu, tmp_path: Path) -> None:
    served = Served()
    bundle = small(tmp_path / "bundle", platforms=("cpu",))
    served.device.warm(bundle)
    assert bundle.answer(np.ones((1, 3), np.float32))[0].tolist() == [3.0]
    assert gpu.runs == 0


def test_a_model_for_another_device_is_refused(tmp_path: Path) -> None:
    bundle = small(tmp_path / "bundle", platforms=("cuda",))
    with pytest.raises(BundleError, match="the model is for"):
        Served().device.warm(bundle)


def test_a_program_that_fails_on_the_cpu_is_the_bundles_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served()
    bundle = small(tmp_path / "bundle")
    served.device.warm(bundle)

    def broken(*_: Any) -> Any:
        message = "RESOURCE_EXHAUSTED: out of memory"
        raise JaxRuntimeError(message)

    compiled = dict.fromkeys(bundle._programs._compiled, Executable(broken))
    monkeypatch.setattr(bundle._programs, "_compiled", compiled)
    with pytest.raises(BundleError, match="RESOURCE_EXHAUSTED"):
        bundle.answer(np.ones((1, 3), np.float32))
    assert served.used == ["cpu"]
    assert alarms(caplog) == []


def test_a_model_without_a_device_any_more_says_so_to_whoever_asks(
    gpu: Gpu, tmp_path: Path
) -> None:
    served = Served()
    bundle = for_cuda_alone(tmp_path / "bundle")
    served.device.warm(bundle)
    gpu.alive = False
    with pytest.raises(BundleError, match="the model is for"):
        bundle.answer(np.ones((1, 3), np.float32))
    # It is for the thread, where it fails.
    assert bundle.seconds(1) == np.inf


@pytest.mark.parametrize(
    ("platform", "sizes"),
    [
        (
            "cpu",
            {1: 2, 2: 2, 3: 8, 8: 8, 9: 8, 40: 64, 64: 64, 65: 64, 300: 64, 512: 512, 999: 512},
        ),
        ("gpu", {1: 2, 2: 2, 3: 8, 8: 8, 9: 64, 40: 64, 64: 64, 65: 512, 300: 512, 999: 512}),
    ],
)
def test_rows_go_through_the_program_that_wastes_the_least(
    platform: str, sizes: dict[int, int]
) -> None:
    programs = Programs(Prediction(SimpleNamespace(platforms=("cpu", "cuda")), "", 1, ("a",)))
    programs._sizes = (2, 8, 64, 512)
    device = SimpleNamespace(platform=platform)
    assert {count: programs._size(device, count) for count in sizes} == sizes


def test_how_long_rows_take_is_known_once_a_bundle_is_warm(tmp_path: Path) -> None:
    served = Served()
    bundle = small(tmp_path / "bundle")
    assert bundle.seconds(1) == np.inf
    served.device.warm(bundle)
    assert 0 < bundle.seconds(1) < 1
    assert bundle.seconds(400) > 10 * bundle.seconds(1)


def test_the_environment_of_the_device_leaves_what_somebody_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os  # noqa: PLC0415

    for name in ("XLA_PYTHON_CLIENT_PREALLOCATE", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, "to be removed")
        monkeypatch.delenv(name)
    Served(serving_device="auto").device._set_environment()
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert "JAX_PLATFORMS" not in os.environ
    Served(serving_device="cpu").device._set_environment()
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    Served(serving_device="auto").device._set_environment()
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
