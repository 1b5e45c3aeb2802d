"""LightGBM on each fold: ``trees.py PLAN THREADS``.

One booster for the mean, by squared error, and, so that it too foretells a distribution, one for
the log-scale: the logarithm of what the first is off by, shifted to where the likelihood of the
validation part is greatest. Both stop by the validation part. Says the seconds of both boosters and
those of the mean alone, and leaves location and log-scale of the test rows. Imports nothing of
ours.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_ROUNDS, _STOPPING = 1000, 20
#: Least distance whose logarithm is taken, in units of the labels' spread.
_LEAST = 1e-3
_SETTINGS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 500,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "verbosity": -1,
}


def boosted(fit: tuple[Array, Array], held_out: tuple[Array, Array], threads: int) -> Any:
    settings = {**_SETTINGS, "num_threads": threads}
    rows = lightgbm.Dataset(*fit)
    return lightgbm.train(
        settings,
        rows,
        _ROUNDS,
        valid_sets=[lightgbm.Dataset(*held_out, reference=rows)],
        callbacks=[lightgbm.early_stopping(_STOPPING, verbose=False)],
    )


def shift(residuals: Array, log_scale: Array, degrees: float) -> float:
    """What to add to log-scales so that the likelihood of the residuals is greatest."""
    steps = np.linspace(-1, 2, 301)
    z = np.square(residuals * np.exp(-log_scale))

    def loss(step: float) -> float:
        return step + float(((degrees + 1) / 2 * np.log1p(z * np.exp(-2 * step) / degrees)).mean())

    return float(min(steps, key=loss))


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    threads, folder = int(sys.argv[2]), Path(sys.argv[1]).parent
    inputs, labels = np.load(folder / "inputs.npy"), np.load(folder / "labels.npy")
    answers, rounds, of_means = {}, {}, 0.0
    began = time.perf_counter()
    for number in sorted({fold for fold, _ in plan["members"]}):
        fold_began = time.perf_counter()
        parts = {name: slice(*span) for name, span in plan["folds"][number].items()}
        rows = {name: inputs[part] for name, part in parts.items()}
        mean = boosted(
            (rows["fit"], labels[parts["fit"]]),
            (rows["validation"], labels[parts["validation"]]),
            threads,
        )
        of_means += time.perf_counter() - fold_began
        location = {name: mean.predict(part) for name, part in rows.items()}
        off = {name: labels[parts[name]] - location[name] for name in ("fit", "validation")}
        logs = {name: np.log(np.maximum(np.abs(each), _LEAST)) for name, each in off.items()}
        scale = boosted(
            (rows["fit"], logs["fit"]), (rows["validation"], logs["validation"]), threads
        )
        moved = shift(off["validation"], scale.predict(rows["validation"]), plan["degrees"])
        answers[f"{number}-0"] = np.stack([location["test"], scale.predict(rows["test"]) + moved])
        rounds[number] = (mean.best_iteration, scale.best_iteration)
    seconds = time.perf_counter() - began
    np.savez(plan["answers"], **answers)
    print(json.dumps({"seconds": seconds, "seconds_of_means": of_means, "rounds": rounds}))


if __name__ == "__main__":
    main()
