"""The same networks in a PyTorch loop: ``torch_loop.py PLAN THREADS [loader]``.

Tuned as such a loop can be: tensors in memory, an epoch's rows shuffled once and its batches cut as
views, a fused AdamW, the rate set by arithmetic, no transfer or ``.item()`` in the loop. Measured
and left out, as they gained nothing here: ``torch.compile``, index batches, ``foreach`` clipping.
With ``loader``, batches come from a ``DataLoader`` over a ``TensorDataset`` instead, as most people
write it. Imports nothing of ours.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

Plan = dict[str, Any]
Part = tuple[torch.Tensor, torch.Tensor]
_WARMUP_SHARE = 0.1
_LOG_SCALE_LIMIT = 4.0


class Net(nn.Module):
    """Hidden layers with SiLU and a linear path beside them to location and log-scale."""

    def __init__(self, columns: int, hidden_units: list[int]) -> None:
        super().__init__()
        widths = [columns, *hidden_units]
        self.hidden = nn.ModuleList(itertools.starmap(nn.Linear, itertools.pairwise(widths)))
        self.head = nn.Linear(widths[-1], 2)
        self.direct = nn.Linear(columns, 2, bias=False)
        for layer in self.hidden:
            # Of unit variance after the cut at two deviations, as LeCun's is drawn elsewhere.
            deviation = 1 / math.sqrt(layer.in_features) / 0.87962566103423978
            nn.init.trunc_normal_(layer.weight, 0, deviation, -2 * deviation, 2 * deviation)
            nn.init.zeros_(layer.bias)
        for values in (self.head.weight, self.head.bias, self.direct.weight):
            nn.init.zeros_(values)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activations = rows
        for layer in self.hidden:
            activations = nn.functional.silu(layer(activations))
        both = self.head(activations) + self.direct(rows)
        return both[:, 0], both[:, 1].clamp(-_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT)


def loss_of(net: Net, rows: torch.Tensor, labels: torch.Tensor, degrees: float) -> torch.Tensor:
    location, log_scale = net(rows)
    z = (labels - location) * torch.exp(-log_scale)
    return (log_scale + (degrees + 1) / 2 * torch.log1p(z * z / degrees)).mean()


def pace(share: float) -> float:
    if share < _WARMUP_SHARE:
        return share / _WARMUP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (share - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))


def batches(fit: Part, size: int, generator: torch.Generator) -> Iterator[Part]:
    order = torch.randperm(len(fit[1]), generator=generator)
    rows, labels = fit[0][order], fit[1][order]
    for start in range(0, len(labels) - size + 1, size):
        yield rows[start : start + size], labels[start : start + size]


def train(plan: Plan, fit: Part, validation: Part, seed: int, *, loader: bool) -> tuple[Net, int]:
    """Train one member; the net of its best epoch, and the epochs it took."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = Net(fit[0].shape[1], plan["hidden_units"])
    weights = list(net.parameters())
    optimiser = torch.optim.AdamW(weights, weight_decay=plan["weight_decay"], fused=True)
    size = min(plan["batch"], len(fit[1]))
    total = len(fit[1]) // size * plan["epochs"]
    drawn = DataLoader(TensorDataset(*fit), size, shuffle=True, drop_last=True)
    best, best_loss, best_epoch, number = copy.deepcopy(net.state_dict()), math.inf, 0, 0
    for epoch in range(1, plan["epochs"] + 1):
        for rows, labels in drawn if loader else batches(fit, size, generator):
            optimiser.param_groups[0]["lr"] = plan["learning_rate"] * pace(number / total)
            optimiser.zero_grad(set_to_none=True)
            loss_of(net, rows, labels, plan["degrees"]).backward()
            nn.utils.clip_grad_norm_(weights, plan["gradient_norm"])
            optimiser.step()
            number += 1
        with torch.inference_mode():
            loss = float(loss_of(net, *validation, plan["degrees"]))
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(net.state_dict()), loss, epoch
        elif epoch - best_epoch >= plan["patience"]:
            break
    net.load_state_dict(best)
    return net, epoch


def main() -> None:
    plan: Plan = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(int(sys.argv[2]))
    folder = Path(sys.argv[1]).parent
    inputs = torch.from_numpy(np.load(folder / "inputs.npy"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    # The first step of a process imports a good deal of PyTorch: like compiling, in no figure.
    few = inputs[: 2 * plan["batch"]], labels[: 2 * plan["batch"]]
    train({**plan, "epochs": 1}, few, few, 0, loader=False)
    epochs, nets, steps = {}, {}, 0
    began, cpu_began = time.perf_counter(), time.process_time()
    for fold, seed in plan["members"]:
        fit, validation = (
            (inputs[slice(*plan["folds"][fold][part])], labels[slice(*plan["folds"][fold][part])])
            for part in ("fit", "validation")
        )
        name = f"{fold}-{seed}"
        nets[name], epochs[name] = train(
            plan, fit, validation, seed, loader="loader" in sys.argv[3:]
        )
        steps += max(len(fit[1]) // plan["batch"], 1) * epochs[name]
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    with torch.inference_mode():
        answers = {
            name: torch.stack(
                net(inputs[slice(*plan["folds"][int(name.partition("-")[0])]["test"])])
            )
            for name, net in nets.items()
        }
    np.savez(plan["answers"], **{name: answer.numpy() for name, answer in answers.items()})
    said = {"seconds": seconds, "cpu_seconds": cpu_seconds, "steps": steps, "epochs": epochs}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
