"""What the Dagster UI tells of the graph, and the configuration it runs under."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from cryptoml_assets.definitions import defs

REPOSITORY = Path(__file__).parents[3]
GRAPH = defs.resolve_asset_graph()
NODES = {node.key.to_user_string(): node for node in GRAPH.asset_nodes}
GROUPS = {"prices", "onchain", "features", "models", "deployment", "monitoring"}
LEAST_SENTENCE = 40
SCHEMA = "dagster/column_schema"


def read(name: str) -> Any:
    text = (REPOSITORY / name).read_text()
    return tomllib.loads(text) if name.endswith(".toml") else yaml.safe_load(text)


def first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", (text or "").strip(), maxsplit=1)[0]


def test_every_group_has_assets() -> None:
    assert {node.group_name for node in NODES.values()} == GROUPS


def test_every_asset_has_kinds_an_owner_and_a_code_version() -> None:
    assert [name for name, node in NODES.items() if not node.kinds] == []
    assert [name for name, node in NODES.items() if not node.code_version] == []
    owners = {name: node.owners for name, node in NODES.items()}
    assert {n: o for n, o in owners.items() if not any(x.startswith("team:") for x in o)} == {}


def test_every_asset_is_described() -> None:
    short = {
        name: sentence
        for name, node in NODES.items()
        if len(sentence := first_sentence(node.description)) <= LEAST_SENTENCE
    }
    assert short == {}


def test_every_table_describes_its_columns() -> None:
    tables = {
        name: node.metadata.get(SCHEMA)
        for name, node in NODES.items()
        if node.assets_def.get_io_manager_key_for_asset_key(node.key) == "lake"
    }
    assert {"raw_prices", "training_set", "candidate_models", "feature_drift"} <= tables.keys()
    bare = [name for name, schema in tables.items() if not isinstance(schema, dg.TableSchema)]
    assert sorted(bare) == []
    assert sorted(name for name, schema in tables.items() if not schema.columns) == []


def test_raw_and_feature_assets_are_kept_fresh() -> None:
    kept = {
        n: node for n, node in NODES.items() if node.group_name in {"prices", "onchain", "features"}
    }
    assert sorted(name for name, node in kept.items() if node.freshness_policy is None) == []
    assert sorted(name for name, node in kept.items() if node.automation_condition is None) == []


def test_every_check_is_described() -> None:
    specs = [GRAPH.get_check_spec(key) for key in GRAPH.asset_check_keys]
    assert specs
    assert sorted(spec.name for spec in specs if not spec.description) == []


def test_schedules_and_sensors_run_by_default_and_are_described() -> None:
    repository = defs.get_repository_def()
    things = [*repository.schedule_defs, *repository.sensor_defs]
    assert {thing.name for thing in things} >= {"retrain_daily", "keep_fresh", "retrain_on_alarm"}
    assert sorted(t.name for t in things if t.default_status.value != "RUNNING") == []
    assert sorted(t.name for t in things if not t.description) == []


def test_jobs_are_described() -> None:
    jobs = [j for j in defs.get_repository_def().get_all_jobs() if not j.name.startswith("__")]
    assert {job.name for job in jobs} >= {"ingest", "train", "retrain"}
    assert sorted(job.name for job in jobs if not job.description) == []


def test_code_location_has_one_name_and_one_module() -> None:
    workspace = [entry["python_module"] for entry in read("workspace.yaml")["load_from"]]
    cloud = read("dagster_cloud.yaml")["locations"]
    project = read("pyproject.toml")["tool"]["dg"]["project"]
    expected = [(project["code_location_name"], project["code_location_target_module"])]
    assert [(e["location_name"], e["module_name"]) for e in workspace] == expected
    assert [(e["location_name"], e["code_source"]["module_name"]) for e in cloud] == expected


def test_instance_keeps_to_itself_and_looks_after_its_runs() -> None:
    instance = read("dagster.yaml")
    assert instance["telemetry"]["enabled"] is False
    assert instance["run_retries"]["enabled"] is True
    assert instance["run_monitoring"]["enabled"] is True
