"""The workflows: of GitHub's shape, sound to their linter, true to the rest of the repository."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").rglob("action.yml"))
PIN = re.compile(r"uses: (?P<action>[\w.-]+/[\w./-]+)@(?P<sha>[0-9a-f]{40}) # v\d+\.\d+\.\d+$")


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def workflow(name: str) -> dict[str, Any]:
    return load(GITHUB / "workflows" / f"{name}.yml")


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in WORKFLOWS:
        for name, job in load(file)["jobs"].items():
            yield f"{file.stem}.{name}", job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs():
        yield from ((name, step) for step in job.get("steps", []))
    for file in ACTIONS:
        yield from ((file.parent.name, step) for step in load(file)["runs"]["steps"])


def names(job: dict[str, Any]) -> list[str]:
    return [step.get("name") or step.get("uses") or step["run"] for step in job["steps"]]


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-actions", ACTIONS),
        ("dependabot", [GITHUB / "dependabot.yml"]),
    ],
    ids=["workflows", "actions", "dependabot"],
)
def test_files_are_of_githubs_schema(schema: str, files: list[Path]) -> None:
    assert files
    done = subprocess.run(
        [program("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_in_them_can_be_injected_into_or_taken_over() -> None:
    done = subprocess.run(
        [program("zizmor"), "--offline", "--no-progress", "--persona=auditor", GITHUB],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_actions_of_others_are_pinned_to_one_commit_each() -> None:
    pins: dict[str, set[str]] = {}
    for file in (*WORKFLOWS, *ACTIONS):
        for line in re.findall(r"uses: .*", file.read_text()):
            if line.startswith("uses: ./"):
                assert (REPOSITORY / line.removeprefix("uses: ./")).exists(), line
                continue
            pin = PIN.fullmatch(line)
            assert pin is not None, f"{file.name}: {line}"
            pins.setdefault(pin["action"], set()).add(line)
    assert pins
    assert {action: lines for action, lines in pins.items() if len(lines) > 1} == {}


def test_every_job_has_a_limit_and_no_more_rights_than_it_names() -> None:
    for file in WORKFLOWS:
        assert load(file)["permissions"] == {}, file.name
    for name, job in jobs():
        assert "permissions" in job, name
        assert "timeout-minutes" in job or "uses" in job, name


def test_only_who_needs_to_may_sign_or_write() -> None:
    writers = {
        name: {right for right, level in job["permissions"].items() if level == "write"}
        for name, job in jobs()
        if "write" in job["permissions"].values()
    }
    images = {"packages", "id-token", "attestations", "security-events"}
    assert writers == {
        "images.build": images,
        "release.images": images,
        "deploy.deliver": {"id-token"},
        "release.staging": {"id-token"},
        "release.production": {"id-token"},
    }


def test_commands_are_shell_and_call_what_there_is() -> None:
    recipes = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    called = set()
    for name, step in steps():
        if "run" not in step:
            continue
        done = subprocess.run(["bash", "-n"], input=step["run"], text=True, check=False)
        assert done.returncode == 0, name
        called |= set(re.findall(r"(?<![\w/])scripts/[\w-]+", step["run"]))
        for line in step["run"].splitlines():
            if line.startswith("make "):
                targets = [each for each in shlex.split(line)[1:] if "=" not in each]
                assert [t for t in targets if t not in recipes and not t.startswith(".venv")] == []
    assert {"scripts/deliver", "scripts/pin-images", "scripts/minimum", "scripts/anvil"} == called
    missing = [each for each in called if not (REPOSITORY / each).exists()]
    assert missing == []


def test_tests_run_on_every_python_that_is_supported() -> None:
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert wanted["requires-python"] == ">=3.11,<3.14"
    matrix = workflow("ci")["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert matrix == ["3.11", "3.12", "3.13"]


def test_passing_means_that_every_job_passed() -> None:
    ci = workflow("ci")["jobs"]
    passed = ci.pop("passed")
    assert set(passed["needs"]) == set(ci)
    (step,) = passed["steps"]

    def status(results: str) -> int:
        return subprocess.run(
            ["bash", "-e", "-c", step["run"]], env={"RESULTS": results}, check=False
        ).returncode

    assert status("success skipped success") == 0
    assert status("success failure success") == 1
    assert status("success cancelled") == 1


def test_an_image_is_scanned_before_it_is_signed() -> None:
    (job,) = workflow("images")["jobs"].values()
    order = [names(job).index(name) for name in ("Build", "Scan", "SBOM", "Provenance")]
    signing = names(job).index("Sign the image, and the SBOM for it")
    assert order == sorted(order)
    assert order[1] < order[2] < signing < order[3]
    scan = job["steps"][order[1]]
    assert scan["with"]["exit-code"] == "1"
    assert "if" not in scan
    assert "continue-on-error" not in scan
    # What others may deploy is named last, by its digest.
    assert job["steps"][-1]["id"] == "name"
    assert set(job["outputs"]) == set(job["strategy"]["matrix"]["target"])


def test_targets_are_those_of_the_dockerfile() -> None:
    stages = re.findall(
        r"^FROM \S+ AS (\S+)", (REPOSITORY / "docker/Dockerfile").read_text(), re.MULTILINE
    )
    for name in ("images.build", "ci.images"):
        job = dict(jobs())[name]
        assert set(job["strategy"]["matrix"]["target"]) <= set(stages), name


def test_production_follows_staging_and_its_approval() -> None:
    release = workflow("release")["jobs"]
    assert set(release["images"]["needs"]) == {"version", "ci"}
    assert set(release["staging"]["needs"]) == {"version", "images"}
    assert set(release["production"]["needs"]) == {"version", "images", "staging"}
    for name in ("staging", "production"):
        assert release[name]["with"]["environment"] == name
        assert "if" not in release[name]
    (deliver,) = workflow("deploy")["jobs"].values()
    # GitHub asks the reviewers of an environment before its job begins.
    assert deliver["environment"]["name"] == "${{ inputs.environment }}"
    assert deliver["concurrency"]["cancel-in-progress"] is False


def test_what_is_deployed_is_verified_first_and_named_by_digest() -> None:
    (deliver,) = workflow("deploy")["jobs"].values()
    order = names(deliver)
    verifying, pinning, deploying = (
        next(place for place, name in enumerate(order) if name.startswith(beginning))
        for beginning in ("Images are those", "Images by their digests", "Deploy, prove")
    )
    assert verifying < pinning < deploying == len(order) - 1
    assert "--certificate-identity-regexp" in deliver["steps"][verifying]["run"]
    last = deliver["steps"][deploying]
    assert last["env"]["VALUES"] == "pinned/cryptoml.json"
    assert last["env"]["DAGSTER_VALUES"] == "pinned/dagster.json"
    # Everything that scripts/deliver reads and nothing else.
    script = (REPOSITORY / "scripts" / "deliver").read_text()
    known = set(re.findall(r"\$\{?([A-Z_]{4,})\b", script)) | {"VALUES", "DAGSTER_VALUES"}
    assert set(last["env"]) - {"SMOKE_KEY", "ENVIRONMENT"} <= known


def test_who_signs_is_only_this_repositorys_workflow() -> None:
    (deliver,) = workflow("deploy")["jobs"].values()
    step = next(each for each in deliver["steps"] if each.get("name", "").startswith("Images are"))
    line = next(each for each in step["run"].splitlines() if "identity-regexp" in each)
    signer = "https://github.com/o/r/.github/workflows/images.yml@"
    told = subprocess.run(
        ["bash", "-c", f"{line.strip()}); printf '%s\\n' \"${{who[1]}}\""],
        env={"SIGNER": signer},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert re.match(told, f"{signer}refs/tags/v1.2.3")
    assert not re.match(told, f"{signer}refs/heads/main")
    assert not re.match(told, f"{signer}refs/tags/v1.2.3".replace("github.com", "githubxcom"))
    assert not re.match(told, f"https://evil.example/{signer}refs/tags/v1.2.3")


def test_the_version_of_a_release_is_that_of_software_and_chart(tmp_path: Path) -> None:
    step = workflow("release")["jobs"]["version"]["steps"][-1]
    software = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

    def told(tag: str) -> tuple[int, str]:
        output = tmp_path / "output"
        output.write_text("")
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            env={"TAG": tag, "GITHUB_OUTPUT": str(output), "PATH": "/usr/bin:/bin"},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, output.read_text()

    assert told(f"v{software}") == (0, f"version={software}\n")
    assert told("v99.0.0") == (1, "")


def test_new_releases_of_dependencies_wait() -> None:
    updates = load(GITHUB / "dependabot.yml")["updates"]
    assert {each["package-ecosystem"] for each in updates} == {
        "github-actions",
        "pip",
        "docker",
        "docker-compose",
    }
    for each in updates:
        assert each["cooldown"]["default-days"] >= 7, each["package-ecosystem"]
        for folder in each.get("directories", [each.get("directory")]):
            assert (REPOSITORY / folder.strip("/")).is_dir(), folder
