"""The documentation against the code: what exists is on a page, what a page names exists."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from fastapi import FastAPI
from starlette.routing import Route

import cryptoml_assets.operations
from cryptoml_assets.definitions import defs
from cryptoml_assets.errors import CryptomlError
from cryptoml_assets.operations.manifest_check.rules import RULES
from cryptoml_assets.operations.variables import CLASSES, spell
from cryptoml_serving.api.admin import ROUTES as ADMIN_ROUTES
from cryptoml_serving.api.problems import ProblemType
from cryptoml_serving.runtime import errors as serving_errors
from cryptoml_serving.settings import ServingSettings

REPOSITORY = Path(__file__).parents[3]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *PAGES]
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PNG = b"\x89PNG\r\n\x1a\n"


def page(name: str) -> str:
    return (DOCS / name).read_text()


def absent(names: set[str], text: str) -> list[str]:
    """Names that ``text`` does not have as code, with nothing but spaces or arguments after."""
    return sorted(name for name in names if not re.search(rf"`{re.escape(name)}[` ]", text))


def links(file: Path) -> Iterator[tuple[bool, str]]:
    """Whether it is a picture, and its target, of each link to a file of this repository."""
    for mark, target in LINK.findall(FENCE.sub("", file.read_text())):
        if not re.match(r"[a-z]+:|#", target):
            yield mark == "!", target.partition("#")[0]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands() -> set[str]:
    from cryptoml_assets.cli import app  # noqa: PLC0415

    groups = [("cryptoml", app)]
    for each in app.registered_groups:
        assert each.typer_instance is not None
        groups.append((f"cryptoml {each.name}", each.typer_instance))
    return {
        f"{group} {c.name or getattr(c.callback, '__name__', '')}"
        for group, members in groups
        for c in members.registered_commands
    }


def asset_names() -> set[str]:
    return {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}


def check_names() -> set[str]:
    return {key.name for key in defs.resolve_asset_graph().asset_check_keys}


def automation() -> set[str]:
    repository = defs.get_repository_def()
    things = (*repository.get_all_jobs(), *repository.schedule_defs, *repository.sensor_defs)
    return {thing.name for thing in things if not thing.name.startswith("__")}


def errors() -> set[str]:
    """Names of all errors that commands and runs raise on purpose."""
    for module in pkgutil.iter_modules(cryptoml_assets.operations.__path__):
        importlib.import_module(f"{cryptoml_assets.operations.__name__}.{module.name}")
    found, unseen = {"SettingsError"}, [CryptomlError]
    while unseen:
        children = unseen.pop().__subclasses__()
        unseen += children
        found |= {c.__name__ for c in children if c.__module__.startswith("cryptoml_assets.")}
    return found


def service() -> FastAPI:
    from cryptoml_serving.app import create_app  # noqa: PLC0415

    return create_app().framework


def endpoints() -> set[str]:
    """Those of the OpenAPI document, among them the door's own."""
    paths = service().openapi()["paths"]
    return {f"{m.upper()} {path}" for path, operations in paths.items() for m in operations}


def routes() -> set[str]:
    """Those the framework answers, in the document or not, but for HEAD beside GET."""
    found, unseen = set(), list(service().routes)
    while unseen:
        route = unseen.pop()
        if (router := getattr(route, "original_router", None)) is not None:
            unseen += router.routes
        else:
            assert isinstance(route, Route)
            found |= {f"{m} {route.path}" for m in (route.methods or set()) - {"HEAD"}}
    return found


