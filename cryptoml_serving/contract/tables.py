"""The tables of a new MLflow database, made by one process at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Number of the lock among those of the database; any would do that all of ours agree on.
_LOCK = 7_230_114
#: Longest wait for the others, who take a few seconds.
_MOST_SECONDS = 120


@contextmanager
def making_tables(address: str) -> Iterator[None]:
    """Keep others out while this process may make MLflow's tables in a PostgreSQL.

    MLflow makes them when it first opens a database. Of two processes that begin at once, the
    service and a run, one would fail. Any other ``address`` is left alone.

    Raises:
        sqlalchemy.exc.DBAPIError: the database cannot be reached, or others took two minutes.
    """
    if not address.startswith("postgresql"):
        yield
        return
    from sqlalchemy import create_engine, text  # noqa: PLC0415 - comes with MLflow, as slow
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    engine = create_engine(address, poolclass=NullPool)
    # The lock goes with the connection.
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = '{_MOST_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _LOCK})
        yield
