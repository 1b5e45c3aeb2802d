"""What late corrections have reached, as an asset: models and predictions whose rows are others."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from cryptoml_assets.deployment import history
from cryptoml_assets.deployment.standing import standing
from cryptoml_assets.monitoring.conditions import once_there_is
from cryptoml_assets.monitoring.learnt import learnt_by
from cryptoml_assets.monitoring.looks import Found, keep_looked, look, read_looked
from cryptoml_assets.monitoring.revisions import SCHEMA, merged
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.lake import Lake, Stored
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import Settings, settings
from cryptoml_assets.tables import described_columns, markdown_table
from cryptoml_serving.contract.approval import load_public_key

_MEANINGS = {
    "kind": "training: rows a model learnt from or was tested on; prediction: the row it was "
    "made of",
    "model_version": "the registry's version of the affected model",
    "prediction_id": "the affected prediction; null for training",
    "table": "feature table whose rows are others now",
    "symbol": "base and quote currency, BASE/QUOTE",
    "first_instant": "event timestamp of the first row that changed (UTC)",
    "last_instant": "event timestamp of the last (UTC)",
    "rows": "how many rows changed",
    "noticed_at": "when it was noticed first (UTC)",
}
#: Most ids and rows that the metadata show; the table has them all.
_SHOWN = 20
_tick: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed("0 * * * *")
#: Once an hour.
_hourly = _tick.since_last_handled() & ~dg.AutomationCondition.in_progress()


@dg.asset(
    deps=["price_features", "onchain_features"],
    group_name="monitoring",
    kinds={"polars", "deltalake"},
    owners=["team:platform"],
    code_version="1",
    io_manager_key="lake",
    automation_condition=_hourly & once_there_is("validated_deployment"),
    metadata=described_columns(SCHEMA, _MEANINGS),
)
def revision_impact(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeIOManager], tracker: Tracker
) -> Iterator[dg.MaterializeResult[Stored]]:
    """Models and predictions that rest on feature rows which have been revised since.

    One row per model version, table and symbol whose training or test rows a reorganisation or a
    revised bar changed, and one per served prediction made of a row that is another now. Each look
    goes on where the one before ended; what was noticed once stays.
    """
    configured, store, table = settings(), lake.lake, context.asset_key.path[-1]
    found = _look(configured, store, tracker)
    for problem in found.problems:
        context.log.warning("%s", problem)
    known = store.scan(table).collect() if store.exists(table) else SCHEMA.to_frame()
    facts = [name for name in SCHEMA if name != "noticed_at"]
    new = found.impact.join(known, on=facts, how="anti", nulls_equal=True)
    # Told first: a run that dies finds and tells it again, instead of never.
    _warn(context, new)
    impact = merged(known, found.impact)
    version = store.overwrite(table, impact)
    yield dg.MaterializeResult(
        value=Stored(version, impact.height), metadata=_metadata(impact, new, found)
    )
    # Only when everything found is stored and told: a run that dies before looks again.
    keep_looked(store, found.looked)


def _look(configured: Settings, lake: Lake, tracker: Tracker) -> Found:
    entries = []
    if lake.exists(history.TABLE):
        entries = history.read(lake, load_public_key(configured.public_key_path))
    placed = standing(entries, configured.model_name).entries
    return look(
        lake,
        learnt_by(tracker.client(), lake, configured.model_name, entries),
        [entry.record.model_version for entry in placed],
        read_looked(lake),
        configured.clock(),
    )


def _warn(context: dg.AssetExecutionContext, new: pl.DataFrame) -> None:
    """Tell of versions newly affected, here and where they were approved."""
    versions = _versions(new)
    if not versions:
        return
    rows = new.filter(pl.col("kind") == "prediction").height
    message = f"revised rows under version {', '.join(versions)}; {rows} predictions"
    context.log.warning("ALERT: %s", message)
    context.log_event(
        dg.AssetObservation(
            "validated_deployment",
            description=message,
            metadata={"revised_versions": versions, "revised_predictions": rows},
        )
    )


def _versions(impact: pl.DataFrame) -> list[str]:
    return sorted(impact["model_version"].unique(), key=int)


def _metadata(impact: pl.DataFrame, new: pl.DataFrame, found: Found) -> dict[str, Any]:
    predictions = impact.filter(pl.col("kind") == "prediction")
    newest = impact.sort("noticed_at", descending=True, maintain_order=True).head(_SHOWN)
    shown = [name for name in SCHEMA if name not in {"prediction_id", "noticed_at"}]
    return {
        "affected_versions": _versions(impact),
        "affected_predictions": predictions["prediction_id"].n_unique(),
        "prediction_ids": predictions["prediction_id"]
        .unique(maintain_order=True)
        .to_list()[-_SHOWN:],
        "new": new.height,
        "considered_versions": sorted(found.looked.models, key=int),
        "looked_up_to": dict(found.looked.versions),
        "problems": list(found.problems),
        "impact": dg.MetadataValue.md(markdown_table(shown, newest.select(shown).iter_rows())),
    }
