"""Every variable the inference service reads: the shared and its own ``CRYPTOML_SERVING_*``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from cryptoml_serving.contract.settings import (
    Duration,
    SharedSettings,
    reject_unknown_variables,
)

_OWN_PREFIX = "CRYPTOML_SERVING_"


class ServingSettings(SharedSettings):
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

    @field_validator("serving_refresh", "serving_registry_poll", "serving_max_feature_age")
    @classmethod
    def _takes_time(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            message = "it must be longer than nothing"
            raise ValueError(message)
        return value

    @property
    def model_cache_path(self) -> Path:
        """Folder of verified model bundles, one per digest."""
        return self.serving_model_cache or self.home_path / "serving" / "models"

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming each unusable variable, or each ``CRYPTOML_SERVING_*`` one that
                does not exist, with close matches.
        """
        reject_unknown_variables(cls, prefix=_OWN_PREFIX)
        return super().load(**overrides)
