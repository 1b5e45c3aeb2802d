"""Writes docs/reference.md from the code: what there is, under the names the code gives it."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("reference.md")
#: Of the Prometheus client itself, the same for every service.
_FOREIGN_METRICS = ("process_",)


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
            *_checks(),
            *_automation(),
            *_service(),
            *_graph_metrics(),
            *_settings(),
        ]
    )


def _commands() -> list[str]:
    from cryptoml_assets.cli import app  # noqa: PLC0415

    groups = [("cryptoml", app)]
    groups += [(f"cryptoml {each.name}", each.typer_instance) for each in app.registered_groups]
    rows = [
        (
            f"`{group} {command.name or command.callback.__name__}`",
            _plain(command.callback.__doc__),
        )
        for group, members in groups
        for command in members.registered_commands
        if command.callback is not None
    ]
    return ["## Commands", "", *_table(("command", "what it does"), rows)]


def _assets() -> list[str]:
    rows = [
        (
            node.group_name,
            f"`{node.key.to_user_string()}`",
            "daily" if node.is_partitioned else "none",
            ", ".join(f"`{key.to_user_string()}`" for key in sorted(node.parent_keys)),
            _plain(node.description),
        )
        for node in _nodes()
    ]
    return [
        "## Assets",
        "",
        *_table(("group", "asset", "partitions", "reads", "what it holds"), rows),
    ]


def _checks() -> list[str]:
    graph = _graph()
    rows = []
    for node in _nodes():
        for key in sorted(graph.get_check_keys_for_assets({node.key}), key=lambda key: key.name):
            spec = graph.get_check_spec(key)
            effect = "yes" if spec.blocking else "no"
            asset = f"`{node.key.to_user_string()}`"
            rows.append((asset, f"`{key.name}`", effect, _plain(spec.description)))
    return ["## Checks", "", *_table(("asset", "check", "blocks", "what must hold"), rows)]


def _automation() -> list[str]:
    from cryptoml_assets.definitions import defs  # noqa: PLC0415

    repository = defs.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    rows = [("job", f"`{job.name}`", "when asked for", _plain(job.description)) for job in jobs]
    for schedule in repository.schedule_defs:
        when = f"`{schedule.cron_schedule}` {schedule.execution_timezone}"
        rows.append(("schedule", f"`{schedule.name}`", when, _plain(schedule.description)))
    for sensor in repository.sensor_defs:
        when = f"looks every {sensor.minimum_interval_seconds} s"
        rows.append(("sensor", f"`{sensor.name}`", when, _plain(sensor.description)))
    return [
        "## Jobs, schedules and sensors",
        "",
        *_table(("kind", "name", "when", "what it does"), rows),
    ]


def _service() -> list[str]:
    from cryptoml_serving.app import create_app  # noqa: PLC0415

    app = create_app().framework
    endpoints = [
        (
            f"`{method.upper()} {path}`",
            _plain(operation.get("description") or operation["summary"]),
            ", ".join(sorted(operation["responses"])),
        )
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    ]
    return [
        "## Inference service",
        "",
        "More in [Inference service](serving.md), which also has what is in no OpenAPI document:",
        "the page, `/docs` and the routes of the admin port.",
        "",
        *_table(("endpoint", "what it answers", "statuses"), endpoints),
        *_table(("metric", "kind", "meaning"), _metrics(app.state.service.metrics.exposition())),
    ]


def _metrics(exposition: bytes) -> list[Sequence[str]]:
    """Name, kind and meaning of each metric of our own in Prometheus' text format."""
    text = exposition.decode()
    meanings = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    return [
        (f"`{name}`", kind, _plain(meanings[name]))
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
        if not name.startswith(_FOREIGN_METRICS) and not name.endswith("_created")
    ]


def _graph_metrics() -> list[str]:
    from cryptoml_assets.monitoring.exporter import METRICS  # noqa: PLC0415

    rows = [
        (
            f"`{name}`",
            each.kind,
            ", ".join(f"`{label}`" for label in each.labels),
            _plain(each.meaning),
        )
        for name, each in METRICS.items()
    ]
    return [
        "## Metrics of the asset graph",
        "",
        "Told by `cryptoml exporter`; see [Prometheus](loop.md#prometheus-and-grafana).",
        "",
        *_table(("metric", "kind", "labels", "meaning"), rows),
    ]


def _settings() -> list[str]:
    from cryptoml_assets.operations.variables import CLASSES, spell  # noqa: PLC0415

    lines = [
        "## Settings",
        "",
        "Every setting is an environment variable; `cryptoml settings` prints them all.",
        "",
    ]
    seen: set[str] = set()
    for part, settings_class in CLASSES.items():
        rows = []
        for name, field in settings_class.model_fields.items():
            variable = settings_class.variable(name)
            if variable not in seen:
                seen.add(variable)
                default = spell(field.default)
                shown = f"`{default}`" if default else "empty"
                rows.append((f"`{variable}`", shown, _plain(field.description)))
        lines += [f"### {part}", "", *_table(("variable", "default", "meaning"), rows)]
    return lines


def _graph():  # noqa: ANN202  (an internal class of Dagster)
    from cryptoml_assets.definitions import defs  # noqa: PLC0415

    return defs.resolve_asset_graph()


def _nodes():  # noqa: ANN202  (an internal class of Dagster)
    nodes = _graph().asset_nodes
    return sorted(nodes, key=lambda node: (node.group_name, node.key.to_user_string()))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A markdown table and the empty line that ends it."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], f"|{'---|' * len(header)}", *lines[1:], ""]


def _plain(text: str | None) -> str:
    """The first paragraph on one line, with nothing in it that markdown would take for markup."""
    line = re.sub(r"\s+", " ", (text or "").strip().split("\n\n")[0])
    words = re.split(r"(`[^`]*`)", line)
    return "".join(word if word.startswith("`") else _escape(word) for word in words)


def _escape(text: str) -> str:
    return re.sub(r"([*{}\[\]])", r"\\\1", html.escape(text, quote=False))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    PAGE.write_text(render())
