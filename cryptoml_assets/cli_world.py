"""What every command that reads the settings takes: the world it is about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cryptoml_assets.settings import Settings, settings
from cryptoml_serving.contract.settings import SettingsError, World

WorldOption = Annotated[World | None, typer.Option(help="simulated, replay or live")]
ReplayOption = Annotated[
    Path | None, typer.Option(help="folder of recorded data; implies --world replay")
]

#: What a world asks for unless the user has set it. Direction is close to unpredictable on real
#: prices, intervals are not; a day of mainnet blocks is 7,200 blocks with all their transactions.
_WORLD_DEFAULTS = {
    World.REPLAY: {"CRYPTOML_GATE_CLAIM": "distribution"},
    World.LIVE: {"CRYPTOML_GATE_CLAIM": "distribution", "CRYPTOML_BLOCK_DAYS": "1"},
}


def load_settings(world: World | None, replay: Path | None) -> Settings:
    """Settings with the command line's world; everything is checked before anything starts."""
    from cryptoml_assets.operations.variables import check_environment  # noqa: PLC0415

    if replay is not None and not replay.is_dir():
        raise SettingsError(
            f"--replay {replay}: no such folder; expected ohlcv/ and onchain/ in it"
        )
    if replay is not None:
        world = World.REPLAY
        os.environ["CRYPTOML_SANDBOX_REPLAY"] = str(replay.resolve())
    if world is World.REPLAY and "CRYPTOML_SANDBOX_REPLAY" not in os.environ:
        raise SettingsError("--world replay needs a folder of recorded data: --replay DIR")
    if world is not None:
        os.environ["CRYPTOML_WORLD"] = world.value
    check_environment()
    settings.cache_clear()
    for variable, value in _WORLD_DEFAULTS.get(settings().world, {}).items():
        os.environ.setdefault(variable, value)
    settings.cache_clear()
    return settings()
