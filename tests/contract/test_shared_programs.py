"""One program for models that differ in their numbers, and the same bits in every batch."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptoml_serving.contract.bundle import load_bundle
from cryptoml_serving.contract.executables import Executable, Kind, executable, known
from tests.programs_world import FAMILIES, Served, bits, bundle_of, some_rows


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_has_the_same_bits_in_every_batch(family: str, tmp_path: Path) -> None:
    bundle = bundle_of(family, tmp_path / "bundle")
    bundle.warm((1, 8, 64, 512))
    rows = some_rows(600, len(bundle.columns))
    whole = bundle.answer(rows)
    assert np.isfinite(whole).all()
    assert len(np.unique(whole[0])) > 500
    for count in (1, 2, 3, 7, 8, 9, 40, 64, 65, 130):
        parts = [bundle.answer(rows[at : at + count]) for at in range(0, 260, count)]
        assert bits(np.concatenate(parts, axis=1)[:, :260]) == bits(whole[:, :260]), count


def test_a_model_trained_again_compiles_nothing_and_answers_by_its_own_numbers(
    tmp_path: Path,
) -> None:
    served = Served(serving_batch_sizes=(8, 64))
    first = bundle_of("mlp", tmp_path / "first")
    again = bundle_of("mlp", tmp_path / "again", seed=4)
    wider = bundle_of("mlp", tmp_path / "wider", last=33)
    assert not served.device.compiled(first)
    served.device.warm(first)
    compiled, rows = served.compiled, some_rows(20, len(first.columns))
    before = bits(first.answer(rows))
    assert served.device.compiled(again)
    assert not served.device.compiled(wider)
    served.device.warm(again)
    answers = again.answer(rows)
    assert served.compiled == compiled
    assert bits(first.answer(rows)) == before != bits(answers)
    served.device.warm(wider)
    assert served.compiled == compiled + 2
    # The first may go, and what the two share stays.
    del first
    gc.collect()
    assert bits(again.answer(rows)) == bits(answers)
    alone = load_bundle(tmp_path / "again", expected_digest=None)
    alone.warm((8, 64))
    assert bits(alone.answer(rows)) == bits(answers)
    del again, alone
    gc.collect()
    assert not served.device.compiled(load_bundle(tmp_path / "again", expected_digest=None))


def test_a_program_that_is_there_waits_for_no_other_that_is_compiled() -> None:
    there, other = Kind("a", (), None, 8), Kind("b", (), None, 8)
    kept = executable(there, lambda: lambda *_: None)
    begun, go_on = threading.Event(), threading.Event()
    made: list[Executable] = []

    def slow() -> Any:
        begun.set()
        assert go_on.wait(20)
        return lambda *_: None

    threads = [
        threading.Thread(target=lambda: made.append(executable(other, slow))) for _ in range(2)
    ]
    for each in threads:
        each.start()
    assert begun.wait(20)
    assert executable(there, pytest.fail) is kept
    assert not known(other)
    go_on.set()
    for each in threads:
        each.join(20)
    # It is made once for both.
    assert len(made) == 2
    assert made[0] is made[1]
