"""Settings as environment variables: the base class and the part both sides agree on.

Every variable is spelt ``CRYPTOML_<FIELD>``. A value that cannot be used stops the process at start
with its name, the value and what would be accepted; so does a variable nobody knows, with close
matches, because a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import difflib
import os
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnreadableError

from cryptoml_serving.contract.stores import (
    ONLINE_STORE_VARIABLE,
    REDIS_SCHEMES,
    REGISTRY_VARIABLE,
    Stores,
    check_address,
    masked,
)

PREFIX = "CRYPTOML_"
#: Read by others: the tests, and ``feature_store.yaml`` when Feast is used by hand.
_OTHER_VARIABLES = {"CRYPTOML_REALDATA", REGISTRY_VARIABLE, ONLINE_STORE_VARIABLE}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SettingsError(ValueError):
    """A setting cannot be used; the message names it, its value and what would be accepted."""


class World(StrEnum):
    """Where data comes from; every row, asset and answer carries it as its ``source``."""

    SIMULATED = "simulated"
    REPLAY = "replay"
    LIVE = "live"


def parse_duration(value: object) -> object:
    """Read ``90s``, ``5m``, ``1h``, ``7d`` or a number of seconds; other types pass through."""
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match is None:
            message = "a duration is a number and a unit: 500ms, 90s, 5m, 1h or 7d"
            raise ValueError(message)
        try:
            return timedelta(seconds=float(match[1]) * _UNIT_SECONDS[match[2]])
        except OverflowError:
            message = "longer than any calendar"
            raise ValueError(message) from None
    return value


def format_duration(value: timedelta) -> str:
    """Write a duration in its largest whole unit: 300 s is ``5m``."""
    if not value:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if value.total_seconds() % _UNIT_SECONDS[unit] == 0:
            return f"{int(value.total_seconds() / _UNIT_SECONDS[unit])}{unit}"
    return f"{int(value.total_seconds() * 1000)}ms"


def split_commas(value: object) -> object:
    """Read a comma-separated text; other types pass through."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _instant(value: object) -> object:
    if value == "":
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    return value


