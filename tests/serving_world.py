"""Everything the inference service reads, made for real: registry, bundles, approvals, features.

    templates = build_templates(tmp_path_factory.getbasetemp())  # slow, so once a session
    world = ServingWorld(tmp_path, templates)
    world.write_features({"BTC/USDT": (1.0, 2.0, 3.0)}, at=NOW - timedelta(minutes=5))
    published = world.publish()                    # logged, registered, approved, champion
    world.publish(role="canary", percent=20)       # the same beside it
    world.place(published, "shadow")               # another role from now on
    world.withdraw(published)                      # none
    world.settings()                               # ServingSettings that point at all of it

A model here predicts the sum of its features, a missing one counting as nothing.
"""
# ruff: noqa: PLC0415 - collecting tests must not import jax, mlflow and feast

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryptoml_serving.contract.approval import (
    NO_RECORD,
    ApprovalRecord,
    Criterion,
    generate_keys,
    load_private_key,
    sign,
    write_signed,
)
from cryptoml_serving.contract.bundle import write_bundle
from cryptoml_serving.contract.deployment import Deployment, Placement, sign_deployment
from cryptoml_serving.contract.feature_store import FORMULA_TAG
from cryptoml_serving.contract.manifest import FeatureSpec, Manifest
from cryptoml_serving.contract.registry import (
    APPROVAL_FOLDER,
    BUNDLE_FOLDER,
    CHAMPION_ALIAS,
    DEPLOYMENT_TAG,
    DIGEST_TAG,
    feature_service_name,
)
from cryptoml_serving.contract.stores import Stores
from cryptoml_serving.settings import ServingSettings

REPOSITORY = Path(__file__).parents[1]
NOW = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)
MODEL = "cryptoml-return"
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
FEATURES = (
    FeatureSpec(name="log_return_1", view="price_features"),
    FeatureSpec(name="sma_gap_5", view="price_features"),
    FeatureSpec(name="mvrv_ratio", view="onchain_features"),
)
FORMULA = "some formula"
SERVICE = feature_service_name((each.view, each.name, FORMULA) for each in FEATURES)
TTL = timedelta(days=7)
_LATER = timedelta(hours=1)


@dataclass(frozen=True)
class Templates:
    """What is slow to make and quick to copy: a migrated registry, an applied feature store."""

    mlflow: Path
    feast: Path
    program: bytes


@cache
def build_templates(base: Path) -> Templates:
    from mlflow import MlflowClient

    folder = base / "serving-templates"
    folder.mkdir()
    database = folder / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    home = folder / "home"
    _apply_views(home)
    return Templates(database, home / "feast", _program())


def _program(scale: float = 1.0, platforms: tuple[str, ...] = ("cpu",)) -> bytes:
    """The exported prediction: every bundle has this one, and only manifests differ."""
    import jax
    import jax.numpy as jnp
    from jax import export

    def predict(features: Any) -> dict[str, Any]:
        total = jnp.nan_to_num(features).sum(axis=1) * scale
        return {
            "expected_return": total,
            "lower": total - 0.5,
            "upper": total + 0.5,
            "probability_up": jax.nn.sigmoid(total),
        }

    (rows,) = export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((rows, len(FEATURES)), np.float32)
    return bytes(export.export(jax.jit(predict), platforms=platforms)(shape).serialize())


def scaled_program(scale: float, platforms: tuple[str, ...] = ("cpu",)) -> bytes:
    """One that answers ``scale`` times the sum, for these devices."""
    return _program(scale, platforms)


def numberless_program() -> bytes:
    """One that answers NaN to everything."""
    return _program(np.nan)


def _feature_store(home: Path) -> Any:
    from feast import FeatureStore, RepoConfig

    (home / "feast").mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(**Stores(home).configuration(REPOSITORY / "feature_repo"))
    )


