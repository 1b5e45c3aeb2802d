"""Feast's Redis online store, reached by an address and within a bounded time.

Feast takes a comma-separated string in which a password with a comma or an equals sign cannot be
written, and waits for an unreachable server as long as the system does.
"""

from __future__ import annotations

from typing import Any, Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry


class UrlRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """The ``online_store`` section of ``feature_store.yaml`` for Redis."""

    type: Literal["feature_repo.redis_online_store.UrlRedisOnlineStore"] = (
        "feature_repo.redis_online_store.UrlRedisOnlineStore"
    )
    #: ``redis://`` or ``rediss://`` address.
    url: SecretStr
    #: Seconds that connecting, and each answer, may take.
    patience_seconds: float


class UrlRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """Connects to the address of its section."""

    _client: Any = None

    def _get_client(self, online_store_config: UrlRedisOnlineStoreConfig) -> Any:
        if self._client is None:
            # Once more where the server closed a connection that was kept; a server that is
            # silent has had its time.
            retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
            address, limits = _connection(online_store_config)
            self._client = Redis.from_url(address, retry=retry, **limits)
        return self._client


def _connection(section: UrlRedisOnlineStoreConfig) -> tuple[str, dict[str, Any]]:
    patience = section.patience_seconds
    limits = {"socket_timeout": patience, "socket_connect_timeout": patience}
    return section.url.get_secret_value(), limits
