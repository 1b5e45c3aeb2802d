from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import jax
import numpy as np
import pytest

from cryptoml_assets.errors import TrainingResourcesError
from cryptoml_assets.models import resources
from cryptoml_assets.models.families.family import inputs_of, network
from cryptoml_assets.models.options import Family
from cryptoml_assets.models.planning import task_of
from cryptoml_assets.models.population import Hyper, Program, fold_data
from cryptoml_assets.models.resources import (
    Request,
    Workload,
    check_fits,
    gpu_memory,
    kubernetes_tags,
    memory_limit,
    planned_rows,
    training_request,
    training_threads,
    workload,
)
from cryptoml_assets.settings import Settings
from tests import model_worlds

GIB = 2**30
LOAD = Workload(
    rows=300_000, features=40, hidden_units=(64, 32), batch_size=1024, folds=8, seeds=4, trials=20
)
GPU = dataclasses.replace(LOAD, gpus=1, vectorised=True)


@pytest.mark.parametrize(
    "larger",
    [
        {"rows": 600_000},
        {"features": 80},
        {"hidden_units": (128, 64)},
        {"folds": 16},
        {"seeds": 8},
        {"trials": 33},
        {"vectorised": True},
    ],
    ids=lambda larger: next(iter(larger)),
)
def test_more_of_anything_asks_for_more_memory(larger: dict[str, object]) -> None:
    more = training_request(dataclasses.replace(LOAD, **larger))
    assert more.memory_bytes > training_request(LOAD).memory_bytes


def test_rows_past_the_small_ones_decide() -> None:
    """36 bytes a value and 200 a row: nothing else grows with the rows on a processor."""
    one_fold = dataclasses.replace(LOAD, folds=1)
    more = dataclasses.replace(one_fold, rows=LOAD.rows + 1_000_000)
    grown = training_request(more).memory_bytes - training_request(one_fold).memory_bytes
    assert grown == 1_000_000 * (36 * LOAD.features + 200)


def test_a_gpu_takes_the_folds_off_the_host_and_devices_share_the_members() -> None:
    on_cpu = training_request(dataclasses.replace(LOAD, vectorised=True))
    on_one = training_request(GPU)
    on_two = training_request(dataclasses.replace(GPU, gpus=2))
    assert on_one.memory_bytes < on_cpu.memory_bytes
    assert (on_cpu.gpus, on_cpu.gpu_bytes, on_one.gpus, on_two.gpus) == (0, 0, 1, 2)
    rows = 2 * LOAD.folds * 4 * LOAD.rows * LOAD.features
    assert rows < on_two.gpu_bytes < on_one.gpu_bytes
    assert on_one.gpu_bytes - rows == pytest.approx(2 * (on_two.gpu_bytes - rows), abs=2)


def test_members_that_take_turns_need_their_working_memory_as_often_as_there_are_threads() -> None:
    loads = [training_request(LOAD, threads=threads).memory_bytes for threads in (1, 2, 3, 4)]
    assert loads[0] < loads[1]
    assert np.diff(loads) == pytest.approx([loads[1] - loads[0]] * 3)
    assert training_request(LOAD).cpus == 4
    two = dataclasses.replace(LOAD, folds=1, seeds=2, trials=1)
    assert training_request(two).cpus == 2
    assert training_request(two, threads=2) == training_request(two, threads=64)


@pytest.mark.parametrize("family", get_args(Family))
def test_on_no_node_a_training_asks_for_more_than_its_pod_was_sized_for(family: Family) -> None:
    defaults = Settings(_env_file=None)
    rows = planned_rows(defaults.training_window, defaults.bar, len(defaults.symbols))
    load = workload(task_of(family, defaults, 0), rows)
    sized = training_request(load).memory_bytes
    asked = [training_request(load, threads=cores).memory_bytes for cores in range(1, 65)]
    assert max(asked) == sized
    threads = {training_threads(load.population, cores) for cores in range(1, 65)}
    assert max(threads) == training_request(load).cpus


def test_a_search_and_the_folds_take_turns() -> None:
    """Trials are of one fold and one seed, and gone before the winner trains on all."""
    sizes = {"folds": 3, "seeds": 4}
    for trials, members in ((1, 12), (12, 12), (13, 13), (50, 50)):
        assert dataclasses.replace(LOAD, **sizes, trials=trials).population == members
    assert dataclasses.replace(LOAD, folds=1, seeds=1, trials=1).population == 1


@pytest.mark.parametrize(
    ("family", "batch"), [("mlp", 1024), ("mlp", 8192), ("tcn", 1024), ("state_space", 1024)]
)
def test_a_members_needs_are_those_the_compiler_tells_and_not_many_times_more(
    family: Family, batch: int
) -> None:
    """With more validation rows than are looked at at a time, and with large steps."""
    task = task_of(family, Settings(_env_file=None, batch_size=batch), 0)
    config, rows = task.training, 20_000
    inputs = inputs_of([feature.name for feature in task.features], task.channels)
    graph, params = network(family, inputs, config.hidden_units, 0)
    program = Program(graph, config.epochs, config.batch_size)
    part = (np.zeros((rows, inputs.count), np.float32), np.zeros(rows, np.float32))
    (data,) = fold_data([part], [part])
    hyper = Hyper(np.uint32(0), np.float32(1e-3), np.float32(0))
    advance = jax.jit(program.advance)
    lowered = advance.lower(program.initial(params), hyper, data, np.int32(1))
    took = lowered.compile().memory_analysis().temp_size_in_bytes
    load = workload(task, rows)
    assert resources._parameters(load) == sum(leaf.size for leaf in jax.tree.leaves(params))
    asked = resources._working_bytes(load)
    assert took <= asked < 2.5 * took, f"{took} {asked}"


