"""The sensor that tells the inference service to look at the registry."""

import dagster as dg
import httpx

from cryptoml_assets.events import newest_numbers
from cryptoml_assets.monitoring import cursors
from cryptoml_assets.monitoring.workers import Worker, workers
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.stores import masked

#: Longest wait for the service, seconds.
_TIMEOUT = 5.0
_DEPLOYED, _DECISIONS = "validated_deployment", "deployments"


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells the inference service of a new validated_deployment, or of any other "
    "decision, until it has heard",
)
def tell_serving(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Tell the service that there is something to look at; it looks by itself too, only later."""
    configured = settings()
    lake, key = Lake(configured.lake_uri), dg.AssetKey(_DEPLOYED)
    now = {
        _DEPLOYED: next(iter(newest_numbers(context.instance, key, 1)), 0),
        # Decisions of people and of challengers materialise nothing.
        _DECISIONS: lake.version(_DECISIONS) + 1 if lake.exists(_DECISIONS) else 0,
    }
    if now == cursors.read(context.cursor) or not any(now.values()):
        return dg.SensorResult(skip_reason="nothing new to serve")
    if not configured.inference_admin_urls:
        return dg.SensorResult(skip_reason="CRYPTOML_INFERENCE_ADMIN_URLS is empty")
    troubles = [
        trouble
        for worker in workers(configured.inference_admin_urls, configured.inference_ca_file)
        if (trouble := _ask(worker, configured.inference_key))
    ]
    if troubles:
        context.log.warning("the inference service has not heard of it: %s", "; ".join(troubles))
        return dg.SensorResult(skip_reason="the inference service did not answer: told next time")
    return dg.SensorResult(skip_reason="the inference service was told", cursor=cursors.write(now))


def _ask(worker: Worker, key: str) -> str:
    """Have one worker look at the registry; why it did not hear, empty when it did."""
    try:
        worker.ask("POST", "/admin/reload", key=key, timeout=_TIMEOUT)
    except httpx.HTTPStatusError as error:
        return masked(f"{worker.url}: {error.response.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return masked(f"{worker.url}: {type(error).__name__}")
    return ""
