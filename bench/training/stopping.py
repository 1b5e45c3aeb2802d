"""Each side until its own early stopping ends it, and what it has found by then."""

from __future__ import annotations

import argparse

from bench.report import Claim
from bench.training.scores import by_name
from bench.training.sides import Sides, torch_name
from bench.training.suite import loss_claim
from bench.training.world import Config


def claims(options: argparse.Namespace, sides: Sides) -> list[Claim]:
    seeds = options.stopping_seeds
    members = [(fold, seed) for fold in range(options.folds) for seed in range(seeds)]
    config = Config(options.most_epochs)
    sides.compile_ours(config, members)
    ours = sides.ours(config, members)
    theirs = sides.fastest_torch(config, members)
    trees = sides.trees(config, options.folds)
    print(f"  epochs of a member: ours {ours.mean_epochs:.1f}, PyTorch {theirs.mean_epochs:.1f}")
    print(f"  rounds of each fold's boosters, mean and log-scale: {trees.said['rounds']}")
    print("  gained on chance out of sample, mean of the members:")
    sided = {"ours": ours, "PyTorch": theirs, "LightGBM": trees}
    print(by_name({name: side.scores for name, side in sided.items()}))
    size = f"{options.folds} folds x {seeds} seeds to their early stop"
    boosted = trees.said["seconds_of_means"]
    return [
        Claim.of_seconds(f"{size}: {torch_name()}", ours.seconds, theirs.seconds, None),
        *loss_claim("found out of sample by then", ours, theirs),
        Claim.of_seconds(f"{size}: LightGBM, mean and scale", ours.seconds, trees.seconds, None),
        Claim.of_seconds(f"{size}: LightGBM, the mean alone", ours.seconds, boosted, None),
    ]