def test_sizes_come_from_the_task_and_the_rows() -> None:
    config = dataclasses.replace(model_worlds.CONFIG, search_trials=3, layout="auto")
    channels = (tuple(map(str, range(16))),)
    task = dataclasses.replace(model_worlds.TASK, training=config, folds=5, channels=channels)
    load = workload(task, 1000, gpus=2)
    assert load == Workload(
        rows=1000,
        features=len(task.features),
        hidden_units=config.hidden_units,
        batch_size=config.batch_size,
        folds=5,
        seeds=config.ensemble_size,
        trials=3,
        vectorised=True,
        gpus=2,
        channels=1,
        steps=16,
    )
    assert load.population == 5 * config.ensemble_size
    assert workload(task, 1000).vectorised is False
    linear = dataclasses.replace(task, family="linear")
    assert workload(linear, 1000).population == 1
    assert planned_rows(timedelta(days=60), timedelta(minutes=5), symbols=5) == 60 * 288 * 5


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        ({"rows": 6 * GIB, "networks": GIB}, "lower CRYPTOML_TRAINING_DAYS, CRYPTOML_SYMBOLS"),
        ({"rows": GIB, "networks": 6 * GIB}, "lower CRYPTOML_SEARCH_TRIALS.*CRYPTOML_LAYOUT=loop"),
    ],
)
def test_a_training_past_its_limit_is_refused_with_what_to_lower(
    parts: dict[str, int], advice: str
) -> None:
    request = Request({"process": GIB, **parts}, cpus=1)
    check_fits(request, 8 * GIB)
    with pytest.raises(TrainingResourcesError, match=f"needs 8.0 GiB.*may use 7.9 GiB: {advice}"):
        check_fits(request, int(7.9 * GIB))


def test_a_training_past_a_gpus_limit_is_refused_though_the_host_has_room() -> None:
    request = Request({"process": GIB}, cpus=2, gpus=2, gpu_bytes=8 * GIB)
    check_fits(request, 8 * GIB, 8 * GIB)
    check_fits(request, 8 * GIB)
    why = "needs 8.0 GiB.* each of 2 GPUs.*may use 7.9 GiB: lower .*CRYPTOML_LAYOUT=loop"
    with pytest.raises(TrainingResourcesError, match=why):
        check_fits(request, 8 * GIB, int(7.9 * GIB))


@pytest.mark.parametrize(
    ("platform", "stats", "limit"),
    [("gpu", {"bytes_limit": 5, "bytes_in_use": 1}, 5), ("gpu", None, None), ("cpu", {}, None)],
)
def test_a_gpus_limit_is_what_jax_may_use_of_it(
    monkeypatch: pytest.MonkeyPatch, platform: str, stats: dict[str, int] | None, limit: int | None
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(memory_stats=lambda: stats)])
    assert gpu_memory() == limit


def group(root: Path, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


def test_the_memory_limit_is_the_settings_else_the_machines(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit(1.5, root=tmp_path) == 3 * GIB // 2
    assert memory_limit(root=tmp_path) == machine


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/pod/box\n", {"memory.max": "max\n", "pod/box/memory.max": "5000\n"}, 5000),
        ("0::/pod/box\n", {"pod/memory.max": "4000\n", "pod/box/memory.max": "max\n"}, 4000),
        # As a container sees itself: its own group is the top.
        ("0::/\n", {"memory.max": "3000\n"}, 3000),
        ("4:memory:/pod/box\n0::/\n", {"memory/memory.limit_in_bytes": "2000\n"}, 2000),
        (
            "9:cpu:/other\n4:memory:/pod\n",
            {
                "memory/other/memory.limit_in_bytes": "1\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/pod/memory.limit_in_bytes": "1000\n",
            },
            1000,
        ),
    ],
)
def test_a_container_may_use_the_least_of_its_groups_limits(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int
) -> None:
    group(tmp_path, "proc/self/cgroup", groups)
    for file, text in files.items():
        group(tmp_path, f"sys/fs/cgroup/{file}", text)
    assert memory_limit(root=tmp_path) == limit


def test_kubernetes_gets_requests_limits_and_spot_nodes_with_a_way_out() -> None:
    request = Request({"process": GIB, "rows": 1}, cpus=2, gpus=1, gpu_bytes=GIB)
    config = kubernetes_tags(request)["dagster-k8s/config"]
    assert config["container_config"]["resources"] == {
        "requests": {"cpu": "2", "memory": "1025Mi"},
        "limits": {"memory": "1025Mi", "nvidia.com/gpu": "1"},
    }
    pod = config["pod_spec_config"]
    affinity = pod["affinity"]["node_affinity"]
    # Preferred, never required: with no spot node to be had, any other will do.
    assert list(affinity) == ["preferred_during_scheduling_ignored_during_execution"]
    (terms,) = affinity.values()
    preferred = {
        (e["key"], *e["values"]) for t in terms for e in t["preference"]["match_expressions"]
    }
    assert {
        ("eks.amazonaws.com/capacityType", "SPOT"),
        ("cloud.google.com/gke-spot", "true"),
        ("kubernetes.azure.com/scalesetpriority", "spot"),
    } <= preferred
    tolerated = {(each["key"], each.get("value")) for each in pod["tolerations"]}
    assert tolerated == preferred | {("nvidia.com/gpu", None)}


def test_a_pod_without_gpu_on_any_node_asks_for_nothing_else() -> None:
    config = kubernetes_tags(Request({"process": GIB}, cpus=1), spot=False)["dagster-k8s/config"]
    assert config == {
        "container_config": {
            "resources": {
                "requests": {"cpu": "1", "memory": "1024Mi"},
                "limits": {"memory": "1024Mi"},
            }
        }
    }
