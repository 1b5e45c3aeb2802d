"""PostgreSQL, Redis and S3 of this machine, and the settings that point the platform at them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cryptoml_assets.operations.processes import Children
from cryptoml_assets.production.local.objects import BUCKET, start_objects
from cryptoml_assets.production.local.postgresql import start_postgresql
from cryptoml_assets.production.local.redis import start_redis

#: Settings that say where things are kept; a profile of its own servers fills them all.
STORES = (
    "CRYPTOML_DAGSTER_POSTGRES_URL",
    "CRYPTOML_TRACKING_URI",
    "CRYPTOML_FEATURE_REGISTRY",
    "CRYPTOML_ONLINE_STORE",
    "CRYPTOML_LAKE",
    "CRYPTOML_ARTIFACTS",
    "CRYPTOML_DAGSTER_LOGS_BUCKET",
)


@contextmanager
def local_servers(folder: Path, *, added: str = "") -> Iterator[Mapping[str, str]]:
    """Servers that keep their data in ``folder`` and run until the context is left.

    Passwords are new each time and nowhere but in the memory of these processes.

    Args:
        folder: made where it is missing.
        added: characters that the password of PostgreSQL and Redis ends with.

    Yields:
        The variables of a process that uses them.

    Raises:
        ChildError: one does not come up.
    """
    token, key, secret = (secrets.token_urlsafe(24) for _ in range(3))
    password = token + added
    with ExitStack() as stack:
        children = stack.enter_context(Children(folder / "logs"))
        databases = start_postgresql(children, folder / "postgresql", password)
        redis = start_redis(stack, folder / "redis", password)
        objects = start_objects(children, folder / "s3", key, secret)
        kept = os.environ.get("NO_PROXY", "")
        yield {
            **objects,
            "NO_PROXY": f"{kept},127.0.0.1" if kept else "127.0.0.1",
            "CRYPTOML_DAGSTER_POSTGRES_URL": f"postgresql+psycopg2:{databases['dagster']}",
            "CRYPTOML_TRACKING_URI": f"postgresql+pg8000:{databases['mlflow']}",
            "CRYPTOML_FEATURE_REGISTRY": f"postgresql+pg8000:{databases['feast']}",
            "CRYPTOML_ONLINE_STORE": redis,
            "CRYPTOML_LAKE": f"s3://{BUCKET}/lake",
            "CRYPTOML_ARTIFACTS": f"s3://{BUCKET}/mlflow",
            "CRYPTOML_DAGSTER_LOGS_BUCKET": BUCKET,
        }
