"""Our side: ``our_training.py PLAN CACHE [EPOCH]``; stops at an epoch where one is given.

Says the seconds of training and of compiling, and leaves the answers of the test rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from bench.training.ours import train
from cryptoml_assets.models.compilation import use_compilation_cache
from cryptoml_assets.models.layout import member_of


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    use_compilation_cache(Path(sys.argv[2]))
    folder = Path(sys.argv[1]).parent
    inputs, labels = np.load(folder / "inputs.npy"), np.load(folder / "labels.npy")
    until = int(sys.argv[3]) if len(sys.argv) > 3 else None
    trained = train(inputs, labels, plan, until=until)
    answer = jax.jit(lambda params, rows: nnx.merge(trained.program.graph, params)(rows))
    answers, epochs = {}, {}
    places = np.ndindex(trained.states.epoch.shape)
    for (fold, seed), place in zip(plan["members"], places, strict=True):
        state = member_of(trained.states, place)
        rows = inputs[slice(*plan["folds"][fold]["test"])]
        answers[f"{fold}-{seed}"] = np.stack(answer(state.best, rows))
        epochs[f"{fold}-{seed}"] = int(state.epoch)
    np.savez(plan["answers"], **answers)
    said = {
        "seconds": trained.seconds,
        "cpu_seconds": trained.cpu_seconds,
        "compile_seconds": trained.compile_seconds,
        "steps": trained.steps,
        "epochs": epochs,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
