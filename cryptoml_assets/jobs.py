"""Jobs: the parts of the graph that run together."""

from __future__ import annotations

import dagster as dg

DAILY = dg.AssetSelection.assets(
    "raw_prices", "onchain_blocks", "network_metrics", "price_features", "onchain_features"
)

ingest = dg.define_asset_job(
    "ingest", DAILY, description="Raw data and features of a range of days, in one run"
)
train = dg.define_asset_job(
    "train",
    dg.AssetSelection.all() - DAILY,
    description="Online store, training set, candidates, comparison, gate, approval and drift",
)
retrain = dg.define_asset_job(
    "retrain",
    dg.AssetSelection.assets(
        "training_set", "candidate_models", "model_comparison", "validated_deployment"
    ),
    description="A new candidate from the newest features, sent through the gate",
)
