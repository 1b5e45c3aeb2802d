"""``scripts/chart-check``: the chart against everything that this machine can hold it against.

Prints a line of counts for each check. A check that cannot be done is told with its reason and
counts as failed with ``--strict``. The exit status is 1 where anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate

from cryptoml_assets.operations.manifest_check.check import check
from cryptoml_assets.operations.manifest_check.manifests import read
from tests.charts.pod_security import violations
from tests.charts.rendering import (
    CHART,
    DIGESTS,
    ENVIRONMENTS,
    ROOT,
    VARIANTS,
    helm,
    objects,
    pod_templates,
    rendered,
)
from tests.charts.schemas import VERSIONS, refusal

#: Packages of npm with the schemas of the operators' objects.
SCHEMAS = {
    "@kubernetes-models/prometheus-operator": "6.0.0",
    "@kubernetes-models/external-secrets": "2.0.0",
    "@kubernetes-models/gateway-api": "2.0.0",
}
#: Ends of the groups of their objects.
OPERATORS = (".coreos.com", "external-secrets.io", "gateway.networking.k8s.io", ".envoyproxy.io")
#: Envoy Gateway publishes no schema outside its own chart.
WITHOUT_SCHEMA = {"gateway.envoyproxy.io/v1alpha1/BackendTrafficPolicy"}
CHECKOV_VERSION = "3.3.30"
#: checkov's rules that are not followed, and why.
CHECKOV_SKIPPED = {
    "CKV_K8S_35": "programs read settings from the environment; each gets its own secrets alone",
    "CKV_K8S_15": "tags are versions or commits: a cached image is the image",
    "CKV_K8S_43": "digests are of a release, and given where it is installed",
}
Outcome = tuple[int, str]


class NotRunError(Exception):
    """A check that this machine cannot do; the message says why."""


def lint() -> Outcome:
    """``helm lint --strict``, in both versions of Helm."""
    failures = 0
    for major in (3, 4):
        for name in ENVIRONMENTS:
            done = helm(
                "lint", "--strict", str(CHART), f"--values={CHART}/values-{name}.yaml", major=major
            )
            if done.returncode:
                failures += _told(f"helm {major} {name}: {done.stdout}")
    return failures, f"{len(ENVIRONMENTS)} environments x 2 versions of Helm"


def template() -> Outcome:
    """Every variant renders, and to the same objects in both versions of Helm."""
    failures = made = 0
    for variant in VARIANTS:
        if objects(variant, major=3) != objects(variant, major=4):
            failures += _told(f"{variant}: Helm 3 and 4 differ")
        made += len(objects(variant))
    return failures, f"{len(VARIANTS)} variants, {made} objects, the same in Helm 3 and 4"


def kubernetes() -> Outcome:
    """Kubernetes' own schemas, with no property that they do not know."""
    failures = checked = 0
    for variant in VARIANTS:
        for each in objects(variant):
            for version in VERSIONS:
                with contextlib.suppress(kubernetes_validate.SchemaNotFoundError):
                    if found := refusal(each, version):
                        failures += _told(f"{variant} {version} {_name(each)}: {found}")
                    checked += 1
    return failures, f"{checked} validations over {', '.join(VERSIONS)}"


def operators() -> Outcome:
    """Objects of operators, against the operators' schemas."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise NotRunError("npm and node are missing")
    folder = ROOT / ".tools" / "kubernetes-models"
    wanted = [f"{name}@{version}" for name, version in SCHEMAS.items()]
    if not all((folder / "node_modules" / name).exists() for name in SCHEMAS):
        command = ["npm", "install", "--prefix", str(folder), "--no-save", "--no-package-lock"]
        command += ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", *wanted]
        subprocess.run(command, check=True, stdout=sys.stderr)
    custom = [
        each
        for variant in VARIANTS
        for each in objects(variant)
        if each["apiVersion"].partition("/")[0].endswith(OPERATORS)
    ]
    known = [each for each in custom if _type(each) not in WITHOUT_SCHEMA]
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("operators.js")), str(folder / "node_modules")],
        input=json.dumps(known), capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        sys.stderr.write(f"  {line}\n")
    failures = len(done.stdout.splitlines()) if done.returncode in (0, 1) else 1
    if done.returncode not in (0, 1):
        sys.stderr.write(done.stderr)
    left = len(custom) - len(known)
    return failures, f"{len(known)} objects; {left} BackendTrafficPolicies have no schema"


def pods() -> Outcome:
    """Pod Security Standard *restricted*."""
    failures = checked = 0
    for variant in VARIANTS:
        for name, found in pod_templates(objects(variant)).items():
            checked += 1
            for problem in violations(found["spec"]):
                failures += _told(f"{variant} {name}: {problem}")
    return failures, f"{checked} pods"


def manifests() -> Outcome:
    """The platform's own manifest check, with images pinned as a release pins them."""
    failures = checked = 0
    for variant in VARIANTS:
        found = read(rendered(variant, *DIGESTS), str(variant))
        report = check(found)
        checked += report.objects
        for line in list(report.lines())[:-1]:
            failures += _told(f"{variant}: {line}")
    return failures, f"{checked} objects, risk {'above ' if failures else ''}0 of 100"


