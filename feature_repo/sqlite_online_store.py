"""Feast's SQLite online store, with instants that mean the same in every time zone.

Feast hands SQLite UTC instants without their zone, has them written as if they were local time, and
reads them back the same way. Writer and reader then agree only in the same zone, and not in the
hour a zone puts its clocks on or back. Here they pass as local time, so that what is written is the
UTC instant, in whole seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig


class UtcSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    """The ``online_store`` section of ``feature_store.yaml`` for the embedded store."""

    type: Literal["feature_repo.sqlite_online_store.UtcSqliteOnlineStore"] = (
        "feature_repo.sqlite_online_store.UtcSqliteOnlineStore"
    )


class UtcSqliteOnlineStore(SqliteOnlineStore):  # type: ignore[misc]
    """Keeps event timestamps as seconds since the epoch, whatever the machine's zone."""

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: Sequence[tuple[Any, Any, datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows of ``data``: entity key, values, event timestamp, creation."""
        local = [(key, values, _local(at), made and _local(made)) for key, values, at, made in data]
        super().online_write_batch(config, table, local, progress)

    def online_read(
        self, config: Any, table: Any, entity_keys: Any, requested_features: Any = None
    ) -> list[tuple[datetime | None, Any]]:
        """Event timestamp and values of each entity; none of either where there is no row."""
        rows = super().online_read(config, table, entity_keys, requested_features)
        return [(at and _instant(at), values) for at, values in rows]


def _local(instant: datetime) -> datetime:
    """Local time of an instant, without its zone; one without a zone is in UTC."""
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    # Not by astimezone: it forgets which of the two hours it is when clocks are put back.
    return datetime.fromtimestamp(aware.timestamp())  # noqa: DTZ006


def _instant(local: datetime) -> datetime:
    """The instant of a local time that says it is in UTC."""
    return local.replace(tzinfo=None).astimezone(UTC)
