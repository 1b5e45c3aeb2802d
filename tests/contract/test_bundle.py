"""A bundle written by the trainer's code and read by the serving code."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file

from cryptoml_assets.models.calibration import Calibration
from cryptoml_assets.models.export import PLATFORMS, export_bundle, weights_of
from cryptoml_assets.models.families.family import Inputs, network
from cryptoml_assets.models.predictor import Ensemble, predict, predict_rows
from cryptoml_assets.models.provenance import library_versions
from cryptoml_assets.models.scaling import fit_scaling
from cryptoml_serving.contract.bundle import (
    MANIFEST_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    Bundle,
    bundle_digest,
    load_bundle,
    write_bundle,
)
from cryptoml_serving.contract.manifest import OUTPUTS, BundleError, FeatureSpec, Manifest

COLUMNS = 5
NOW = datetime(2024, 3, 1, tzinfo=UTC)
CALIBRATION = Calibration(0.0001, 0.51, 0.0, 0.6, 0.0, 0.8, 2.2)


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "model_name": "cryptoml-return",
        "family": "mlp",
        "created_at": NOW,
        "horizon_seconds": 3600,
        "bar_seconds": 300,
        "features": tuple(
            FeatureSpec(name=f"f{index}", view="price_features") for index in range(COLUMNS)
        ),
        "feature_service": "cryptoml_return_v1",
        "training_start": NOW,
        "training_end": NOW,
        "test_start": NOW,
        "test_end": NOW,
        "lake_versions": {"training_set": 1},
        "git_commit": "unknown",
        "source": "simulated",
        "metrics": {"log_loss_skill": 0.01},
        "libraries": library_versions(),
        "platforms": PLATFORMS,
        **changes,
    }
    return Manifest(**fields)


def ensemble() -> Ensemble:
    """Two members with every number away from its start, so that each matters."""
    rng = np.random.default_rng(0)
    members = []
    for seed in range(2):
        graph, state = network("mlp", Inputs(COLUMNS), (8, 4), seed)
        members.append(
            jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), state)
        )
    scaling = fit_scaling(rng.normal(3.0, 2.0, (500, COLUMNS)).astype(np.float32))
    return Ensemble(scaling, graph, tuple(members), 0.0001, 0.005)


ENSEMBLE = ensemble()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "bundle"
    export_bundle(folder, ENSEMBLE, CALIBRATION, manifest())
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def bundle(written: Path) -> Bundle:
    return load_bundle(written, expected_digest=bundle_digest(written))


def rows(count: int) -> np.ndarray:
    features = np.random.default_rng(count).normal(3.0, 4.0, (count, COLUMNS))
    features[features > 9] = np.nan
    return features


@pytest.mark.parametrize("count", [1, 7, 3000])
def test_the_loaded_bundle_answers_as_the_trainer_does(bundle: Bundle, count: int) -> None:
    features = rows(count)
    expected = predict_rows(ENSEMBLE, CALIBRATION, features.astype(np.float32))
    answers = bundle.predict(features)
    assert tuple(answers) == OUTPUTS
    for name in OUTPUTS:
        assert answers[name].dtype == np.float32
        assert answers[name].shape == (count,)
        assert np.abs(answers[name] - expected[name]).max() <= 1e-6


def test_answers_are_an_interval_around_the_expectation_and_a_probability(bundle: Bundle) -> None:
    answers = bundle.predict(rows(500))
    assert (answers["lower"] < answers["expected_return"]).all()
    assert (answers["expected_return"] < answers["upper"]).all()
    assert ((answers["probability_up"] > 0) & (answers["probability_up"] < 1)).all()
    assert np.ptp(answers["probability_up"]) > 0.01


def test_missing_values_are_the_training_median(bundle: Bundle) -> None:
    missing, filled = np.full((1, COLUMNS), np.nan), ENSEMBLE.scaling.median[None]
    for name, answer in bundle.predict(missing).items():
        assert answer == pytest.approx(bundle.predict(filled)[name])


def test_a_row_is_answered_alike_whatever_batch_it_is_in(written: Path) -> None:
    fresh = load_bundle(written, expected_digest=None)
    features = rows(3)
    alone = fresh.predict(features)
    fresh.warm((8,))
    padded = load_bundle(written, expected_digest=None)
    padded.warm((8,))
    for name, answer in padded.predict(features).items():
        assert answer == pytest.approx(alone[name], abs=1e-6)
    assert fresh.predict(np.empty((0, COLUMNS)))["lower"].shape == (0,)


@pytest.mark.parametrize("shape", [(3, COLUMNS - 1), (3, COLUMNS + 1), (COLUMNS,), (1, 2, COLUMNS)])
def test_a_wrong_number_of_columns_is_refused(bundle: Bundle, shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match=f"reads \\(n, {COLUMNS}\\)"):
        bundle.predict(np.zeros(shape))


def test_the_manifest_round_trips_and_vouches_for_every_file(written: Path) -> None:
    loaded = load_bundle(written, expected_digest=None).manifest
    assert loaded.model_copy(update={"files": {}}) == manifest()
    assert set(loaded.files) == {MODEL_FILE, WEIGHTS_FILE}
    assert loaded.feature_references[0] == "price_features:f0"


def test_the_same_numbers_make_the_same_bundle(written: Path, tmp_path: Path) -> None:
    again = export_bundle(tmp_path / "again", ensemble(), CALIBRATION, manifest())
    assert again == bundle_digest(written)


def test_the_program_holds_no_path_of_the_machine_that_wrote_it(written: Path) -> None:
    program = (written / MODEL_FILE).read_bytes()
    assert b".py" not in program
    assert str(Path.cwd()).encode() not in program


def test_weights_hold_every_fitted_number_by_name(written: Path) -> None:
    weights = load_file(written / WEIGHTS_FILE)
    assert weights["calibration.slope"] == pytest.approx(0.6)
    assert weights["scaling.median"] == pytest.approx(ENSEMBLE.scaling.median)
    assert weights["member.1.heads.head.kernel"].shape == (4, 2)
    assert sum(name.startswith("member.0.") for name in weights) == 7


def test_a_bundle_is_never_written_over(written: Path) -> None:
    with pytest.raises(BundleError, match="never overwrites"):
        export_bundle(written, ENSEMBLE, CALIBRATION, manifest())


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST_FILE
    fields = {**json.loads(path.read_bytes()), **changes}
    path.write_bytes(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


TAMPERS: dict[str, Callable[[Path], Any]] = {
    "the program altered": lambda folder: append(folder / MODEL_FILE),
    "the weights altered": lambda folder: append(folder / WEIGHTS_FILE),
    "the program gone": lambda folder: (folder / MODEL_FILE).unlink(),
    "the weights gone": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "the manifest gone": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "the manifest cut": lambda folder: (folder / MANIFEST_FILE).write_bytes(b"{"),
    "the manifest respelt": lambda folder: append(folder / MANIFEST_FILE),
    "a file too many": lambda folder: (folder / "extra.txt").touch(),
    "a folder too many": lambda folder: (folder / "extra").mkdir(),
    "nothing listed": lambda folder: edit(folder, files={}),
    "a file outside": lambda folder: edit(folder, files={"../x": "0" * 64}),
    "an unknown field": lambda folder: edit(folder, surprise=1),
    "another format": lambda folder: edit(folder, format_version=3),
    "other outputs": lambda folder: edit(folder, outputs=["price"]),
    "a feature too few": lambda folder: edit(
        folder, features=json.loads((folder / MANIFEST_FILE).read_bytes())["features"][1:]
    ),
    "another platform": lambda folder: edit(folder, platforms=["cpu"]),
}


@pytest.mark.parametrize("tamper", TAMPERS.values(), ids=TAMPERS)
def test_a_folder_that_is_not_what_its_manifest_says_is_refused(
    copy: Path, tamper: Callable[[Path], Any]
) -> None:
    tamper(copy)
    with pytest.raises(BundleError):
        load_bundle(copy, expected_digest=None)


def test_a_consistent_forgery_is_refused_by_its_digest(copy: Path) -> None:
    genuine = bundle_digest(copy)
    edit(copy, source="live")
    assert load_bundle(copy, expected_digest=None).manifest.source == "live"
    with pytest.raises(BundleError, match="expected"):
        load_bundle(copy, expected_digest=genuine)


def lowered(function: Callable[[Any], Any]) -> bytes:
    (count,) = export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((count, COLUMNS), np.float32)
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(shape).serialize())


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "an output too few": lambda x: dict.fromkeys(OUTPUTS[1:], x[:, 0]),
    "another name": lambda x: dict.fromkeys((*OUTPUTS[1:], "price"), x[:, 0]),
    "no names": lambda x: (x[:, 0],) * 4,
    "a number for all rows": lambda x: dict.fromkeys(OUTPUTS, x.sum()),
    "whole numbers": lambda x: dict.fromkeys(OUTPUTS, x[:, 0].astype(np.int32)),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_with_other_outputs_is_refused(
    tmp_path: Path, program: Callable[[Any], Any]
) -> None:
    write_bundle(tmp_path, stablehlo=lowered(program), weights={}, manifest=manifest())
    with pytest.raises(BundleError, match=r"output|answers"):
        load_bundle(tmp_path, expected_digest=None)


def weighted(weights: Any, function: Callable[..., Any] | None = None) -> bytes:
    """A program of some weights and of features."""
    (count,) = export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((count, COLUMNS), np.float32)
    made = jax.jit(function or (lambda _, x: dict.fromkeys(OUTPUTS, x[:, 0])))
    return bytes(export.export(made, platforms=PLATFORMS)(weights, shape).serialize())


TAKEN = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}
HELD: dict[str, tuple[dict[str, Any], str]] = {
    "one too few": ({"w": TAKEN["w"]}, "holds nothing as b"),
    "one too many": ({**TAKEN, "c": TAKEN["b"]}, "as c, and the program takes nothing"),
    "another shape": ({**TAKEN, "w": TAKEN["w"].T}, r"float32\[3, 2\] as w"),
    "another type": ({**TAKEN, "b": np.zeros(2)}, "float64.* as b"),
}


@pytest.mark.parametrize(("held", "why"), HELD.values(), ids=HELD)
def test_weights_that_the_program_does_not_take_are_refused(
    tmp_path: Path, held: dict[str, Any], why: str
) -> None:
    write_bundle(tmp_path, stablehlo=weighted(TAKEN), weights=held, manifest=manifest())
    with pytest.raises(BundleError, match=why):
        load_bundle(tmp_path, expected_digest=None)


ODD: dict[str, Any] = {
    "a tuple": (TAKEN["w"],),
    "an array": TAKEN["w"],
    "nested": {**TAKEN, "b": {"c": TAKEN["b"]}},
    "nothing": {**TAKEN, "b": None},
    "whole numbers": {**TAKEN, "b": np.zeros(2, np.int32)},
}


@pytest.mark.parametrize("weights", ODD.values(), ids=ODD)
def test_a_program_of_other_than_named_float32_weights_is_refused(
    tmp_path: Path, weights: Any
) -> None:
    write_bundle(tmp_path, stablehlo=weighted(weights), weights=TAKEN, manifest=manifest())
    with pytest.raises(BundleError, match="the program reads"):
        load_bundle(tmp_path, expected_digest=None)


def of_a_type_that_numpy_has_not() -> bytes:
    header = json.dumps({"b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.mark.parametrize("data", [b"", b"not weights", of_a_type_that_numpy_has_not()])
def test_a_weights_file_that_cannot_be_read_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, stablehlo=weighted(TAKEN), weights=TAKEN, manifest=manifest())
    (folder / WEIGHTS_FILE).write_bytes(data)
    files = json.loads((folder / MANIFEST_FILE).read_bytes())["files"]
    edit(folder, files={**files, WEIGHTS_FILE: hashlib.sha256(data).hexdigest()})
    with pytest.raises(BundleError, match="weights file does not decode"):
        load_bundle(folder, expected_digest=None)


def test_a_bundle_of_format_1_is_still_read(tmp_path: Path) -> None:
    program = lowered(lambda x: predict(ENSEMBLE, CALIBRATION, x))
    write_bundle(
        tmp_path,
        stablehlo=program,
        weights=weights_of(ENSEMBLE, CALIBRATION),
        manifest=manifest(format_version=1),
    )
    features = rows(20)
    answers = load_bundle(tmp_path, expected_digest=None).predict(features)
    expected = predict_rows(ENSEMBLE, CALIBRATION, features.astype(np.float32))
    for name in OUTPUTS:
        assert np.abs(answers[name] - expected[name]).max() <= 1e-6


def test_models_that_differ_in_their_numbers_have_the_same_program(
    written: Path, tmp_path: Path
) -> None:
    other = replace(
        ENSEMBLE,
        members=jax.tree.map(lambda leaf: leaf + 1, ENSEMBLE.members),
        scaling=replace(ENSEMBLE.scaling, logarithmic=~ENSEMBLE.scaling.logarithmic),
        label_scale=0.1,
    )
    digest = export_bundle(tmp_path, other, replace(CALIBRATION, steepness=0.3), manifest())
    assert digest != bundle_digest(written)
    assert (tmp_path / MODEL_FILE).read_bytes() == (written / MODEL_FILE).read_bytes()
    assert (tmp_path / WEIGHTS_FILE).read_bytes() != (written / WEIGHTS_FILE).read_bytes()


def test_bytes_that_are_no_program_are_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path, stablehlo=b"not a program", weights={}, manifest=manifest())
    with pytest.raises(BundleError, match="does not decode"):
        load_bundle(tmp_path, expected_digest=None)


def test_the_contract_imports_without_jax_and_mlflow() -> None:
    code = (
        "import sys; import cryptoml_serving.contract.bundle, cryptoml_serving.contract.approval,"
        "cryptoml_serving.contract.registry;"
        "print({'jax', 'mlflow', 'dagster', 'flax'} & sys.modules.keys())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
