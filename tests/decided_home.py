"""A home with a lake, a registry of judged versions, and predictions made of real features.

    home = DecidedHome(tmp_path, build_templates(tmp_path_factory.getbasetemp()))
    version = home.judged()                        # logged, registered, and passed by the gate
    row = home.log(version, sequence=0)            # a prediction, as serving logs it

Settings are its own after :meth:`DecidedHome.enter`; the model of ``serving_world`` predicts the
sum of its three inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from cryptoml_assets.deployment import history, verdicts
from cryptoml_assets.deployment.history import Subject
from cryptoml_assets.deployment.options import CRITERIA
from cryptoml_assets.features.catalog import FEATURES as CATALOG
from cryptoml_assets.features.catalog import features_of
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.features.service import return_service_name
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.approval import Criterion, load_private_key
from cryptoml_serving.contract.prediction import prediction_id
from cryptoml_serving.contract.served import ServedPrediction
from cryptoml_serving.runtime.served_table import append_new
from tests.feature_data import BAR, make_bars, make_blocks, make_metrics, some_days
from tests.serving_world import FEATURES, MODEL, NOW, ServingWorld, Templates

SYMBOL = "BTC/USDT"
FIRST = NOW.date() - timedelta(days=3)
DAYS = some_days(4, FIRST)
AT = NOW - 2 * BAR
_NAMES = {spec.name for spec in FEATURES}
#: The feature service of the model's inputs as they are computed now.
SERVICE = return_service_name([f for spec in FEATURES for f in CATALOG if f.name == spec.name])
_PRICE = [each for each in features_of("price_features") if each.name in _NAMES]
_CHAIN = [
    each for each in features_of("onchain_features") if each.name in _NAMES | {"log_base_fee"}
]


@dataclass
class DecidedHome:
    """What the commands about deployments read, made for real."""

    folder: Path
    templates: Templates
    lake: Lake = field(init=False)
    world: ServingWorld = field(init=False)
    subjects: dict[str, Subject] = field(default_factory=dict)
    bars: pl.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        self.world = ServingWorld(self.folder, self.templates)
        self.lake = Lake(str(self.world.home / "lake"))
        bars = make_bars(len(DAYS), (SYMBOL,), first=FIRST)
        self.bars = bars.filter(pl.col("close_time") <= NOW)
        self.lake.replace_days("network_metrics", make_metrics(len(DAYS), FIRST), DAYS)
        self.lake.replace_days("onchain_blocks", make_blocks(len(DAYS), FIRST), DAYS)
        self.store_bars(self.bars)
        chain = onchain_features(
            self.lake.scan("network_metrics"),
            self.lake.scan("onchain_blocks"),
            (SYMBOL,),
            DAYS,
            delay=timedelta(hours=4),
            now=NOW,
            features=_CHAIN,
        )
        self.lake.replace_days("onchain_features", chain, DAYS)

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the settings of this process those of the home."""
        monkeypatch.setenv("CRYPTOML_HOME", str(self.folder / "home"))
        monkeypatch.setenv("CRYPTOML_MODEL_NAME", MODEL)
        monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
        settings.cache_clear()

    def store_bars(self, bars: pl.DataFrame) -> None:
        self.lake.replace_days("raw_prices", bars, DAYS)
        rows = price_features(bars, DAYS, BAR, _PRICE)
        self.lake.replace_days("price_features", rows, DAYS)

    def revise(self, opened: datetime) -> None:
        """Store another close of the bar that opened then, and what features make of it."""
        close = (
            pl.when(pl.col("open_time") == opened).then(pl.col("close") * 1.01).otherwise("close")
        )
        self.store_bars(self.bars.with_columns(close=close))

    def judged(self, champion: str | None = None, *, service: str = SERVICE) -> str:
        """A new version that the gate passed beside ``champion``; its number."""
        run, digest = self.world.log_bundle(
            feature_service=service,
            training_start=NOW - timedelta(days=2),
            training_end=NOW - timedelta(days=1),
            test_start=NOW - timedelta(days=1),
            test_end=NOW - timedelta(hours=6),
        )
        version = self.world.register(run, digest)
        self.subjects[version] = Subject(MODEL, version, run, digest, "direction")
        self.judge(version, champion)
        return version

    def judge(self, version: str, champion: str | None = None, **verdict: object) -> None:
        given: dict[str, object] = {
            "subject": self.subjects[version],
            # Later than every verdict before, which tells which one is the newest.
            "judged_at": NOW - timedelta(hours=1) + next(self.world.serials) * timedelta(seconds=1),
            "approved": True,
            "criteria": tuple(passed(name) for name in CRITERIA),
            "champion_version": champion,
            "limits": verdicts.limits_of(settings()),
            "decisions": history.rows(self.lake).height,
            "source": "simulated",
            "data_versions": {"training_set": 1},
            "git_commit": "abc",
            "test": (NOW - timedelta(days=1), NOW),
        }
        judged = verdicts.Judged(**{**given, **verdict})  # type: ignore[arg-type]
        verdicts.record(self.lake, judged, load_private_key(self.world.private_key))

    def log(
        self,
        version: str,
        sequence: int,
        at: datetime = AT,
        later: timedelta = timedelta(seconds=20),
    ) -> ServedPrediction:
        """Log what the version answers from the features the lake has now, so much later."""
        subject, inputs = self.subjects[version], self.inputs(at, at + later)
        total = sum(value for value in inputs.values() if value is not None)
        row = [math.nan if (value := inputs[spec.name]) is None else value for spec in FEATURES]
        made = ServedPrediction(
            prediction_id=str(prediction_id(subject.bundle_digest, SYMBOL, at, row)),
            model_name=MODEL,
            model_version=version,
            bundle_digest=subject.bundle_digest,
            role="champion",
            symbol=SYMBOL,
            feature_timestamp=at,
            horizon_seconds=3600,
            expected_return=total,
            lower=total - 0.5,
            upper=total + 0.5,
            probability_up=1 / (1 + math.exp(-total)),
            source="simulated",
            computed_at=at.astimezone(UTC) + later,
            sequence=sequence,
        )
        assert append_new(self.lake.uri, [made]) == 1
        return made

    def inputs(self, at: datetime, computed_at: datetime = AT) -> dict[str, float | None]:
        """The model's inputs: price features of an instant, the newest of the chain at another."""
        found: dict[str, float | None] = {}
        for table, known_by in (("price_features", at), ("onchain_features", computed_at)):
            names = [spec.name for spec in FEATURES if spec.view == table]
            known = self.lake.scan(table).filter(
                pl.col("symbol") == SYMBOL, pl.col("event_timestamp") <= known_by
            )
            found |= known.sort("event_timestamp").collect().tail(1).select(names).to_dicts()[0]
        return found


def passed(name: str, *, so: bool = True) -> Criterion:
    return Criterion(name=name, passed=so, figure=0.6, threshold=0.5, rule="above")
