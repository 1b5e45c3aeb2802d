"""Every alert of monitoring/alerts.yml against Prometheus's own unit tests of rules.

The tests lie beside the rules, so that `promtool test rules monitoring/tests/*.yml` is all that
whoever changes a rule needs. Here they run, and are themselves put to the test: with an alert that
always fires, that never does, or that waits for nothing, they have to fail.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = MONITORING / "alerts.yml"
TESTS = sorted((MONITORING / "tests").glob("*.yml"))
LOADED: dict[str, Any] = yaml.safe_load(RULES.read_text())
ALERTS = {rule["alert"]: rule for group in LOADED["groups"] for rule in group["rules"]}
#: Ways to break a rule that its test must notice.
BROKEN = {
    "always fires": {"expr": "vector(1)"},
    "never fires": {"expr": "vector(0) > 1"},
    "wrong severity": {"labels": {"severity": "info"}},
    "says nothing": {"annotations": {}},
}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool on the PATH: install the package prometheus")
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False)


def file_of(alert: str) -> Path:
    """Where an alert's test is: its name in words."""
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", alert).lower()
    return MONITORING / "tests" / f"{words}.yml"


def test_the_rules_are_sound() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_has_a_test_and_every_test_an_alert() -> None:
    assert len(ALERTS) >= 5
    assert {file_of(alert) for alert in ALERTS} == set(TESTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_seen_to_fire_and_not_to(alert: str) -> None:
    looks = [
        look
        for test in yaml.safe_load(file_of(alert).read_text())["tests"]
        for look in test["alert_rule_test"]
    ]
    assert {look["alertname"] for look in looks} == {alert}
    assert {bool(look.get("exp_alerts")) for look in looks} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_tells_people_how_bad_it_is_and_what_it_is(alert: str) -> None:
    assert ALERTS[alert]["labels"]["severity"] in {"critical", "warning"}
    assert ALERTS[alert]["annotations"]["summary"]


def test_the_alerts_do_as_their_tests_say() -> None:
    done = promtool("test", "rules", *map(str, TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_a_broken_alert_is_noticed(alert: str, tmp_path: Path) -> None:
    changes = dict(BROKEN)
    if "for" in ALERTS[alert]:
        changes["waits for nothing"] = {"for": "0s"}
    folders = [tmp_path / why.replace(" ", "-") for why in changes]
    with ThreadPoolExecutor() as pool:
        passed = list(pool.map(passes, [alert] * len(changes), changes.values(), folders))
    assert passed == [False] * len(changes), dict(zip(changes, passed, strict=True))


def passes(alert: str, change: dict[str, Any], folder: Path) -> bool:
    """Whether the alert's tests pass although the rule is another."""
    rules = copy.deepcopy(LOADED)
    for group in rules["groups"]:
        for rule in group["rules"]:
            if rule["alert"] == alert:
                rule.update(change)
    folder.mkdir()
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    tests = yaml.safe_load(file_of(alert).read_text())
    tests["rule_files"] = [str(folder / "alerts.yml")]
    (folder / "test.yml").write_text(yaml.safe_dump(tests))
    done = promtool("test", "rules", str(folder / "test.yml"))
    # Anything else would be a rule that cannot be read, which is no test of the test.
    assert ("FAILED" in done.stderr) != ("SUCCESS" in done.stdout), done.stdout + done.stderr
    return done.returncode == 0
