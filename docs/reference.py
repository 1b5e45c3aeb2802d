"""Writes docs/reference.md from the code: settings, commands, assets, jobs, schedules, sensors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("reference.md")


def render() -> str:
    """The whole page as markdown."""
    return "\n".join(
        [
            "# Reference",
            "",
            "Written from the code by `python docs/reference.py`; a test holds it to that.",
            "",
            *_commands(),
            *_assets(),
            *_automation(),
            *_settings(),
        ]
    )


def _commands() -> list[str]:
    from cryptoml_assets.cli import app  # noqa: PLC0415

    rows = [
        f"| `cryptoml {c.name or c.callback.__name__}` | {_first_line(c.callback.__doc__)} |"
        for c in app.registered_commands
    ]
    return ["## Commands", "", "| command | what it does |", "|---|---|", *rows, ""]


def _assets() -> list[str]:
    from cryptoml_assets.definitions import defs  # noqa: PLC0415

    graph = defs.resolve_asset_graph()
    lines = [
        "## Assets",
        "",
        "| group | asset | partitions | one row is | checks |",
        "|---|---|---|---|---|",
    ]
    nodes = sorted(
        graph.asset_nodes, key=lambda node: (node.group_name or "", node.key.to_user_string())
    )
    for node in nodes:
        checks = sorted(key.name for key in graph.get_check_keys_for_assets({node.key}))
        lines.append(
            f"| {node.group_name} | `{node.key.to_user_string()}` | "
            f"{'daily' if node.partitions_def else '–'} | {_first_line(node.description)} | "
            f"{', '.join(f'`{name}`' for name in checks) or '–'} |"
        )
    return [*lines, ""]


def _automation() -> list[str]:
    from cryptoml_assets.definitions import defs  # noqa: PLC0415

    repository = defs.get_repository_def()
    lines = [
        "## Jobs, schedules and sensors",
        "",
        "| kind | name | what it does |",
        "|---|---|---|",
    ]
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for kind, things in (
        ("job", jobs),
        ("schedule", repository.schedule_defs),
        ("sensor", repository.sensor_defs),
    ):
        lines += [f"| {kind} | `{t.name}` | {_first_line(t.description)} |" for t in things]
    return [*lines, ""]


def _settings() -> list[str]:
    from cryptoml_assets.operations.variables import CLASSES, spell  # noqa: PLC0415

    lines = [
        "## Settings",
        "",
        "Every setting is an environment variable; `cryptoml settings` prints them all.",
    ]
    seen: set[str] = set()
    for part, settings_class in CLASSES.items():
        lines += ["", f"### {part}", "", "| variable | default | meaning |", "|---|---|---|"]
        for name, field in settings_class.model_fields.items():
            variable = settings_class.variable(name)
            if variable not in seen:
                seen.add(variable)
                default = f"`{spell(field.default)}`" if spell(field.default) else "–"
                lines.append(f"| `{variable}` | {default} | {field.description} |")
    return [*lines, ""]


def _first_line(text: str | None) -> str:
    paragraph = (text or "").strip().split("\n\n")[0]
    return re.sub(r"\s+", " ", paragraph).replace("|", "\\|")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    PAGE.write_text(render())
