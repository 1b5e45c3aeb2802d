"""docker/Dockerfile as its linter and an engine read it; scripts/image-check builds it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text()
TARGETS = ("assets", "serving", "serving-gpu")
#: Rules that a line of the Dockerfile is excused from, with its reason beside it.
EXCUSED = {"DL3008"}
PINNED = re.compile(r"[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}")


def stages() -> dict[str, tuple[str, list[str]]]:
    """Each stage's base and its instructions, whole lines."""
    found: dict[str, tuple[str, list[str]]] = {}
    joined = re.sub(r"\\\n\s*", " ", "\n".join(re.findall(r"^(?!#).+$", TEXT, re.MULTILINE)))
    for line in joined.splitlines():
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = (match[1], [])
        else:
            list(found.values())[-1][1].append(line)
    return found


def inherited(stage: str) -> list[str]:
    """Instructions of a stage and of those below it, the lowest first."""
    base, own = stages()[stage]
    return [*(inherited(base) if base in stages() else []), *own]


def only(stage: str, instruction: str) -> str:
    """What the last such instruction of an image says."""
    return [i for i in inherited(stage) if i.startswith(f"{instruction} ")][-1].partition(" ")[2]


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    """The linter of the development requirements."""
    own = Path(sys.executable).parent
    found = shutil.which("hadolint", path=os.pathsep.join([str(own), os.environ["PATH"]]))
    assert found, f"no hadolint beside {own}: install requirements/dev.txt"
    return subprocess.run([found, file], capture_output=True, text=True, check=False)


def test_hadolint_has_nothing_to_say() -> None:
    done = hadolint(DOCKERFILE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"hadolint ignore=(\w+)", TEXT)) == EXCUSED


def test_hadolint_would_speak(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(TEXT.replace("USER 10001:10001", "USER root"))
    assert "DL3002" in hadolint(file).stdout


def test_every_base_is_a_stage_or_pinned() -> None:
    outside = {base for base, _ in stages().values() if base not in stages()}
    assert len(outside) == 1
    assert all(PINNED.fullmatch(base) for base in outside)
    # Where the build on a base made here puts its own.
    assert next(iter(stages().values()))[0] in outside


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_what_the_chart_counts_on(target: str) -> None:
    assert only(target, "USER") == "10001:10001"
    assert only(target, "WORKDIR") == "/app"
    assert only(target, "VOLUME") == "/data"
    assert only(target, "HEALTHCHECK").endswith('CMD ["python", "-I", "/app/health.py"]')
    command = json.loads(only(target, "CMD"))
    assert command[:2] == (["dagster", "api"] if target == "assets" else ["python", "-m"])
    kinds = {each.split(" ", 1)[0] for each in inherited(target)}
    assert not kinds & {"ENTRYPOINT", "ADD"}
    environment = " ".join(e for e in inherited(target) if e.startswith("ENV "))
    assert "CRYPTOML_HOME=/data" in environment
    assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY", environment)
    labels = only(target, "LABEL")
    assert f'org.opencontainers.image.title="cryptoml-{target}"' in labels
    assert 'org.opencontainers.image.revision="${REVISION}"' in labels


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_no_place_to_install_in(target: str) -> None:
    runs = [each for each in inherited(target) if each.startswith("RUN ")]
    installs = [each for each in runs if "apt-get install" in each or "pip" in each]
    assert len(installs) == 1
    assert installs[0].count("ca-certificates python3 ") == 1
    copied = [each for each in inherited(target) if each.startswith("COPY ")]
    assert copied == [
        f"COPY --from=build-{target} /opt/cryptoml /opt/cryptoml",
        f"COPY --from=build-{target} /app /app",
    ]


def test_the_index_is_known_while_packages_are_installed_and_never_after() -> None:
    for stage, (_, instructions) in stages().items():
        for each in instructions:
            if "install-lock" in each and each.startswith("RUN"):
                assert "--mount=type=secret,id=pip,target=/etc/pip.conf" in each, stage
    assert "PIP_" not in TEXT


def test_what_is_copied_is_all_that_an_engine_gets() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    wanted: set[str] = set()
    for _, instructions in stages().values():
        for each in instructions:
            if each.startswith("COPY ") and "--from" not in each:
                wanted |= {name.rstrip("/") for name in each.split()[1:-1]}
    wanted = {re.sub(r"^(requirements)/.*", r"\1/*.txt", name) for name in wanted}
    wanted = {re.sub(r"^docker/health/.*", "docker/health", name) for name in wanted}
    assert let_in == wanted
    assert all(list(REPOSITORY.glob(name)) for name in let_in)
