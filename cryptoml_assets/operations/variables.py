"""Every ``CRYPTOML_*`` variable of the platform, and the ``.env.example`` made from them."""

from __future__ import annotations

import json
from datetime import timedelta
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from cryptoml_assets.settings import Settings
from cryptoml_sandbox.settings import SandboxSettings
from cryptoml_serving.contract.settings import (
    EnvironmentSettings,
    World,
    format_duration,
    reject_unknown_variables,
)
from cryptoml_serving.settings import ServingSettings

_HEADER = """\
# Every setting of the platform with its default, made by `cryptoml settings`.
# Export what you change, e.g. `CRYPTOML_DAYS=30 make demo`.
"""

#: Settings classes by the part of the platform that reads them.
CLASSES: dict[str, type[EnvironmentSettings]] = {
    "The asset graph and the cryptoml command": Settings,
    "The inference service": ServingSettings,
    "The sandbox world": SandboxSettings,
}


def check_environment() -> None:
    """Read every class from the environment, so that a wrong setting stops before any work.

    Raises:
        SettingsError: naming each unusable or unknown variable.
    """
    reject_unknown_variables(*CLASSES.values())
    for settings_class in CLASSES.values():
        if settings_class is not SandboxSettings or Settings.load().world is not World.LIVE:
            settings_class.load()


def example() -> str:
    """The text of ``.env.example``: each variable once, commented out, with its default."""
    lines = [_HEADER]
    seen: set[str] = set()
    for part, settings_class in CLASSES.items():
        lines.append(f"# --- {part}")
        for name, field in settings_class.model_fields.items():
            variable = settings_class.variable(name)
            if variable not in seen:
                seen.add(variable)
                lines += [f"# {field.description}", f"#{variable}={spell(field.default)}", ""]
    return "\n".join(lines).rstrip() + "\n"


def spell(value: Any) -> str:
    """The text that gives ``value`` when read back from the environment."""
    match value:
        case None:
            return ""
        case timedelta():
            return format_duration(value)
        case Enum():
            return str(value.value)
        case tuple():
            return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
        case BaseModel():
            return json.dumps(to_jsonable_python(value))
        case _:
            return str(to_jsonable_python(value))