def rules() -> Outcome:
    """Alerts and recording rules, as Prometheus reads them."""
    if shutil.which("promtool") is None:
        raise NotRunError("promtool is missing: apt install prometheus")
    files = [str(CHART / "files" / name) for name in ("alerts.yml", "scaling.yml")]
    done = subprocess.run(
        ["promtool", "check", "rules", *files], capture_output=True, text=True, check=False
    )
    failures = _told(done.stdout + done.stderr) if done.returncode else 0
    return failures, " ".join(
        line.strip() for line in done.stdout.splitlines() if "SUCCESS" in line
    )


def checkov() -> Outcome:
    """checkov's rules for Kubernetes, and for the images' Dockerfile."""
    program = os.environ.get("CHECKOV") or shutil.which("checkov") or _installed_checkov()
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            Path(folder, f"{variant}.yaml").write_text(rendered(variant))
        failed, passed = _checkov(program, folder, "kubernetes")
    more, built = _checkov(program, str(ROOT / "docker"), "dockerfile")
    left = f"{len(CHECKOV_SKIPPED)} rules left out"
    return failed + more, f"{passed} checks of objects and {built} of images passed, {left}"


def _checkov(program: str, folder: str, framework: str) -> tuple[int, int]:
    """How many checks failed, which are told, and how many passed."""
    command = [program, "-d", folder, "--framework", framework, "--quiet", "--compact"]
    command += ["--skip-download", "-o", "json", "--skip-check", ",".join(CHECKOV_SKIPPED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    for each in report["results"]["failed_checks"]:
        told = (each["check_id"], each["check_name"], each["file_path"], each["resource"])
        sys.stderr.write(f"  {' '.join(told)}\n")
    failed, passed = (int(report["summary"][kind]) for kind in ("failed", "passed"))
    if not failed + passed:
        return _told(f"checkov found nothing of the kind {framework} in {folder}"), 0
    return failed, passed


def _installed_checkov() -> str:
    """checkov of this check's own environment, made where it is missing: its pins are not ours.

    Raises:
        NotRunError: it cannot be installed here.
    """
    folder = ROOT / ".tools" / f"checkov-{CHECKOV_VERSION}"
    program = folder / "bin" / "checkov"
    if not program.exists():
        sys.stderr.write(f"Installing checkov {CHECKOV_VERSION} into {folder}\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check", "install"]
        command += ["--quiet", f"checkov=={CHECKOV_VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder)
            last = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
            raise NotRunError(f"checkov {CHECKOV_VERSION} cannot be installed: {last}")
    return str(program)


def cluster() -> Outcome:
    """Install, upgrade, roll back and uninstall at a real API server."""
    if "KUBE_CONTROL_PLANE" not in os.environ:
        raise NotRunError(
            "KUBE_CONTROL_PLANE=FOLDER names no folder with kube-control-plane, the program that "
            "starts a control plane, and its binaries in bin/"
        )
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:randomly"]
    done = subprocess.run(
        [*command, "tests/charts/test_cluster.py"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [done.stderr])[-1]
    return _told(done.stdout) if done.returncode else 0, last


CHECKS: dict[str, Callable[[], Outcome]] = {
    "lint": lint,
    "template": template,
    "kubernetes": kubernetes,
    "operators": operators,
    "pods": pods,
    "manifests": manifests,
    "rules": rules,
    "checkov": checkov,
    "cluster": cluster,
}


def _told(what: str) -> int:
    """Tell one failure, and count it."""
    sys.stderr.write(f"  {what.strip()}\n")
    return 1


def _type(found: dict[str, Any]) -> str:
    return f"{found['apiVersion']}/{found['kind']}"


def _name(found: dict[str, Any]) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"


def main() -> int:
    """Do every check, or those named; returns the exit status."""
    parser = argparse.ArgumentParser(prog="chart-check", description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", help=f"which: {', '.join(CHECKS)}")
    parser.add_argument("--strict", action="store_true", help="what cannot be done has failed")
    options = parser.parse_args()
    if unknown := set(options.checks) - set(CHECKS):
        parser.error(f"{', '.join(sorted(unknown))}: accepted: {', '.join(CHECKS)}")
    failed = 0
    for name in options.checks or CHECKS:
        started = time.monotonic()
        try:
            failures, told = CHECKS[name]()
        except NotRunError as reason:
            failed += options.strict
            sys.stdout.write(f"--  {name:11} NOT RUN: {reason}\n")
            continue
        failed += bool(failures)
        took = f"{failures} failures, {time.monotonic() - started:.0f} s"
        sys.stdout.write(f"{'!!' if failures else 'ok'}  {name:11} {told}, {took}\n")
        sys.stdout.flush()
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