def metrics() -> set[str]:
    text = service().state.service.metrics.exposition().decode()
    names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    return {n for n in names if not n.startswith("process_") and not n.endswith("_created")}


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of every table below a heading, without those of its header."""
    _, _, section = text.partition(f"\n## {heading}\n")
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    bodies = re.findall(r"^\|(?:---\|)+\n((?:\|.*\n?)+)", section, re.MULTILINE)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for body in bodies
        for line in body.splitlines()
    ]


def test_reference_is_current(reference: ModuleType) -> None:
    assert page("reference.md") == reference.render(), "run `python docs/reference.py`"


def test_reference_names_everything() -> None:
    settings = {variable for each in CLASSES.values() for variable in each.variables()}
    text = page("reference.md")
    for names in (settings, commands(), asset_names(), check_names(), automation()):
        assert names
        assert absent(names, text) == []
    assert absent(endpoints() | metrics(), text) == []


def test_every_row_of_the_reference_says_something() -> None:
    rows = [line for line in page("reference.md").splitlines() if line.startswith("| ")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_assets_page_has_exactly_the_assets_and_their_checks() -> None:
    text = page("assets.md")
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) == asset_names()
    graph = defs.resolve_asset_graph()
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("\n")
        node = next(n for n in graph.asset_nodes if n.key.to_user_string() == name)
        checks = {key.name for key in graph.get_check_keys_for_assets({node.key})}
        assert absent(checks, body) == [], name
        readers = {key.to_user_string() for key in node.child_keys}
        assert absent(readers, body) == [], name


def test_operations_page_names_what_can_be_asked_for_and_what_runs_by_itself() -> None:
    assert absent(commands() | automation(), page("operations.md")) == []


def test_operations_page_says_what_to_do_about_every_error() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \|.+\|.+\|$", page("operations.md"), re.MULTILINE)
    assert sorted(rows) == sorted(errors())


def test_operations_page_names_every_recipe() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    recipes = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)) - {"help"}
    assert recipes
    assert absent({f"make {name}" for name in recipes}, page("operations.md")) == []


def test_serving_page_lists_every_endpoint() -> None:
    public = endpoints() | routes()
    assert {"POST /predict", "GET /", "POST /v2/models/{name}/infer"} <= public
    told = [row[0].strip("`") for row in rows(page("serving.md"), "Endpoints")]
    admin = {f"{method} {path}" for path, (method, _) in ADMIN_ROUTES.items()}
    # Told in the row of another: files of Swagger UI, and a second spelling.
    assert sorted(told) == sorted([*(public - {"GET /docs/{file}", "GET /v2/"}), *admin])


def test_serving_page_says_which_role_an_admin_route_takes() -> None:
    admin = rows(page("serving.md"), "Endpoints")[-len(ADMIN_ROUTES) :]
    assert {row[0].strip("`"): row[2].strip("`") for row in admin} == {
        f"{method} {path}": "none" if role is None else str(role)
        for path, (method, role) in ADMIN_ROUTES.items()
    }


def test_serving_page_lists_every_problem_with_its_status() -> None:
    told = {(row[1].strip("`"), row[0]) for row in rows(page("serving.md"), "Errors")}
    known = {(each.uri, str(int(each.status))) for each in ProblemType}
    assert told - known == {("about:blank", "404, 405")}
    assert known - told == set()


def test_serving_page_lists_every_metric() -> None:
    told = [row[0].strip("`") for row in rows(page("serving_running.md"), "Metrics")]
    assert sorted(told) == sorted(metrics())


def test_serving_page_lists_every_setting_of_the_service_with_its_default() -> None:
    told = {
        row[0].strip("`"): "" if row[1] == "empty" else row[1].strip("`")
        for row in rows(page("serving_running.md"), "Settings")
    }
    assert told == {
        ServingSettings.variable(name): spell(field.default)
        for name, field in ServingSettings.model_fields.items()
        if name.startswith("serving_")
    }


def test_delivery_page_lists_every_rule_of_the_manifest_check_by_its_severity() -> None:
    told = {
        (rule, row[0], float(row[1].removesuffix(" %")) / 100)
        for row in rows(page("deploy_delivery.md"), "`cryptoml manifest-check`")
        for rule in row[2].split(", ")
    }
    assert told == {(n, str(r.severity), r.severity.weight) for n, r in RULES.items()}


def test_deploy_page_names_every_secret_of_the_chart() -> None:
    chart = yaml.safe_load((REPOSITORY / "helm/cryptoml/values-production.yaml").read_text())
    made = {each["target"] for each in chart["secrets"]["externalSecrets"]["items"]}
    assert {row[0].strip("`") for row in rows(page("deploy.md"), "Secrets")} == made
    variables = (REPOSITORY / "helm/cryptoml/templates/_environment.tpl").read_text()
    named = set(re.findall(r"^- (CRYPTOML_\w+)$", variables, re.MULTILINE))
    secrets = {name for name in named if not name.startswith("CRYPTOML_NOTIFY_")}
    assert secrets
    # Behind an MLflow server its address is no secret.
    assert absent(secrets - {"CRYPTOML_TRACKING_URI"}, page("deploy.md")) == []


def test_serving_page_tells_every_kind_of_failed_refresh() -> None:
    raised = {
        error.kind
        for error in vars(serving_errors).values()
        if isinstance(error, type)
        and issubclass(error, serving_errors.ServingError)
        # Told to one caller; the background threads raise none of these.
        and not issubclass(
            error, (serving_errors.ExplicitError, serving_errors.TooManySubscribersError)
        )
    }
    (row,) = [r for r in rows(page("serving_running.md"), "Metrics") if "refresh_errors" in r[0]]
    assert set(re.findall(r"`(\w+)`", row[2])) == raised


def test_pages_name_every_fault_that_is_played() -> None:
    from tests.chaos.serving_faults import FAULTS  # noqa: PLC0415

    # Each fault's own words on the page; a new fault needs some.
    words = {
        "swap": "swaps under load",
        "alias_moved": "alias moved",
        "corrupt_bundle": "corrupt bundle",
        "half_written_cache": "half-written cache",
        "registry_down": "registry down",
        "feature_store_down": "feature store down",
        "feature_store_slow": "slow by 2 s",
        "clock_jumps": "clock jumps",
        "terminated": "SIGTERM under load",
        "worker_killed": "`kill -9` of a worker",
        "slow_clients": "slow clients",
        "withdrawn": "champion withdrawn",
    }
    assert set(words) == set(FAULTS)
    text = " ".join(page("serving_running.md").split())
    assert [fault for fault, told in words.items() if told not in text] == []


def test_pages_name_no_setting_that_is_gone() -> None:
    known = {variable for each in CLASSES.values() for variable in each.variables()}
    # Of the tests, of docker-compose.yaml, and of feature_store.yaml when Feast is used by hand.
    known |= {
        "CRYPTOML_REALDATA",
        "CRYPTOML_PASSWORD",
        "CRYPTOML_FEAST_REGISTRY",
        "CRYPTOML_FEAST_ONLINE_STORE",
    }
    named = {
        v for file in TEXTS for v in re.findall(r"CRYPTOML_[A-Z_]*[A-Z]\b(?!_)", file.read_text())
    }
    assert named - known == set()


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_relative_links_lead_somewhere(file: Path) -> None:
    targets = [target for is_picture, target in links(file) if not is_picture]
    assert [target for target in targets if not (file.parent / target).exists()] == []


def test_pictures_are_there() -> None:
    pictures = {
        (file.parent / target).resolve()
        for file in TEXTS
        for is_picture, target in links(file)
        if is_picture
    }
    assert pictures
    missing = sorted(p.name for p in pictures if not (p.is_file() and p.read_bytes()[:8] == PNG))
    assert missing == [], "take them with scripts/pictures"
    assert {p.parent for p in pictures} == {DOCS / "pictures"}


def test_decisions_are_listed_and_whole() -> None:
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]
    decisions = next(part["Decisions"] for part in nav if "Decisions" in part)
    listed = [DOCS / file for entry in decisions for file in entry.values()]
    assert listed == sorted((DOCS / "adr").glob("*.md"))
    for file in listed:
        text = file.read_text()
        assert text.startswith(f"# {int(file.name[:4])}. "), file.name
        assert re.search(
            r"^Status: (accepted|superseded by .+), \d{4}-\d\d-\d\d$", text, re.MULTILINE
        )
        sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert sections == ["Context", "Decision", "Consequences"], file.name


class Outside(HTMLParser):
    """Collects the addresses outside the site from which a browser would load something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.found += [v for k, v in attrs if k in ("src", "href") and v and "//" in v]


def outside(html: str) -> list[str]:
    parser = Outside()
    parser.feed(html)
    return parser.found


def test_diagrams_are_text_or_pictures() -> None:
    # Material loads the program that draws these from the internet.
    assert [file.name for file in PAGES if "```mermaid" in file.read_text()] == []


def test_addresses_outside_the_site_would_be_seen() -> None:
    html = '<link href="https://a.example/a.css"><a href="https://b.example">b</a><img src="c.png">'
    assert outside(html) == ["https://a.example/a.css"]


def test_site_builds_and_needs_no_internet(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert len(built) == len(PAGES) + 1  # and 404.html
    for file in built:
        assert outside(file.read_text()) == [], file.name
    styles = "".join(file.read_text() for file in (tmp_path / "site").rglob("*.css"))
    assert re.findall(r"url\(['\"]?(?:https?:)?//", styles) == []
    assert not list((tmp_path / "site").rglob("*.py"))
