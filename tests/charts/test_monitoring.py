"""Rules as the chart installs them: of the series of their own namespace alone."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.charts.rendering import CHART, Variant, named, objects

ALL = Variant("production", everything=True)
#: Which hold for every rule: everything of ours is down, everything of the others is well.
OTHERS_ARE_WELL = {
    "NoPredictions": {"service_ready": "1x200"},
    "ErrorBudgetBurns": {
        "prediction_latency_seconds_count": "0+100x200",
        "prediction_requests_total": "0+100x200",
    },
    "GraphStandsStill": {"asset_age_seconds": "60x200"},
}
#: And the other way round.
OTHERS_ARE_NOT = {
    "ChampionNotServed": {"champion_not_served": "1x200"},
    "GpuGivenUp": {"device_fallbacks_total": "1x200"},
    "RegistryNotRead": {"registry_from_disk": "1x200"},
    "NoticesNotDelivered": {'notices_total{outcome="refused",channel="mail"}': "0+1x200"},
    "ErrorBudgetBurns": {
        "prediction_latency_seconds_count": "0x200",
        "prediction_requests_total": "0+100x200",
    },
}
OURS_ARE_NOT = {
    "ErrorBudgetBurns": {
        "prediction_latency_seconds_count": "0+50x200",
        "prediction_requests_total": "0+100x200",
    },
    "GraphStandsStill": {"asset_age_seconds": "9000x200"},
    "NoPredictions": {"service_ready": "0x200"},
}
OURS_ARE_WELL = {"ErrorBudgetBurns": OTHERS_ARE_WELL["ErrorBudgetBurns"]}


def installed_rules():
    return {"groups": named(objects(ALL), "PrometheusRule", "cryptoml")["spec"]["groups"]}


def of_namespace(namespace, series):
    """As a monitor of the operator labels what it scrapes."""
    found = []
    for name, values in series.items():
        metric, _, labels = name.rstrip("}").partition("{")
        labels = ",".join(filter(None, [labels, f'namespace="{namespace}"']))
        found.append({"series": f"{metric}{{{labels}}}", "values": values})
    return found


def judged(tmp_path, alert, ours, others):
    """Which alerts fire for our release, as Prometheus' own tests of rules see it."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the PATH: install the package prometheus")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(installed_rules()))
    series = of_namespace("cryptoml", ours) + of_namespace("another", others)
    test = {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [{"alertname": alert, "eval_time": "150m"}],
    }
    whole = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    # A rule that fires is one that the test, which expects nothing, finds.
    assert ("FAILED" in told) != ("SUCCESS" in told), told
    return "FAILED" in told


@pytest.mark.parametrize("alert", OTHERS_ARE_WELL)
def test_what_is_down_is_told_though_another_environment_is_well(tmp_path, alert):
    assert judged(tmp_path, alert, OURS_ARE_NOT[alert], OTHERS_ARE_WELL[alert])


@pytest.mark.parametrize("alert", OTHERS_ARE_NOT)
def test_what_is_wrong_elsewhere_is_told_there(tmp_path, alert):
    assert not judged(tmp_path, alert, OURS_ARE_WELL.get(alert, {}), OTHERS_ARE_NOT[alert])
    assert judged(tmp_path, alert, OTHERS_ARE_NOT[alert], OURS_ARE_WELL.get(alert, {}))


def test_every_series_of_every_rule_is_of_the_release():
    """Whoever adds a rule with another metric has to name it in the template."""
    files = [
        yaml.safe_load((CHART / "files" / name).read_text())
        for name in ("alerts.yml", "scaling.yml")
    ]
    written = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    rules = [rule for group in installed_rules()["groups"] for rule in group["rules"]]
    assert len(rules) == len(written)
    for rule, raw in zip(rules, written, strict=True):
        series = re.findall(
            r"\b[a-z]+(?:_[a-z]+)+\b(?!\s*\()", re.sub(r"by \([^)]*\)|\{[^}]*\}", "", raw["expr"])
        )
        assert series
        assert rule["expr"].count('{namespace="cryptoml"') == len(series), rule["expr"]
