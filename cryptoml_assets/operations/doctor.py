"""Looks at settings, versions, ports and addresses, and says what to do about each."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from rich.console import Console
from rich.table import Table

from cryptoml_assets.operations.processes import port_is_free
from cryptoml_assets.operations.variables import check_environment
from cryptoml_assets.operations.world import reachable, sandbox_port
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.settings import SettingsError, World

_HOST = "127.0.0.1"
_PACKAGES = ("dagster", "polars", "deltalake", "feast", "mlflow", "jax", "ccxt", "web3", "fastapi")
_LEAST_FREE_GB = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is well, what was seen, what to do when it is not."""

    subject: str
    well: bool
    seen: str
    remedy: str = ""


def doctor(world: World | None) -> bool:
    """Print every finding; true when all is well."""
    findings = list(examine(world))
    table = Table(show_edge=False)
    for column in ("", "what", "seen", "what to do"):
        table.add_column(column)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.well else "[red]!![/red]"
        table.add_row(mark, finding.subject, finding.seen, "" if finding.well else finding.remedy)
    Console().print(table)
    return all(finding.well for finding in findings)


def examine(world: World | None) -> Iterator[Finding]:
    """Every finding, the settings first: without them nothing else can be looked at."""
    try:
        check_environment()
        configured = Settings.load(**({} if world is None else {"world": world}))
    except SettingsError as error:
        yield Finding("settings", well=False, seen=str(error), remedy="correct the variable")
        return
    yield Finding("settings", well=True, seen=f"world {configured.world.value}")
    yield from _versions()
    yield _disk(configured)
    yield from _ports(configured)
    if configured.world is World.LIVE:
        yield from _addresses(configured)


def _versions() -> Iterator[Finding]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("python", supported, platform.python_version(), "use Python 3.11, 3.12 or 3.13")
    for package in _PACKAGES:
        try:
            yield Finding(package, well=True, seen=metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(package, well=False, seen="missing", remedy="make demo installs it")


def _disk(configured: Settings) -> Finding:
    folder = configured.home_path
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    return Finding(
        "disk", free >= _LEAST_FREE_GB, f"{free:.1f} GB free at {folder}", "free some space"
    )


def _ports(configured: Settings) -> Iterator[Finding]:
    from cryptoml_serving.settings import ServingSettings  # noqa: PLC0415

    serving = ServingSettings.load()
    ports = {
        "CRYPTOML_DAGSTER_PORT": configured.dagster_port,
        "CRYPTOML_MLFLOW_PORT": configured.mlflow_port,
        "CRYPTOML_SERVING_PORT": serving.serving_port,
    }
    if serving.serving_admin_port:
        ports["CRYPTOML_SERVING_ADMIN_PORT"] = serving.serving_admin_port
    if configured.world is not World.LIVE:
        ports["CRYPTOML_SANDBOX_URL"] = sandbox_port(configured)
    for variable, port in ports.items():
        free = port_is_free(_HOST, port)
        seen = f"port {port} {'free' if free else 'in use'}"
        yield Finding(variable, free, seen, f"stop what listens there, or set {variable}")


def _addresses(configured: Settings) -> Iterator[Finding]:
    for role, trouble in reachable(configured).items():
        yield Finding(
            role,
            trouble is None,
            trouble or "answers",
            "check the network and the address setting, or use another world",
        )
