"""The Dagster instance that the settings ask for: on one machine, or as in production."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from cryptoml_assets.settings import Settings

_REPOSITORY = Path(__file__).parents[2]
#: The instance of one machine, and that of production.
EMBEDDED, PRODUCTION = _REPOSITORY / "dagster.yaml", _REPOSITORY / "production" / "dagster.yaml"


def instance_text(configured: Settings) -> str:
    """The content of ``dagster.yaml`` for these settings.

    Without an address of PostgreSQL it is the file of one machine as it stands. With one it is that
    of production, less the sections whose settings are empty. No value of a setting is in it.
    """
    if not configured.dagster_postgres_url:
        return EMBEDDED.read_text()
    content: dict[str, Any] = yaml.safe_load(PRODUCTION.read_text())
    if not configured.dagster_logs_bucket:
        del content["compute_logs"]
    if configured.execution == "local":
        del content["run_launcher"]
    return yaml.safe_dump(content, sort_keys=False)


def write_instance(configured: Settings, folder: Path) -> Path:
    """Write ``dagster.yaml`` of these settings into ``folder``, made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dagster.yaml"
    # Renamed: a process that starts meanwhile reads the old or the new one.
    fresh = folder / "dagster.yaml.new"
    fresh.write_text(instance_text(configured))
    return fresh.replace(file)
