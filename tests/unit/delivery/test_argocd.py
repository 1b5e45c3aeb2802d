"""The Argo CD applications against the charts and values that they name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "deploy" / "argocd"
ENVIRONMENTS = ("staging", "production")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return loaded


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_application_installs_both_charts_with_the_values_of_its_environment(
    environment: str,
) -> None:
    application = load(environment)
    ours, dagster, values = application["spec"]["sources"]
    chart = REPOSITORY / ours["path"]
    assert (chart / "Chart.yaml").exists()
    assert ours["helm"]["valueFiles"] == [f"values-{environment}.yaml"]
    assert all((chart / name).exists() for name in ours["helm"]["valueFiles"])
    named = [each.removeprefix("$values/") for each in dagster["helm"]["valueFiles"]]
    assert named == ["helm/dagster-values.yaml", f"helm/dagster-values-{environment}.yaml"]
    assert all((REPOSITORY / name).exists() for name in named)
    assert (values["ref"], values["repoURL"]) == ("values", ours["repoURL"])
    # Both from one state of the repository.
    assert values["targetRevision"] == ours["targetRevision"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_installed_is_a_release_and_the_dagster_that_is_locked(environment: str) -> None:
    ours, dagster, _ = load(environment)["spec"]["sources"]
    software = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert ours["targetRevision"] == f"v{software}"
    locked = re.search(
        r"^dagster==([\d.]+)", (REPOSITORY / "requirements/run.txt").read_text(), re.MULTILINE
    )
    assert locked is not None
    assert dagster["targetRevision"] == locked[1]


def test_the_two_environments_differ_in_nothing_but_their_name_and_who_syncs() -> None:
    staging, production = (load(each) for each in ENVIRONMENTS)
    assert staging["spec"]["syncPolicy"].pop("automated") == {"prune": True, "selfHeal": True}
    # Somebody approves what goes into production.
    assert "automated" not in production["spec"]["syncPolicy"]
    text = yaml.safe_dump(staging).replace("staging", "production")
    assert text == yaml.safe_dump(production)


def test_the_project_lets_in_these_applications_and_no_more() -> None:
    project = load("project")["spec"]
    applications = [load(each)["spec"] for each in ENVIRONMENTS]
    assert {each["repoURL"] for spec in applications for each in spec["sources"]} == set(
        project["sourceRepos"]
    )
    assert [spec["destination"] for spec in applications] == project["destinations"]
    assert project["clusterResourceWhitelist"] == [{"group": "", "kind": "Namespace"}]
    allowed = {(each["group"], each["kind"]) for each in project["namespaceResourceWhitelist"]}
    assert not [each for each in allowed if "*" in each]
    templates = REPOSITORY / "helm" / "cryptoml" / "templates"
    made = set()
    for file in templates.rglob("*.yaml"):
        # Argo CD knows no hook for tests, and leaves these alone.
        if file.parent.name == "tests":
            continue
        for version, kind in re.findall(
            r"^apiVersion: (\S+)\nkind: (\w+)", file.read_text(), re.MULTILINE
        ):
            made.add((version.rpartition("/")[0], kind))
    assert made
    assert made - allowed == set()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_namespaces_are_restricted(environment: str) -> None:
    policy = load(environment)["spec"]["syncPolicy"]
    labels = policy["managedNamespaceMetadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    # Without this the labels are nobody's.
    assert "CreateNamespace=true" in policy["syncOptions"]
