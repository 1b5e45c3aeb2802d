"""The executor that the settings ask for: steps in the run's process, or each in a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from cryptoml_assets.settings import Settings


def executor(configured: Settings) -> dg.ExecutorDefinition:
    """Where the steps of a run are executed.

    On Kubernetes each step is a Job with what the run's own has: image, settings, secrets, security
    context. Its memory, processor and GPUs are those of the asset's tags, where it has any.
    """
    if configured.execution == "local":
        return dg.in_process_executor
    from dagster_k8s import k8s_job_executor  # noqa: PLC0415 - half a second, for clusters alone

    return k8s_job_executor.configured(
        {
            # A Job that nobody looks after any more goes with the pod of its run.
            "enable_owner_references": True,
            **({"job_namespace": configured.k8s_namespace} if configured.k8s_namespace else {}),
        }
    )
