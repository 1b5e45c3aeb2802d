"""Programs compiled by a process of its own are those that the service then takes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cryptoml_serving.contract.bundle import MODEL_FILE, write_bundle
from cryptoml_serving.runtime import forerunner
from cryptoml_serving.runtime.forerunner import compile_beside
from tests.serving_client import wait
from tests.serving_world import FEATURES, _manifest, scaled_program

SIZES = (1, 4, 16)
_PATIENCE = 240.0
#: What a service does with a bundle that was compiled beside it.
LOAD = """
import json, sys
from pathlib import Path
from cryptoml_serving.contract.bundle import load_bundle
from cryptoml_serving.contract.compilation import use_compilation_cache
from cryptoml_serving.runtime.device import Device
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
bundle, digest, programs, sizes = sys.argv[1:]
sizes = tuple(map(int, sizes.split(",")))
settings = ServingSettings(serving_device="cpu", serving_batch_sizes=sizes, symbols=("A/B",))
device = Device(settings, Metrics("m"))
device.prepare()
use_compilation_cache(Path(programs))
import jax
told = []
jax.monitoring.register_event_listener(lambda event, **_: told.append(event.rpartition("/")[2]))
device.warm(load_bundle(Path(bundle), expected_digest=digest))
print(json.dumps([told.count("cache_hits"), told.count("cache_misses")]))
"""


def large_program() -> bytes:
    """One of many operations, as trained models are."""
    import jax  # noqa: PLC0415 - collecting tests must not import it
    import jax.numpy as jnp  # noqa: PLC0415
    from jax import export  # noqa: PLC0415

    def predict(features: Any) -> dict[str, Any]:
        total = jnp.nan_to_num(features).sum(axis=1)
        for number in range(100):
            total = jnp.tanh(total * (1.0 + number / 7)) + number
        return dict.fromkeys(("expected_return", "lower", "upper", "probability_up"), total)

    (rows,) = export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((rows, len(FEATURES)), np.float32)
    return bytes(export.export(jax.jit(predict), platforms=("cpu",))(shape).serialize())


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that other tests keep busy the lowest priority gets nowhere for long."""
    monkeypatch.setattr(forerunner, "_MOST_SECONDS", _PATIENCE)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    # It would take the place of the folder that is looked into here.
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    folder = tmp_path / "bundle"
    digest = write_bundle(folder, stablehlo=large_program(), weights={}, manifest=_manifest())
    assert (folder / MODEL_FILE).stat().st_size > 8192
    return folder, digest


def test_what_was_compiled_beside_is_only_read(
    bundle: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    programs = tmp_path / "compiled"
    assert compile_beside(*bundle, programs, SIZES), caplog.text
    made = {file.name for file in programs.glob("*-cache")}
    assert len(made) >= len(SIZES)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, bundle), str(programs), ",".join(map(str, SIZES))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    hits, misses = json.loads(done.stdout.splitlines()[-1])
    assert misses == 0
    assert hits >= len(SIZES)
    assert {file.name for file in programs.glob("*-cache")} == made


def test_a_child_that_fails_is_only_told(
    bundle: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, digest = bundle
    assert not compile_beside(folder, "0" * 64, tmp_path / "compiled", SIZES)
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert "has digest" in told.getMessage()
    caplog.clear()
    monkeypatch.setattr(forerunner, "_MOST_SECONDS", 0.05)
    assert not compile_beside(folder, digest, tmp_path / "compiled", SIZES)
    assert "timed out" in caplog.text
    caplog.clear()
    # As where another process removes it meanwhile.
    assert not compile_beside(tmp_path / "nothing", digest, tmp_path / "compiled", SIZES)
    assert MODEL_FILE in caplog.text


def test_a_child_that_was_killed_compiled_nothing(
    bundle: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """As by the kernel where memory is short: it says nothing then."""
    monkeypatch.setattr(forerunner.sys, "executable", _suicidal(tmp_path))
    assert not compile_beside(*bundle, tmp_path / "compiled", SIZES)
    assert "ended with -9" in caplog.text


def _suicidal(folder: Path) -> str:
    program = folder / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    return str(program)


def test_a_small_program_is_left_to_whoever_loads_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "bundle"
    digest = write_bundle(folder, stablehlo=scaled_program(1.0), weights={}, manifest=_manifest())
    assert not compile_beside(folder, digest, tmp_path / "compiled", SIZES)
    assert caplog.records == []
    assert not (tmp_path / "compiled").exists()


PARENT = """
import sys
from pathlib import Path
from cryptoml_serving.runtime import forerunner
from cryptoml_serving.runtime.forerunner import compile_beside
bundle, digest, programs, seconds = sys.argv[1:]
forerunner._MOST_SECONDS = float(seconds)
compile_beside(Path(bundle), digest, Path(programs), range(1, 2000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help")
def test_it_ends_with_the_process_that_waits_for_it(
    bundle: tuple[Path, str], tmp_path: Path
) -> None:
    programs = tmp_path / "compiled"
    arguments = map(str, (*bundle, programs, _PATIENCE))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *arguments])
    try:
        # Once it compiles, it has said how it is to end.
        wait(lambda: programs.exists() and any(programs.glob("*-cache")), _PATIENCE)
        (child,) = psutil.Process(parent.pid).children()
        assert child.nice() == 19
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        deadline = time.monotonic() + 60
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait(10)
