"""The compiled training: what it draws, when it stops, and that how it is run changes nothing."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cryptoml_assets.errors import TrainingResourcesError
from cryptoml_assets.models import layout
from cryptoml_assets.models.checkpoints import Checkpoints
from cryptoml_assets.models.families.family import Inputs, network
from cryptoml_assets.models.layout import Runner, is_vectorised, member_of, population
from cryptoml_assets.models.population import PATIENCE, Hyper, Program, State, fold_data

pytestmark = pytest.mark.long

EPOCHS, BATCH, MEMBERS = 12, 32, 3
COLUMNS = 4


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(count, COLUMNS)).astype(np.float32)
    labels = 0.5 * inputs[:, 0] + random.standard_t(4, count)
    return inputs, labels.astype(np.float32)


@cache
def networks() -> list[tuple[Any, Any]]:
    return [network("mlp", Inputs(COLUMNS), (6,), seed) for seed in range(MEMBERS)]


@cache
def runner(*, vectorised: bool = False) -> Runner:
    """Two folds of unequal length; compiled once for all the tests."""
    program = Program(networks()[0][0], EPOCHS, BATCH)
    data = fold_data([rows(300, 0), rows(500, 1)], [rows(60, 2), rows(90, 3)])
    return Runner(program, data, vectorised, log=lambda _: None)


HYPERS = Hyper(
    np.arange(MEMBERS, dtype=np.uint32),
    np.array([1e-2, 3e-3, 1e-1], np.float32),
    np.full(MEMBERS, 1e-2, np.float32),
)


def start() -> State:
    params = [params for _, params in networks()]
    return population(runner().program, [params, params])


@cache
def trained() -> State:
    return runner().advance(start(), HYPERS, EPOCHS)


def same(one: State, other: State) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(left, right, equal_nan=True) for left, right in pairs)


@pytest.mark.parametrize("count", [BATCH, 33, 300, 5000, BATCH * 7919])
def test_an_epoch_takes_every_row_once_and_each_step_one_of_each_stretch_of_time(
    count: int,
) -> None:
    program, steps = runner().program, count // BATCH
    begin, within = program._order(jax.random.key(count), np.int32(count))
    numbers = np.arange(steps)
    drawn = np.asarray(jax.vmap(lambda n: program._rows(n, (begin, within), count))(numbers))
    assert np.array_equal(np.sort(drawn.ravel()), begin + np.arange(steps * BATCH))
    assert 0 <= begin <= count - steps * BATCH
    stretches = (drawn - begin) // steps
    assert (stretches == np.arange(BATCH)).all()


def test_members_stop_once_they_wait_too_long_and_keep_their_best() -> None:
    states = trained()
    for place in np.ndindex(states.epoch.shape):
        own = member_of(states, place)
        losses = own.validation[: own.epoch]
        assert own.best_loss == losses.min()
        assert own.best_epoch == losses.argmin() + 1
        assert own.epoch == min(EPOCHS, own.best_epoch + PATIENCE)
        again = runner().program._validation_loss(own.best, runner().data[place[0]])
        assert float(again) == pytest.approx(float(own.best_loss), abs=1e-6)
    assert states.epoch.min() < EPOCHS, "no member stopped early, so nothing was shown"


def test_padding_and_the_rows_of_other_folds_change_nothing() -> None:
    data = fold_data([rows(300, 0)], [rows(60, 2)])
    alone = Runner(runner().program, data, vectorised=False, log=lambda _: None)
    first = population(alone.program, [[params for _, params in networks()]])
    after = alone.advance(first, HYPERS, EPOCHS)
    for left, right in zip(jax.tree.leaves(after), jax.tree.leaves(trained()), strict=True):
        np.testing.assert_allclose(left[0], right[0], rtol=2e-4, atol=2e-5)


def test_where_a_training_pauses_changes_no_bit() -> None:
    states = start()
    for until in (1, 2, 5, 11, EPOCHS):
        states = runner().advance(states, HYPERS, until)
    assert same(states, trained())


def test_together_and_one_by_one_are_the_same_training() -> None:
    together = runner(vectorised=True).advance(start(), HYPERS, EPOCHS)
    np.testing.assert_allclose(together.best_loss, trained().best_loss, rtol=1e-3)


def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    lines: list[str] = []
    killed = Checkpoints(tmp_path / "one", timedelta(0), lines.append)
    assert same(killed.restore(start()), start())
    for until in (2, 4):
        killed.offer(runner().advance(start(), HYPERS, until))
    found = Checkpoints(tmp_path / "one", timedelta(0), lines.append).restore(start())
    assert int(found.epoch.max()) == 4
    assert "going on from a checkpoint" in lines[-1]
    assert same(runner().advance(found, HYPERS, EPOCHS), trained())
    killed.clear()
    assert not (tmp_path / "one").exists()


def test_a_checkpoint_of_something_else_is_left_aside_with_a_word(tmp_path: Path) -> None:
    lines: list[str] = []
    checkpoints = Checkpoints(tmp_path, timedelta(0), lines.append)
    checkpoints.save(start())
    other = network("mlp", Inputs(COLUMNS), (7,), 0)[1]
    wanted = population(runner().program, [[other]])
    assert same(checkpoints.restore(wanted), wanted)
    assert "cannot be used" in lines[-1]


def test_checkpoints_are_written_no_more_often_than_asked(tmp_path: Path) -> None:
    seldom = Checkpoints(tmp_path / "seldom", timedelta(hours=1), lambda _: None)
    seldom.offer(start())
    assert not (tmp_path / "seldom").exists()


def test_members_that_do_not_fit_together_train_one_by_one_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    tight = Runner(runner().program, runner().data, vectorised=True, log=lines.append)
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    def refuse(*_: object) -> None:
        raise full

    monkeypatch.setattr(Runner, "_together", refuse)
    assert same(tight.advance(start(), HYPERS, EPOCHS), trained())
    assert not tight.vectorised
    assert "one by one" in lines[-1]
    monkeypatch.setattr(Runner, "_one_by_one", refuse)
    with pytest.raises(TrainingResourcesError, match="CRYPTOML_BATCH_SIZE"):
        tight.advance(start(), HYPERS, EPOCHS)


def test_the_layout_is_measured_once_for_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(layout, "_measure", lambda: bool(asked.append(True)) or True)
    assert is_vectorised("auto", None, print) is False, "a processor needs no measurement"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    lines: list[str] = []
    known = tmp_path / "home" / "layouts.json"
    assert is_vectorised("auto", known, lines.append) is True
    assert is_vectorised("auto", known, lines.append) is True
    assert (len(asked), len(lines)) == (1, 1)
    assert is_vectorised("loop", known, lines.append) is False
    assert is_vectorised("vectorised", None, lines.append) is True


def test_members_are_spread_over_all_devices() -> None:
    """Three members a fold over four devices: the same training, one place trained for nothing."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:];"
        "import jax, numpy as np; import test_population as t;"
        "assert len(jax.devices()) == 4;"
        "after = t.runner(vectorised=True).advance(t.start(), t.HYPERS, 3);"
        "print(' '.join(f'{loss:.6f}' for loss in after.best_loss.ravel()))"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    answer = subprocess.run(
        [sys.executable, "-c", code, *folders],
        capture_output=True,
        text=True,
        check=True,
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PATH": ""},
    )
    here = runner().advance(start(), HYPERS, 3).best_loss.ravel()
    spread = np.array(answer.stdout.split(), np.float32)
    np.testing.assert_allclose(spread, here, rtol=1e-3)


def test_half_precision_trains_towards_the_same_loss() -> None:
    program = Program(networks()[0][0], EPOCHS, BATCH, "bfloat16")
    half = Runner(program, runner().data, vectorised=False, log=lambda _: None)
    after = half.advance(start(), HYPERS, EPOCHS)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(after.params))
    np.testing.assert_allclose(after.best_loss, trained().best_loss, atol=0.03)
