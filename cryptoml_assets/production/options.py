"""Settings of production: where Dagster, artifacts and keys are, and where steps run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cryptoml_serving.contract.settings import EnvironmentSettings
from cryptoml_serving.contract.stores import check_address

Execution = Literal["local", "kubernetes"]
#: The one driver that dagster-postgres works with. Under SQLAlchemy 2.1 an address that names none
#: means another one.
_DRIVER = "postgresql+psycopg2"
#: As Amazon and Kubernetes write the names of buckets and objects.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
#: Fields that name one.
_OBJECTS = (
    "k8s_namespace",
    "k8s_service_account",
    "k8s_instance_config_map",
    "k8s_settings",
    "k8s_secrets",
)
#: Variables by which delta-rs is told how a commit is put, however their letters are written, and
#: the one way in which a store that has the commit already refuses it.
_COMMITS = ("AWS_CONDITIONAL_PUT", "CONDITIONAL_PUT")
_SAFE = "etag"


class ProductionSettings(EnvironmentSettings):
    """Where Dagster keeps what it knows, where artifacts and keys are, and where steps run."""

    dagster_postgres_url: str = Field(
        "",
        repr=False,
        description="address of Dagster's PostgreSQL, "
        f"{_DRIVER}://user:password@host:5432/dagster; empty: SQLite under the home folder",
    )
    dagster_logs_bucket: str = Field(
        "",
        description="bucket of an S3 store that keeps what steps print; empty: files under the "
        "home folder",
    )
    artifacts: str = Field(
        "",
        description="folder or s3:// address of the artifacts of a new MLflow experiment; empty: "
        "mlartifacts in the home",
    )
    approval_private_key: Path | None = Field(
        None, description="PEM file that signs approvals; empty: keys/approval.key in the home"
    )
    checkpoints: Path | None = Field(
        None,
        description="folder of the checkpoints of trainings, on a volume that all nodes share; "
        "empty: checkpoints in the home",
    )
    execution: Execution = Field(
        "local",
        description="where runs and their steps run: local, in the process that was asked, or "
        "kubernetes, each as a Job of its own",
    )
    spot: bool = Field(
        default=True,
        description="let trainings on Kubernetes run on interruptible nodes, where there are any",
    )
    k8s_namespace: str = Field("", description="Kubernetes namespace of the Jobs of runs and steps")
    k8s_service_account: str = Field(
        "", description="Kubernetes service account of the pods of runs and steps"
    )
    k8s_instance_config_map: str = Field(
        "", description="Kubernetes config map with the dagster.yaml that these pods use"
    )
    k8s_settings: str = Field(
        "", description="Kubernetes config map with the settings that these pods read"
    )
    k8s_secrets: str = Field(
        "", description="Kubernetes Secret with the settings of these pods that nobody may see"
    )
    code_server_host: str = Field(
        "127.0.0.1", description="host of the code server, for production/workspace.yaml"
    )
    code_server_port: int = Field(
        4000, description="port of the code server, for production/workspace.yaml", ge=1, le=65535
    )

    @field_validator("dagster_postgres_url")
    @classmethod
    def _has_the_driver(cls, value: str) -> str:
        if not value:
            return value
        check_address(value)
        if not value.startswith(f"{_DRIVER}://"):
            message = f"dagster-postgres needs the driver psycopg2: begin with {_DRIVER}://"
            raise ValueError(message)
        return value

    @field_validator("dagster_logs_bucket")
    @classmethod
    def _is_a_bucket(cls, value: str) -> str:
        if value and not _BUCKET.fullmatch(value):
            message = "it is the name of a bucket alone, 3 to 63 of a-z, 0-9, '.' and '-'"
            raise ValueError(message)
        return value

    @field_validator(*_OBJECTS)
    @classmethod
    def _is_an_object(cls, value: str) -> str:
        if value and not _OBJECT.fullmatch(value):
            message = (
                "it is no name of a Kubernetes object: 1 to 253 of a-z, 0-9, '.' and '-', which "
                "begin and end with a letter or digit"
            )
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _commits_are_conditional(self) -> Self:
        for name, value in os.environ.items():
            if name.upper() in _COMMITS and value.strip() != _SAFE:
                message = (
                    f"{name}={value!r}: commits to the lake are safe as conditional puts alone; "
                    f"unset it or set {_SAFE}"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _kubernetes_is_complete(self) -> Self:
        # Without the address of its database the instance is made by others: Dagster's own chart.
        if self.execution != "kubernetes" or not self.dagster_postgres_url:
            return self
        missing = [self.variable(name) for name in _OBJECTS if not getattr(self, name)]
        if missing:
            message = f"CRYPTOML_EXECUTION=kubernetes needs {', '.join(missing)} as well"
            raise ValueError(message)
        return self
