"""The code location: the rooms' shells gathered, resources bound from the settings."""

from __future__ import annotations

import dagster as dg

import cryptoml_assets.deployment.assets as deployment
import cryptoml_assets.features.assets as features
import cryptoml_assets.features.checks as feature_checks
import cryptoml_assets.features.online_assets as online
import cryptoml_assets.features.training_assets as training
import cryptoml_assets.models.assets as models
import cryptoml_assets.models.comparison_assets as comparison
import cryptoml_assets.monitoring.assets as drift
import cryptoml_assets.monitoring.challenger_assets as challengers
import cryptoml_assets.monitoring.dashboard_assets as dashboard
import cryptoml_assets.monitoring.outcomes_assets as outcomes
import cryptoml_assets.monitoring.quality_assets as quality
import cryptoml_assets.monitoring.revisions_assets as revisions
import cryptoml_assets.onchain.assets as onchain
import cryptoml_assets.onchain.checks as onchain_checks
import cryptoml_assets.onchain.metrics_assets as network
import cryptoml_assets.onchain.metrics_checks as network_checks
import cryptoml_assets.prices.assets as prices
import cryptoml_assets.prices.checks as price_checks
from cryptoml_assets import jobs
from cryptoml_assets.features import online_checks, training_checks
from cryptoml_assets.models.schedules import retrain_daily, retrain_weekly
from cryptoml_assets.monitoring.alert_sensors import (
    notify_failed_run,
    notify_reports,
    send_notices,
    watch_deployments,
)
from cryptoml_assets.monitoring.freshness_sensors import watch_freshness
from cryptoml_assets.monitoring.retrain_sensors import retrain_on_alarm
from cryptoml_assets.monitoring.sensors import keep_fresh
from cryptoml_assets.monitoring.serving_sensors import tell_serving
from cryptoml_assets.production.executor import executor
from cryptoml_assets.resources.feature_store import FeatureStoreResource
from cryptoml_assets.resources.io_manager import LakeIOManager
from cryptoml_assets.resources.tracker import Tracker
from cryptoml_assets.settings import settings

configured = settings()

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(
        [
            prices,
            onchain,
            network,
            features,
            online,
            training,
            models,
            comparison,
            deployment,
            outcomes,
            drift,
            challengers,
            revisions,
            quality,
            dashboard,
        ],
        include_specs=True,
    ),
    asset_checks=dg.load_asset_checks_from_modules(
        [
            price_checks,
            onchain_checks,
            network_checks,
            feature_checks,
            online_checks,
            training_checks,
        ]
    ),
    jobs=[jobs.ingest, jobs.train, jobs.retrain],
    schedules=[retrain_daily, retrain_weekly],
    sensors=[
        keep_fresh,
        watch_freshness,
        retrain_on_alarm,
        watch_deployments,
        tell_serving,
        notify_failed_run,
        notify_reports,
        send_notices,
    ],
    resources={
        "lake": LakeIOManager(uri=configured.lake_uri),
        "feature_store": FeatureStoreResource(
            repository=str(configured.feature_repo), home=str(configured.home_path)
        ),
        "tracker": Tracker(
            # The UI shows a resource's configuration, and an address may hold a password.
            tracking_uri=dg.EnvVar("CRYPTOML_TRACKING_URI")
            if configured.tracking_uri
            else configured.tracking_address,
            artifact_location=configured.artifacts_address,
        ),
    },
    executor=executor(configured),
)
