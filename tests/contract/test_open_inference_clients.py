"""The service as clients of the Open Inference Protocol see it that nobody here wrote.

`tritonclient` and KServe's own run in `tests/foreign_clients.py`, in an environment of their own.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving_client import serving, wait, write_usual_features
from tests.serving_world import FEATURES, MODEL, ServingWorld, build_templates, scaled_program

REPOSITORY = Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-clients" / "bin" / "python"
SCRIPT = REPOSITORY / "tests" / "foreign_clients.py"
ROWS = [[1.0, 2.0, -3.0], [4.0, -5.0, 0.0]]
SUMS = np.array([0.0, -1.0])
EXPECTED: dict[str, Any] = {
    "expected_return": SUMS.tolist(),
    "lower": (SUMS - 0.5).tolist(),
    "upper": (SUMS + 0.5).tolist(),
    "probability_up": pytest.approx((1 / (1 + np.exp(-SUMS))).tolist(), abs=1e-6),
}
MOST_ROWS = 16
VERSION, OTHER = "1", "2"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the clients made of a champion that adds up, and a shadow that answers twice that."""
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} is missing: `make test` makes it, or make .venv-clients/.installed")
    templates = build_templates(tmp_path_factory.getbasetemp())
    world = ServingWorld(tmp_path_factory.mktemp("foreign-clients"), templates)
    write_usual_features(world)
    world.publish()
    world.publish(role="shadow", program=scaled_program(2.0))
    with serving(world, serving_max_rows=MOST_ROWS) as client:
        client.wait_ready()
        other = f"/v2/models/{MODEL}/versions/{OTHER}/ready"
        wait(lambda: client.get(other).status_code == 200)
        asked = {
            "url": f"{client.base_url.host}:{client.base_url.port}",
            "model": MODEL,
            "other_version": OTHER,
            "features": [feature.name for feature in FEATURES],
            "rows": ROWS,
            "most_rows": MOST_ROWS,
        }
        command = [PYTHON, SCRIPT, json.dumps(asked)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_triton_finds_server_and_models(seen: dict[str, Any]) -> None:
    triton = seen["triton"]
    assert triton["live"]
    assert triton["ready"]
    assert triton["model_ready"]
    assert triton["version_ready"]
    assert not triton["absent_ready"]
    assert not triton["absent_version_ready"]
    assert triton["server"]["extensions"] == ["binary_tensor_data"]
    assert triton["model"]["versions"] == [VERSION, OTHER]
    assert triton["model"]["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 3]}]
    assert triton["model"]["parameters"]["version"] == VERSION
    assert triton["version"]["parameters"]["version"] == OTHER


@pytest.mark.parametrize("way", ["binary", "json", "columns"])
def test_triton_infers(seen: dict[str, Any], way: str) -> None:
    assert seen["triton"][way] == EXPECTED


def test_triton_gets_id_and_version(seen: dict[str, Any]) -> None:
    answer = seen["triton"]["binary_answer"]
    assert answer["id"] == "forty-two"
    assert (answer["model_name"], answer["model_version"]) == (MODEL, VERSION)
    assert all(each["parameters"] == {"binary_data_size": 8} for each in answer["outputs"])


def test_triton_gets_the_outputs_it_asked_for(seen: dict[str, Any]) -> None:
    assert seen["triton"]["mixed"] == {name: EXPECTED[name] for name in ("lower", "upper")}
    assert [each["name"] for each in seen["triton"]["mixed_answer"]["outputs"]] == [
        "upper",
        "lower",
    ]


def test_triton_asks_for_a_version(seen: dict[str, Any]) -> None:
    assert seen["triton"]["other"]["model_version"] == OTHER


def test_triton_asks_many_times_at_once(seen: dict[str, Any]) -> None:
    assert seen["triton"]["together"] == [[str(number), True] for number in range(16)]


def test_triton_sends_missing_values(seen: dict[str, Any]) -> None:
    assert seen["triton"]["missing_value"]["expected_return"] == [0.0]


def test_triton_understands_errors(seen: dict[str, Any]) -> None:
    told = {
        "model": ("404", "'absent' is not served"),
        "version": ("404", "'999' is not served"),
        "shape": ("400", "the model reads [-1, 3]"),
        "datatype": ("400", "'BYTES' is not accepted; accepted: FP32"),
        "output": ("400", "'logits' is none of the model's"),
        "rows": ("413", "at most 16 are taken"),
        "packed": ("415", "'gzip'"),
        "metadata": ("404", "'absent' is not served"),
        "index": ("404", "/v2/repository/index"),
        "load": ("404", f"/v2/repository/models/{MODEL}/load"),
    }
    errors = seen["triton"]["errors"]
    assert errors.keys() == told.keys()
    for name, (status, message) in told.items():
        assert errors[name][0] == status, errors[name]
        assert message in errors[name][1]


def test_triton_without_threads_infers(seen: dict[str, Any]) -> None:
    assert seen["triton_aio"] == EXPECTED


def test_kserve_finds_server_and_model(seen: dict[str, Any]) -> None:
    kserve = seen["kserve"]
    assert kserve["live"] is True
    assert kserve["ready"] is True
    assert kserve["model_ready"] is True
    assert kserve["absent_ready"] is False


def test_kserve_infers(seen: dict[str, Any]) -> None:
    kserve = seen["kserve"]
    assert kserve["binary"] == EXPECTED
    assert kserve["spelled"] == EXPECTED
    assert kserve["chosen"] == {name: EXPECTED[name] for name in ("lower", "probability_up")}
    assert kserve["binary_id"] == "seven"
    assert kserve["binary_source"] == {"source": "simulated", "role": "champion"}


def test_kserve_asks_for_a_version(seen: dict[str, Any]) -> None:
    assert seen["kserve"]["other"]["expected_return"] == (2 * SUMS).tolist()


def test_kserve_understands_errors(seen: dict[str, Any]) -> None:
    assert seen["kserve"]["error"].startswith("the request has no inputs, '400 Bad Request'")
    assert seen["kserve"]["absent"].startswith("model 'absent' is not served")
