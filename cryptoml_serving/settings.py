"""Every variable the inference service reads: the shared and its own ``CRYPTOML_SERVING_*``."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from cryptoml_serving.contract.settings import (
    Counts,
    Duration,
    SharedSettings,
    reject_unknown_variables,
)
from cryptoml_serving.security.options import SecuritySettings

_OWN_PREFIX = "CRYPTOML_SERVING_"
_MOST_ROWS = 65_536


class ServingSettings(SecuritySettings, SharedSettings):
    """Settings of the inference service."""

    serving_host: str = Field("127.0.0.1", description="address the service listens on")
    serving_port: int = Field(8000, description="port the service listens on", ge=1, le=65535)
    serving_refresh: Duration = Field(
        timedelta(seconds=2), description="time between two reads of the online features"
    )
    serving_registry_poll: Duration = Field(
        timedelta(seconds=5), description="time between two looks at which model is approved"
    )
    serving_max_feature_age: Duration = Field(
        timedelta(minutes=30), description="age of the features past which no prediction is served"
    )
    serving_model_cache: Path | None = Field(
        None, description="folder of verified model bundles; empty: serving/models in the home"
    )
    serving_log: bool = Field(
        default=True, description="keep every prediction in the lake's table served_predictions"
    )
    serving_log_interval: Duration = Field(
        timedelta(seconds=10), description="time between two writes of predictions to the lake"
    )
    serving_log_queue: int = Field(
        10_000, description="predictions that may wait in memory to be put on disk", ge=1
    )
    serving_lake_poll: Duration = Field(
        timedelta(seconds=30),
        description="time between two looks at the lake for what the page shows",
    )
    serving_traces: str = Field(
        "",
        repr=False,
        description="OTLP address that traces of requests are sent to, e.g. "
        "http://127.0.0.1:4318/v1/traces; empty: none are made",
    )
    serving_deadline: Duration = Field(
        timedelta(seconds=5), description="longest time that one request may take"
    )
    serving_drain: Duration = Field(
        timedelta(0),
        description="time that a service told to stop goes on answering and says so at /ready, so "
        "that whoever spreads the requests stops sending; 0s: it stops at once",
    )
    serving_max_body: int = Field(
        4 * 2**20, description="bytes of the largest body that is read", ge=64 * 2**10
    )
    serving_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models run: cuda falls back to cpu, auto takes cuda if there"
    )
    serving_batch_sizes: Counts = Field(
        (8, 64, 512),
        description="numbers of rows that models are compiled for before they take over",
    )
    serving_max_rows: int = Field(
        512, description="rows one request may bring", ge=1, le=_MOST_ROWS
    )
    serving_batch_queue: int = Field(
        8192, description="rows that may wait to be predicted; more are refused for now", ge=1
    )

    @field_validator(
        "serving_refresh",
        "serving_registry_poll",
        "serving_max_feature_age",
        "serving_log_interval",
        "serving_lake_poll",
        "serving_deadline",
    )
    @classmethod
    def _takes_time(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            message = "it must be longer than nothing"
            raise ValueError(message)
        return value

    @field_validator("serving_traces")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not re.match(r"https?://[^/\s]+/\S+$", value):
            message = "it is no http address with a path"
            raise ValueError(message)
        return value

    @field_validator("serving_batch_sizes")
    @classmethod
    def _counts_rows(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1 or max(value) > _MOST_ROWS:
            message = f"it takes numbers of rows from 1 to {_MOST_ROWS}, comma-separated"
            raise ValueError(message)
        return tuple(sorted(set(value)))

    @property
    def model_cache_path(self) -> Path:
        """Folder of verified model bundles, one per digest."""
        return self.serving_model_cache or self.home_path / "serving" / "models"

    @property
    def outbox_path(self) -> Path:
        """Folder of the predictions that wait for the lake."""
        return self.home_path / "serving" / "outbox"

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming each unusable variable, or each ``CRYPTOML_SERVING_*`` one that
                does not exist, with close matches.
        """
        reject_unknown_variables(cls, prefix=_OWN_PREFIX)
        return super().load(**overrides)
