"""Jobs: the parts of the graph that run together."""

from __future__ import annotations

import dagster as dg

#: Tag of a run that nobody asked for by hand: what did, such as drift, performance or schedule.
CAUSE_TAG = "cryptoml/cause"
DAILY = dg.AssetSelection.assets(
    "raw_prices", "onchain_blocks", "network_metrics", "price_features", "onchain_features"
)

ingest = dg.define_asset_job(
    "ingest", DAILY, description="Raw data and features of a range of days, in one run"
)
train = dg.define_asset_job(
    "train",
    # A Grafana that is down fails no training.
    dg.AssetSelection.all() - DAILY - dg.AssetSelection.assets("grafana_dashboard"),
    description="Online store, training set, candidates, comparison, gate, approval, monitoring",
)
retrain = dg.define_asset_job(
    "retrain",
    dg.AssetSelection.assets(
        "training_set", "candidate_models", "model_comparison", "validated_deployment"
    ),
    description="A new candidate from the newest features, sent through the gate",
)
