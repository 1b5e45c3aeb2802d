"""The asset that keeps Grafana's dashboard as the code has it."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import dagster as dg

from cryptoml_assets.monitoring.dashboard import dashboard, push
from cryptoml_assets.settings import settings

_tick: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed("*/15 * * * *")
#: Pushed when it was never, and when the code makes another one: its version is its content. A
#: Grafana that is down is tried again a quarter of an hour later.
when_changed: dg.AutomationCondition[Any] = (
    _tick.since_last_handled()
    & (
        dg.AutomationCondition.missing()
        | dg.AutomationCondition.code_version_changed().since(
            dg.AutomationCondition.newly_updated()
        )
    )
    & ~dg.AutomationCondition.in_progress()
)


def when_pushed(grafana_url: str) -> dg.AutomationCondition[Any] | None:
    """When the dashboard is pushed by itself: never where there is no Grafana to push it to."""
    return when_changed if grafana_url else None


@dg.asset(
    group_name="monitoring",
    kinds={"grafana"},
    owners=["team:platform"],
    code_version=hashlib.sha256(json.dumps(dashboard()).encode()).hexdigest()[:16],
    output_required=False,
    automation_condition=when_pushed(settings().grafana_url),
)
def grafana_dashboard(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """The dashboard of the platform in Grafana: model, inference service, data and pipelines.

    A materialisation says that Grafana holds exactly what the code makes; the same content is
    stored there once. Without CRYPTOML_GRAFANA_URL there is an observation with the dashboard's
    JSON, to be imported by hand, and no materialisation.
    """
    configured, made = settings(), dashboard()
    panels = sum(panel["type"] != "row" for panel in made["panels"])
    told: dict[str, Any] = {"panels": panels, "dashboard": dg.MetadataValue.json(made)}
    if not configured.grafana_url:
        context.log_event(
            dg.AssetObservation(
                context.asset_key,
                description="not pushed: CRYPTOML_GRAFANA_URL is not set",
                metadata=told,
            )
        )
        return
    pushed = push(configured.grafana_url, configured.grafana_token, made)
    context.log.info("%s holds version %d", pushed.url, pushed.version)
    yield dg.MaterializeResult(
        metadata={
            **told,
            "address": dg.MetadataValue.url(pushed.url),
            "grafana_version": pushed.version,
            "changed": pushed.changed,
        }
    )