def _apply_views(home: Path) -> None:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, String

    entity = Entity(name="crypto_symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    source = FileSource(path="never-read.parquet", timestamp_field="event_timestamp")
    views = [
        FeatureView(
            name=view,
            entities=[entity],
            ttl=TTL,
            schema=[
                Field(name="symbol", dtype=String),
                *(
                    Field(name=f.name, dtype=Float64, tags={FORMULA_TAG: FORMULA})
                    for f in FEATURES
                    if f.view == view
                ),
            ],
            source=source,
        )
        for view in ("price_features", "onchain_features")
    ]
    service = FeatureService(name=SERVICE, features=views)
    _feature_store(home).apply([entity, *views, service])


@dataclass
class ServingWorld:
    """One home folder with keys, registry and feature store."""

    folder: Path
    templates: Templates
    serials: Iterator[int] = field(default_factory=itertools.count)
    #: Digests of all signed decisions, in order.
    decisions: list[str] = field(default_factory=list)
    #: Version → what it may do now.
    placements: dict[str, Placement] = field(default_factory=dict)
    #: Versions taken back, in order.
    withdrawn: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from mlflow import MlflowClient

        self.home = self.settings().home_path
        self.home.mkdir(parents=True)
        shutil.copytree(self.templates.feast, self.home / "feast")
        shutil.copy(self.templates.mlflow, self.home / "mlflow.db")
        self.private_key = self.home / "keys" / "approval.key"
        generate_keys(self.private_key, self.home / "keys" / "approval.pub")
        address = f"sqlite:///{self.home / 'mlflow.db'}"
        self.client = MlflowClient(address, registry_uri=address)
        artifacts = (self.home / "artifacts").as_uri()
        self.experiment = self.client.create_experiment("test", artifact_location=artifacts)
        self.client.create_registered_model(MODEL)

    def settings(self, **overrides: Any) -> ServingSettings:
        values: dict[str, Any] = {
            "home": self.folder / "home",
            "now": NOW,
            "symbols": SYMBOLS,
            "model_name": MODEL,
            "feature_repo": REPOSITORY / "feature_repo",
            "serving_refresh": timedelta(milliseconds=30),
            "serving_registry_poll": timedelta(milliseconds=60),
            "serving_log_interval": timedelta(milliseconds=50),
            # Worlds run side by side.
            "serving_admin_port": 0,
        }
        return ServingSettings(**{**values, **overrides})

    def environment(self, port: int) -> dict[str, str]:
        """The same as variables, for a process of its own."""
        return {
            **os.environ,
            "CRYPTOML_HOME": str(self.folder / "home"),
            "CRYPTOML_NOW": NOW.isoformat(),
            "CRYPTOML_SYMBOLS": ",".join(SYMBOLS),
            "CRYPTOML_FEATURE_REPO": str(REPOSITORY / "feature_repo"),
            "CRYPTOML_SERVING_PORT": str(port),
            "CRYPTOML_SERVING_ADMIN_PORT": "0",
            "CRYPTOML_SERVING_LOG_INTERVAL": "100ms",
        }

    def write_features(
        self,
        values: Mapping[str, tuple[float | None, ...]],
        at: datetime,
        onchain_at: datetime | None = None,
    ) -> None:
        """One row of all features for each symbol, dated `at` (on-chain ones `onchain_at`)."""
        store = _feature_store(self.home)
        for view in ("price_features", "onchain_features"):
            columns = [i for i, feature in enumerate(FEATURES) if feature.view == view]
            dated = (onchain_at or at) if view == "onchain_features" else at
            rows = [
                {"symbol": symbol, "event_timestamp": dated}
                | {FEATURES[i].name: row[i] for i in columns}
                for symbol, row in values.items()
            ]
            store.write_to_online_store(view, pd.DataFrame(rows))

    def log_bundle(
        self, program: bytes = b"", weights: Mapping[str, Any] | None = None, **manifest: Any
    ) -> tuple[str, str]:
        """Log a bundle to a new run; its run id and digest. A metric makes each one differ."""
        run = self.client.create_run(self.experiment).info.run_id
        folder = self.folder / "bundles" / run / BUNDLE_FOLDER
        described = _manifest(**{"metrics": {"serial": next(self.serials)}, **manifest})
        digest = write_bundle(
            folder,
            stablehlo=program or self.templates.program,
            weights=weights or {},
            manifest=described,
        )
        self.client.log_artifacts(run, str(folder), BUNDLE_FOLDER)
        return run, digest

    def register(self, run: str, digest: str) -> str:
        version = self.client.create_model_version(
            MODEL, source=f"runs:/{run}/{BUNDLE_FOLDER}", run_id=run, tags={DIGEST_TAG: digest}
        )
        return str(version.version)

    def approve(self, *, attach_to: Published, **subject: Any) -> None:
        """Sign the next decision, on `subject`, and attach it where that of a version belongs."""
        fields: dict[str, Any] = {
            "sequence": len(self.decisions),
            "previous": self.decisions[-1] if self.decisions else NO_RECORD,
            "action": "approve",
            "role": "champion",
            "claim": "direction",
            "source": "simulated",
            "data_versions": {"training_set": 1},
            "git_commit": "0" * 40,
            "criteria": (
                Criterion(name="skill", passed=True, figure=0.6, threshold=0.5, rule="above"),
            ),
            "decided_by": "policy",
            "reason": "it passed",
            "decided_at": NOW,
        }
        record = ApprovalRecord(**{**fields, **subject})
        signed = sign(record, load_private_key(self.private_key))
        self.decisions.append(signed.digest)
        path = self.folder / f"{attach_to.version}.json"
        path.write_bytes(write_signed(signed))
        self.client.log_artifact(attach_to.run, str(path), APPROVAL_FOLDER)

    def deployment(self, **changes: Any) -> str:
        """The signed text of what is deployed now, with `changes`."""
        champions = [each for each in self.placements.values() if each.role == "champion"]
        fields: dict[str, Any] = {
            "model_name": MODEL,
            "sequence": max(0, len(self.decisions) - 1),
            "head": (self.decisions or [NO_RECORD])[-1],
            "champion": champions[0] if champions else None,
            "challengers": tuple(p for p in self.placements.values() if p.role != "champion"),
            "withdrawn": tuple(v for v in self.withdrawn if v not in self.placements),
        }
        deployment = Deployment(**{**fields, **changes})
        return sign_deployment(deployment, load_private_key(self.private_key))

    def write_tag(self, text: str) -> None:
        self.client.set_registered_model_tag(MODEL, DEPLOYMENT_TAG, text)

    def read_tag(self) -> str:
        return str(self.client.get_registered_model(MODEL).tags[DEPLOYMENT_TAG])

    def make_champion(self, version: str) -> None:
        """Move the alias, and nothing else."""
        self.client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, version)

    def place(
        self, published: Published, role: Any = "champion", percent: float = 0.0, **record: Any
    ) -> None:
        """Approve a version for a role, deploy it so, and let the alias follow."""
        subject = {**published.subject, "role": role, "percent": percent, **record}
        self.approve(**subject, attach_to=published)
        self.deploy(published, role, percent)

    def deploy(self, published: Published, role: Any = "champion", percent: float = 0.0) -> None:
        """Deploy a version whatever was approved, and let the alias follow."""
        if role == "champion":
            self.placements = {v: p for v, p in self.placements.items() if p.role != "champion"}
        self.placements[published.version] = published.placement(role, percent)
        self.write_tag(self.deployment())
        if role == "champion":
            self.make_champion(published.version)

    def withdraw(self, published: Published) -> None:
        """Take a version's role away."""
        left = self.placements.pop(published.version)
        self.withdrawn.append(published.version)
        self.decisions.append("f" * 64)
        self.write_tag(self.deployment())
        if left.role == "champion":
            self.client.delete_registered_model_alias(MODEL, CHAMPION_ALIAS)

    def roll_back(self, published: Published, to: Published) -> None:
        """Withdraw the champion and put an earlier version in its place, in one decision."""
        self.withdrawn.append(published.version)
        self.place(to, action="rollback")

    def publish(
        self,
        *,
        approved: bool = True,
        deployed: bool = True,
        role: Any = "champion",
        percent: float = 0.0,
        **manifest: Any,
    ) -> Published:
        """Log, register, approve and deploy unless told otherwise."""
        run, digest = self.log_bundle(**manifest)
        version = self.register(run, digest)
        artifacts = self.home / "artifacts" / run / "artifacts"
        published = Published(version, run, digest, artifacts)
        if approved and deployed:
            self.place(published, role, percent)
        elif deployed:
            self.deploy(published, role, percent)
        return published


