"""The parts of Dagster as commands, each over the instance that the settings ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cryptoml_assets.settings import Settings

Part = Literal["webserver", "daemon", "api"]
_PROGRAMS: Mapping[Part, tuple[str, ...]] = {
    "webserver": ("dagster-webserver",),
    "daemon": ("dagster-daemon", "run"),
    "api": ("dagster", "api"),
}


def command(part: Part, arguments: Sequence[str]) -> list[str]:
    """The command line of a part: the program of this environment, with ``arguments``."""
    program, *own = _PROGRAMS[part]
    return [str(Path(sys.executable).with_name(program)), *own, *arguments]


def environment(configured: Settings) -> dict[str, str]:
    """The variables of its process: ours, and the Dagster home with the instance's file."""
    from cryptoml_assets.production.instance import write_instance  # noqa: PLC0415 - imports yaml

    folder = configured.home_path / "dagster"
    write_instance(configured, folder)
    # What production/workspace.yaml reads, whether or not it was set.
    server = {
        "CRYPTOML_CODE_SERVER_HOST": configured.code_server_host,
        "CRYPTOML_CODE_SERVER_PORT": str(configured.code_server_port),
    }
    return {**os.environ, **server, "DAGSTER_HOME": str(folder)}
