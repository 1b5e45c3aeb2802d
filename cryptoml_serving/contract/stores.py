"""Where the feature store's registry and online store are, and how Feast is told.

``feature_store.yaml`` names two variables in their place. Whoever opens the store, be it the asset
graph, the service or a person with ``feast``, fills them from the same settings, here.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from cryptoml_serving.contract.feature_store import TIME_TO_LIVE

CONFIGURATION = "feature_store.yaml"
REGISTRY_VARIABLE = "CRYPTOML_FEAST_REGISTRY"
ONLINE_STORE_VARIABLE = "CRYPTOML_FEAST_ONLINE_STORE"
#: What the address of an online store may begin with.
REDIS_SCHEMES = ("redis", "rediss")

_SQLITE = "feature_repo.sqlite_online_store.UtcSqliteOnlineStore"
_REDIS = "feature_repo.redis_online_store.UrlRedisOnlineStore"
#: Driver used where the address of a PostgreSQL names none; Feast would take one not installed.
_POSTGRESQL = "postgresql+pg8000"
#: Seconds for which readers take the registry to be unchanged.
_CACHE_SECONDS = 10
#: Seconds a server may take to answer.
_PATIENCE = 3
#: Drivers that do not call their time limit ``connect_timeout``.
_TIME_LIMITS = {"pg8000": "timeout", "sqlite": "timeout"}
_CREDENTIALS = re.compile(r"(://)[^/\s'\"]*@")


@dataclass(frozen=True)
class Stores:
    """The registry and the online store of one world.

    Attributes:
        home: Folder under which the embedded ones keep their files.
        online: Address of Redis; empty: a SQLite file.
        registry: Address of a database, as SQLAlchemy spells it; empty: a file.
    """

    home: Path
    online: str = field(default="", repr=False)
    registry: str = field(default="", repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of the embedded ones, the registry's first; reading must not create one."""
        registry = () if self.registry else (self._registry_file,)
        return registry if self.online else (*registry, self._online_file)

    def environment(self) -> dict[str, str]:
        """The variables ``feature_store.yaml`` reads: mappings in JSON, which YAML reads too."""
        return {
            REGISTRY_VARIABLE: json.dumps(self._registry_section()),
            ONLINE_STORE_VARIABLE: json.dumps(self._online_section()),
        }

    def configuration(self, repository: Path) -> dict[str, Any]:
        """The content of ``feature_store.yaml`` in ``repository`` for these stores."""
        text = (repository / CONFIGURATION).read_text()
        filled = string.Template(text).safe_substitute(self.environment())
        content: dict[str, Any] = yaml.safe_load(filled)
        return content

    def failure(self, error: Exception) -> str:
        """What failed, in words without a password: the store, its address, the setting, why."""
        online = self._place(
            "online store", self.online, self._online_file, "CRYPTOML_ONLINE_STORE"
        )
        registry = self._place(
            "feature registry", self.registry, self._registry_file, "CRYPTOML_FEATURE_REGISTRY"
        )
        library = type(error).__module__.partition(".")[0]
        place = {
            "redis": online,
            "sqlite3": online,
            "sqlalchemy": registry,
            "pg8000": registry,
        }.get(library, f"{registry} or {online}")
        return f"{place}: {type(error).__name__}: {self._without_passwords(str(error))}"

    @property
    def _registry_file(self) -> Path:
        return self.home / "feast" / "registry.db"

    @property
    def _online_file(self) -> Path:
        return self.home / "feast" / "online.db"

    def _registry_section(self) -> dict[str, Any]:
        if not self.registry:
            return {
                "registry_type": "file",
                "path": str(self._registry_file),
                "cache_ttl_seconds": _CACHE_SECONDS,
            }
        scheme, _, rest = self.registry.partition("://")
        scheme = _POSTGRESQL if scheme in {"postgres", "postgresql"} else scheme
        dialect, _, driver = scheme.partition("+")
        limit = _TIME_LIMITS.get(driver or dialect, "connect_timeout")
        return {
            "registry_type": "sql",
            "path": f"{scheme}://{rest}",
            "cache_ttl_seconds": _CACHE_SECONDS,
            "sqlalchemy_config_kwargs": {
                "echo": False,
                "pool_pre_ping": True,
                "connect_args": {limit: _PATIENCE},
            },
        }

    def _online_section(self) -> dict[str, Any]:
        if not self.online:
            return {"type": _SQLITE, "path": str(self._online_file)}
        return {
            "type": _REDIS,
            "url": self.online,
            "patience_seconds": _PATIENCE,
            "key_ttl_seconds": int(TIME_TO_LIVE.total_seconds()),
            # Else a revised bar, dated like the one it replaces, would never arrive.
            "skip_dedup": True,
        }

    def _without_passwords(self, text: str) -> str:
        for address in (self.online, self.registry):
            password = urlsplit(address).password
            for spelling in (password, unquote(password)) if password else ():
                text = text.replace(spelling, "***")
        return masked(text)

    @staticmethod
    def _place(what: str, address: str, file: Path, variable: str) -> str:
        if not address:
            return f"{what} {file} (under CRYPTOML_HOME)"
        shown = _CREDENTIALS.sub(r"\1", address).partition("?")[0]
        return f"{what} {shown} ({variable})"


def check_address(address: str) -> None:
    """Refuse an address in which a password could not be found, and so not be hidden.

    Raises:
        ValueError: saying what is wrong, without the address.
    """
    rest = address.partition("://")[2]
    authority, _, path = rest.partition("/")
    if not rest or re.search(r"[\s'\"]", address) or "@" in path or authority.count("@") > 1:
        message = "it is no address, or has characters of a password that must be written as %XX"
        raise ValueError(message)
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        message = "its host or port cannot be read: characters of a password must be written as %XX"
        raise ValueError(message) from None
    if "#" in address or re.search(r"pass|pwd|secret", parts.query, re.IGNORECASE):
        message = "a password belongs before the host: user:password@host"
        raise ValueError(message)


def masked(text: str) -> str:
    """``text`` with the credentials of every address in it hidden."""
    return _CREDENTIALS.sub(r"\1***@", text)
