"""Every ``CRYPTOML_*`` variable the asset graph reads, typed and documented."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from cryptoml_assets.deployment.options import GateSettings
from cryptoml_assets.models.options import (
    FAMILIES,
    Family,
    FoldWindow,
    Layout,
    Precision,
    SearchMethod,
)
from cryptoml_assets.monitoring.options import MonitoringSettings
from cryptoml_assets.production.options import ProductionSettings
from cryptoml_serving.contract.settings import (
    Counts,
    Duration,
    Numbers,
    SharedSettings,
    World,
    format_duration,
    split_commas,
)

FamilyNames = Annotated[tuple[Family, ...], NoDecode, BeforeValidator(split_commas)]
Timeframe = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d"]
#: Longest time after its day at which a row may become known: as-of joins look back so far.
LONGEST_DELAY = timedelta(days=30)
#: Largest share of the rows that the test parts of all folds may take together.
MOST_TESTED = 0.9
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_PUBLIC_CHAIN_NODE = "https://ethereum-rpc.publicnode.com"
_PUBLIC_METRICS_API = "https://community-api.coinmetrics.io"


class Settings(GateSettings, MonitoringSettings, ProductionSettings, SharedSettings):
    """Settings of the asset graph and of the ``cryptoml`` command."""

    # world
    start: date = Field(date(2024, 1, 1), description="first day of the daily partitions (UTC)")
    days: int = Field(60, description="days of history a demo or training run covers", ge=2)
    venue: str = Field("binance", description="ccxt id of the exchange")
    venue_url: str = Field(
        "", description="base URL of the exchange; empty: the sandbox, or the public one when live"
    )
    chain_url: str = Field(
        "", description="Ethereum JSON-RPC address; empty: the sandbox, or a public one when live"
    )
    chain_id: int = Field(1, description="chain id the node must answer with", ge=1)
    metrics_url: str = Field(
        "", description="Coin Metrics API address; empty: the sandbox, or the public one when live"
    )
    sandbox_url: str = Field(
        "http://127.0.0.1:8900", description="address where the sandbox world listens"
    )
    request_timeout: Duration = Field(
        timedelta(seconds=20), description="longest wait for one answer of the outside world"
    )
    retry_delays: Numbers = Field(
        (1.0, 2.0, 4.0), description="comma-separated seconds to wait before each retry"
    )

    venue_rate_limit: float = Field(
        0.0,
        description="milliseconds the exchange asks between two requests of weight 1, as ccxt "
        "counts them; 0: what ccxt knows of a live exchange, no limit of ours elsewhere",
        ge=0,
    )

    # data
    timeframe: Timeframe = Field("5m", description="length of a bar: 1m, 5m, 15m, 1h, ...")
    horizon: Duration = Field(
        timedelta(hours=1), description="how far ahead the return is predicted, e.g. 1h"
    )
    revision_window: Duration = Field(
        timedelta(hours=1),
        description="age past its close up to which a bar is read again, should it be revised or "
        "come late",
    )
    block_days: int = Field(
        0, description="newest days of each run for which blocks are read; 0: all of them", ge=0
    )
    block_receipts: bool = Field(
        default=True,
        description="read the receipts of blocks, without which their fees are not known",
    )
    finality_delay: Duration = Field(
        timedelta(minutes=15),
        description="age after which a block counts as knowable",
        le=LONGEST_DELAY,
    )
    metrics_lag: Duration = Field(
        timedelta(hours=4),
        description="publication lag of network metrics after day end",
        le=LONGEST_DELAY,
    )
    completeness: float = Field(
        0.95, description="least share of expected bars a partition must hold", gt=0, le=1
    )

    outlier_iqrs: float = Field(
        15.0,
        description="distance from the quartiles, in interquartile ranges, past which the return "
        "of a bar is listed as an outlier",
        gt=0,
    )

    # training
    training_days: int = Field(
        0, description="days of features a model is trained and tested on; 0: same as days", ge=0
    )
    test_share: float = Field(
        0.2, description="newest share of the rows held out of sample", gt=0, lt=0.9
    )
    folds: int = Field(
        3,
        description="walk-forward folds, each with a test part of that share; the newest one's "
        "model asks to be approved",
        ge=1,
    )
    fold_window: FoldWindow = Field(
        "expanding",
        description="where the training part of a fold begins: expanding, with the first row, or "
        "rolling, as far back as the oldest fold's",
    )
    embargo: Duration = Field(
        timedelta(hours=1), description="gap left after the purge between training and test rows"
    )
    families: FamilyNames = Field(
        FAMILIES,
        description=f"comma-separated families of models to train: {', '.join(FAMILIES)}",
        min_length=1,
    )
    hidden_units: Counts = Field((64, 32), description="comma-separated layer widths")
    epochs: int = Field(40, description="most passes over the training rows", ge=1)
    batch_size: int = Field(1024, description="rows per optimiser step", ge=1)
    learning_rate: float = Field(1e-3, description="peak learning rate of AdamW", gt=0, lt=1)
    weight_decay: float = Field(1e-2, description="decoupled weight decay of AdamW", ge=0)
    ensemble_size: int = Field(8, description="seeds trained and averaged", ge=1)
    search_trials: int = Field(
        1,
        description="configurations of learning rate and weight decay to try for each family, the "
        "configured one among them",
        ge=1,
    )
    search_method: SearchMethod = Field(
        "halving",
        description="how they are tried: halving, the better half for twice as long, or random, "
        "each to its end",
    )
    layout: Layout = Field(
        "auto",
        description="networks trained one by one on the cores (loop), as one program (vectorised), "
        "or auto: loop on a processor, and on other devices as measured",
    )
    precision: Precision = Field(
        "float32", description="arithmetic of networks while they train: float32 or bfloat16"
    )
    checkpoint_interval: Duration = Field(
        timedelta(seconds=30),
        description="least time between two checkpoints of a training, which goes on from the "
        "newest after it was killed",
    )
    training_memory_gib: float = Field(
        0.0,
        description="gibibytes a training may use; 0: what the container or the machine has",
        ge=0,
    )
    training_gpus: int = Field(
        0, description="GPUs to ask Kubernetes for when models are trained", ge=0
    )
    fee_bps: float = Field(
        10.0,
        description="fee of a trade in the figures of the strategy, basis points of its amount",
        ge=0,
    )
    slippage_bps: float = Field(
        2.0,
        description="slippage of a trade in the figures of the strategy, basis points of its "
        "amount",
        ge=0,
    )
    seed: int = Field(7, description="seed of weights, shuffles and bootstraps", ge=0, lt=2**31)

    # operations
    freshness: Duration = Field(
        timedelta(minutes=30), description="age past which raw and feature assets are stale"
    )
    dagster_port: int = Field(3000, description="port of the Dagster UI", ge=1, le=65535)
    mlflow_port: int = Field(5000, description="port of the MLflow UI", ge=1, le=65535)

    @model_validator(mode="after")
    def _horizon_is_whole_bars(self) -> Settings:
        if self.horizon <= timedelta(0) or self.horizon % self.bar:
            message = (
                f"CRYPTOML_HORIZON={format_duration(self.horizon)} is not a whole number of "
                f"{self.timeframe} bars"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _leaves_rows_to_learn_from(self) -> Settings:
        if self.folds * self.test_share > MOST_TESTED:
            message = (
                f"CRYPTOML_FOLDS={self.folds} test parts of CRYPTOML_TEST_SHARE="
                f"{self.test_share:g} leave too little to train the oldest fold on: accepted is a "
                f"product of at most {MOST_TESTED:g}"
            )
            raise ValueError(message)
        if len(set(self.families)) < len(self.families):
            message = f"CRYPTOML_FAMILIES={','.join(self.families)} names a family twice"
            raise ValueError(message)
        return self

    @property
    def bar(self) -> timedelta:
        """Length of one bar."""
        return timedelta(**{_UNITS[self.timeframe[-1]]: int(self.timeframe[:-1])})

    @property
    def venue_address(self) -> str | None:
        """Base URL of the exchange, or none for ccxt's own public one."""
        if self.venue_url or self.world is World.LIVE:
            return self.venue_url or None
        return self.sandbox_url

    @property
    def chain_address(self) -> str:
        """JSON-RPC address of the chain node."""
        live = self.world is World.LIVE
        return self.chain_url or (_PUBLIC_CHAIN_NODE if live else f"{self.sandbox_url}/rpc")

    @property
    def metrics_address(self) -> str:
        """Base URL of the network metrics API, without the ``/v4``."""
        live = self.world is World.LIVE
        return self.metrics_url or (_PUBLIC_METRICS_API if live else self.sandbox_url)

    @property
    def private_key_path(self) -> Path:
        """The PEM file with the Ed25519 key that signs approvals."""
        return self.approval_private_key or self.home_path / "keys" / "approval.key"

    @property
    def artifacts_address(self) -> str:
        """Where the artifacts of a new MLflow experiment go: the address set, or a folder."""
        return self.artifacts or str(self.home_path / "mlartifacts")

    @property
    def checkpoints_path(self) -> Path:
        """The folder of the checkpoints of trainings."""
        return self.checkpoints or self.home_path / "checkpoints"

    @property
    def training_window(self) -> timedelta:
        """How much feature history a training run reads."""
        return timedelta(days=self.training_days or self.days)


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: naming each unusable variable.
    """
    return Settings.load()