Numbers = Annotated[tuple[float, ...], NoDecode, BeforeValidator(split_commas)]
Counts = Annotated[tuple[int, ...], NoDecode, BeforeValidator(split_commas)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
Instant = Annotated[datetime, BeforeValidator(_instant)]


def read_clock(file: Path) -> datetime:
    """The instant a clock file holds, UTC; whoever moves it replaces the file as a whole.

    Raises:
        SettingsError: it cannot be read, or holds no instant.
    """
    try:
        return datetime.fromisoformat(file.read_text().strip()).astimezone(UTC)
    except (OSError, ValueError) as error:
        message = f"{PREFIX}CLOCK_FILE={file}: {error}; accepted: a file with one ISO instant"
        raise SettingsError(message) from error


class EnvironmentSettings(BaseSettings):
    """Base of every settings class: reads ``CRYPTOML_*``, explains what it cannot read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming each unusable variable, its value and what is accepted.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise SettingsError(cls._explain(error)) from None
        except UnreadableError as error:
            raise SettingsError(cls._explain_unreadable(error)) from None

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Each variable this class reads, with its description."""
        return {cls.variable(name): f.description or "" for name, f in cls.model_fields.items()}

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable that sets ``field``."""
        alias = cls.model_fields[field].validation_alias
        prefix = cls.model_config.get("env_prefix") or PREFIX
        return alias if isinstance(alias, str) else f"{prefix}{field}".upper()

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        fields = {cls.variable(name): name for name in cls.model_fields}
        lines = []
        for problem in error.errors():
            place = str(problem["loc"][0]) if problem["loc"] else ""
            name = fields.get(place, place)
            reason = problem["msg"].removeprefix("Value error, ")
            if name not in cls.model_fields:
                lines.append(f"{reason}.")
                continue
            variable = ".".join([cls.variable(name), *map(str, problem["loc"][1:])])
            accepted = cls.model_fields[name].description
            # An address may hold a password, and a wrong one may hold it anywhere.
            hidden = not cls.model_fields[name].repr
            value = "(not shown)" if hidden else masked(repr(problem["input"]))
            lines.append(f"{variable}={value}: {reason}. Accepted: {accepted}")
        return "\n".join(lines)

    @classmethod
    def _explain_unreadable(cls, error: UnreadableError) -> str:
        named = re.search(r'field "(\w+)"', str(error))
        if named is None or named[1] not in cls.model_fields:
            return str(error)
        variable = cls.variable(named[1])
        accepted = cls.model_fields[named[1]].description
        return f"{variable}={os.environ.get(variable)!r}: {error.__cause__}. Accepted: {accepted}"


def reject_unknown_variables(*classes: type[EnvironmentSettings], prefix: str = PREFIX) -> None:
    """Stop on a variable of this ``prefix`` that none of ``classes`` reads.

    Raises:
        SettingsError: with the closest known names.
    """
    known = {variable for cls in classes for variable in cls.variables()} | _OTHER_VARIABLES
    lines = []
    for variable in sorted(v for v in os.environ if v.startswith(prefix) and v not in known):
        close = difflib.get_close_matches(variable, known, n=3)
        hint = f"; close: {', '.join(close)}" if close else ""
        lines.append(f"{variable}: no such setting{hint}")
    if lines:
        raise SettingsError("\n".join(lines))


class SharedSettings(EnvironmentSettings):
    """What the asset graph and the inference service must agree on."""

    home: Path = Field(
        Path(".cryptoml"),
        description="folder of everything the platform writes here, one subfolder a world",
    )
    world: World = Field(
        World.SIMULATED, description="simulated, replay or live: where data comes from"
    )
    now: Instant | None = Field(
        None, description="ISO instant at which the world's clock stands still; empty: real time"
    )
    clock_file: Path | None = Field(
        None,
        description="file that holds the world's ISO instant, read anew each time: how one process "
        "moves the time of all; empty: none",
    )
    lake: str = Field("", description="folder or s3:// address of the lake; empty: in the home")
    symbols: Names = Field(
        ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT"),
        description="comma-separated ccxt symbols, e.g. BTC/USDT,ETH/USDT",
        min_length=1,
    )
    model_name: str = Field(
        "cryptoml-return", description="name of the registered model", min_length=1
    )
    tracking_uri: str = Field(
        "",
        repr=False,
        description="MLflow tracking and registry address; empty: SQLite under the home folder",
    )
    feature_repo: Path = Field(
        Path("feature_repo"), description="folder holding feature_store.yaml"
    )
    online_store: str = Field(
        "",
        repr=False,
        description="address of the Redis with the online features, redis://host:6379/0 or "
        "rediss://...; empty: SQLite under the home folder",
    )
    feature_registry: str = Field(
        "",
        repr=False,
        description="address of the database with Feast's registry, e.g. "
        "postgresql+pg8000://user@host/name; empty: a file under the home folder",
    )
    approval_public_key: Path | None = Field(
        None, description="PEM file that verifies approvals; empty: keys/approval.pub in the home"
    )

    @field_validator("online_store")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if not value:
            return value
        check_address(value)
        if urlsplit(value).scheme not in REDIS_SCHEMES or urlsplit(value).hostname is None:
            message = "it is no address of a Redis"
            raise ValueError(message)
        return value

    @field_validator("tracking_uri")
    @classmethod
    def _is_tracking(cls, value: str) -> str:
        # A file has no host, and so no password.
        if value.partition("://")[2].partition("/")[0]:
            check_address(value)
        return value

    @field_validator("feature_registry")
    @classmethod
    def _is_database(cls, value: str) -> str:
        if value:
            check_address(value)
        return value

    @property
    def stores(self) -> Stores:
        """The feature store's registry and online store, for writers and readers alike."""
        return Stores(self.home_path, self.online_store, self.feature_registry)

    @property
    def home_path(self) -> Path:
        """This world's folder in the home, absolute: worlds never share a lake or a registry."""
        return self.home.expanduser().resolve() / self.world.value

    @property
    def tracking_address(self) -> str:
        """MLflow's address: the one set, or a SQLite file under the home folder."""
        return self.tracking_uri or f"sqlite:///{self.home_path / 'mlflow.db'}"

    @property
    def public_key_path(self) -> Path:
        """The PEM file with the Ed25519 key that verifies approvals."""
        return self.approval_public_key or self.home_path / "keys" / "approval.pub"

    @property
    def lake_uri(self) -> str:
        """Where the lake's tables live: the address set, or a folder under the home."""
        return self.lake or str(self.home_path / "lake")

    def clock(self) -> datetime:
        """The world's present instant, UTC: of the clock file, the frozen one, or the real one.

        Raises:
            SettingsError: the clock file holds no instant.
        """
        if self.clock_file is not None:
            return read_clock(self.clock_file)
        return self.now or datetime.now(UTC)
