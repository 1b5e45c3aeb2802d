"""What the settings ask to be trained: one task for each family, over its own inputs."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cryptoml_assets.features.catalog import row_inputs, window_channels, window_inputs
from cryptoml_assets.features.service import return_service_name
from cryptoml_assets.models.options import WINDOWED, Family
from cryptoml_assets.models.provenance import git_commit
from cryptoml_assets.models.resources import (
    kubernetes_tags,
    planned_rows,
    training_request,
    workload,
)
from cryptoml_assets.models.strategy import Costs
from cryptoml_assets.models.task import Task, TrainingConfig
from cryptoml_serving.contract.manifest import FeatureSpec

if TYPE_CHECKING:
    from cryptoml_assets.settings import Settings


def tasks(configured: Settings, training_set_version: int) -> tuple[Task, ...]:
    """A task for each configured family.

    Args:
        configured: the settings.
        training_set_version: version of the lake table to learn from.
    """
    return tuple(
        task_of(family, configured, training_set_version) for family in configured.families
    )


def task_of(family: Family, configured: Settings, training_set_version: int) -> Task:
    """The task of one family; arguments as of :func:`tasks`."""
    windowed = family in WINDOWED
    inputs = window_inputs() if windowed else row_inputs()
    return Task(
        model_name=configured.model_name,
        family=family,
        horizon=configured.horizon,
        bar=configured.bar,
        features=tuple(FeatureSpec(name=each.name, view=each.table) for each in inputs),
        feature_service=return_service_name(inputs),
        test_share=configured.test_share,
        embargo=configured.embargo,
        training=TrainingConfig(
            **{field.name: getattr(configured, field.name) for field in fields(TrainingConfig)}
        ),
        lake_versions={"training_set": training_set_version},
        git_commit=git_commit(),
        channels=window_channels() if windowed else (),
        folds=configured.folds,
        fold_window=configured.fold_window,
        costs=Costs(configured.fee_bps, configured.slippage_bps),
    )


def resource_tags(configured: Settings) -> dict[str, Any]:
    """What the largest of the configured trainings asks of Kubernetes."""
    rows = planned_rows(configured.training_window, configured.bar, len(configured.symbols))
    requests = [
        training_request(workload(task, rows, gpus=configured.training_gpus))
        for task in tasks(configured, 0)
    ]
    largest = max(requests, key=lambda request: request.memory_bytes)
    return kubernetes_tags(largest, spot=configured.spot)
