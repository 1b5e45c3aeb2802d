"""A code location of few assets: one with what a training asks of Kubernetes, one that is lost."""

import os
import time

import dagster as dg

from cryptoml_assets.models.resources import Workload, kubernetes_tags, training_request
from cryptoml_assets.production.executor import executor
from cryptoml_assets.settings import settings

LOAD = Workload(rows=100_000, features=40, hidden_units=(64, 32), batch_size=1024, gpus=1)


@dg.asset(op_tags=kubernetes_tags(training_request(LOAD), spot=settings().spot))
def trained() -> dg.MaterializeResult[None]:
    """A step that asks for much."""
    return dg.MaterializeResult(metadata={"where": "a pod"})


@dg.asset
def compared() -> dg.MaterializeResult[None]:
    """A step that asks for nothing."""
    return dg.MaterializeResult()


@dg.asset
def kept() -> dg.MaterializeResult[None]:
    """A step that is not run again."""
    return dg.MaterializeResult()


@dg.asset(deps=[kept])
def lost() -> dg.MaterializeResult[None]:
    """A step whose first process tells its number and waits until it is killed."""
    mark = settings().home_path / "lost"
    if not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.with_suffix(".new").write_text(str(os.getpid()))
        mark.with_suffix(".new").rename(mark)
        time.sleep(600)
    return dg.MaterializeResult()


defs = dg.Definitions(
    assets=[trained, compared, kept, lost],
    jobs=[
        dg.define_asset_job("both", [trained, compared]),
        dg.define_asset_job("interrupted", [kept, lost]),
    ],
    executor=executor(settings()),
)