@dataclass(frozen=True)
class Published:
    """A version in the registry and the folder of its run's artifacts."""

    version: str
    run: str
    digest: str
    artifacts: Path

    @property
    def subject(self) -> dict[str, str]:
        """What an approval of it says it is about."""
        return {
            "model_name": MODEL,
            "model_version": self.version,
            "bundle_digest": self.digest,
            "run_id": self.run,
        }

    def placement(self, role: Any, percent: float) -> Placement:
        """Its part of a deployment."""
        return Placement(
            model_version=self.version,
            bundle_digest=self.digest,
            run_id=self.run,
            role=role,
            percent=percent,
        )

    @property
    def approval(self) -> Path:
        return self.artifacts / APPROVAL_FOLDER / f"{self.version}.json"

    @property
    def bundle(self) -> Path:
        return self.artifacts / BUNDLE_FOLDER

    def alter_record(self, **changes: Any) -> None:
        """Rewrite the signed record without the key."""
        signed = json.loads(self.approval.read_text())
        record = json.loads(signed["record_json"]) | changes
        signed["record_json"] = json.dumps(record, sort_keys=True, separators=(",", ":"))
        self.approval.write_text(json.dumps(signed))


def _manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "model_name": MODEL,
        "family": "test",
        "created_at": NOW,
        "horizon_seconds": 3600,
        "bar_seconds": 300,
        "features": FEATURES,
        "feature_service": SERVICE,
        "training_start": NOW - 4 * _LATER,
        "training_end": NOW - 3 * _LATER,
        "test_start": NOW - 2 * _LATER,
        "test_end": NOW - _LATER,
        "lake_versions": {"training_set": 1},
        "git_commit": "0" * 40,
        "source": "simulated",
        "metrics": {},
        "libraries": {},
        "platforms": ("cpu",),
    }
    return Manifest(**{**fields, **changes})
