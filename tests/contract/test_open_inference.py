"""The Open Inference Protocol over HTTP: metadata, health, versions, tensors and errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoml_serving.app import create_app
from cryptoml_serving.security.keys import add_key
from cryptoml_serving.security.roles import Role
from tests.sandbox_server import serve
from tests.serving_client import Client, problem, serving, wait, write_usual_features
from tests.serving_world import (
    FEATURES,
    MODEL,
    NOW,
    Published,
    ServingWorld,
    build_templates,
    scaled_program,
)

NAMES = [feature.name for feature in FEATURES]
OUTPUTS = ["expected_return", "lower", "upper", "probability_up"]
ROWS = [[0.25, 0.5, -1.0], [1.0, 2.0, 3.0]]
SUMS = [-0.25, 6.0]
MOST_ROWS = 16
MOST_BYTES = 65536
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    templates = build_templates(tmp_path_factory.getbasetemp())
    world = ServingWorld(tmp_path_factory.mktemp("open-inference"), templates)
    write_usual_features(world)
    return world


@pytest.fixture(scope="module")
def served(world: ServingWorld) -> Iterator[tuple[Client, Published, Published]]:
    """A champion that answers the sum of the features, and a shadow that answers twice that."""
    champion = world.publish()
    shadow = world.publish(role="shadow", program=scaled_program(2.0))
    with serving(world, serving_max_rows=MOST_ROWS, serving_max_body=MOST_BYTES) as client:
        client.wait_ready()
        wait(lambda: client.get(f"{ready(shadow)}").status_code == 200)
        yield client, champion, shadow


def ready(published: Published) -> str:
    return f"/v2/models/{MODEL}/versions/{published.version}/ready"


def table(values: Any = ROWS, **more: Any) -> dict[str, Any]:
    shape = list(np.shape(values))
    return {
        "inputs": [{"name": "features", "shape": shape, "datatype": "FP32", "data": values}],
        **more,
    }


def error(response: httpx.Response, status: int, told: str) -> httpx.Response:
    """Check that this is an error as the protocol has it: one member, and the status says it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    members = response.json()
    assert members.keys() == {"error"}
    assert told in members["error"]
    return response


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_metadata(served: tuple[Client, Published, Published], path: str) -> None:
    assert served[0].get(path).json() == {
        "name": "cryptoml inference",
        "version": installed_version("cryptoml"),
        "extensions": ["binary_tensor_data"],
    }


def test_health(served: tuple[Client, Published, Published]) -> None:
    client, champion, shadow = served
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in (f"/v2/models/{MODEL}/ready", ready(champion), ready(shadow)):
        assert client.get(path).json() == {"ready": True, "name": MODEL}
    error(client.get("/v2/models/absent/ready"), 404, f"'absent' is not served; served: {MODEL}")
    error(client.get(f"/v2/models/{MODEL}/versions/77/ready"), 404, "'77' is not served; served: ")


def test_model_metadata(served: tuple[Client, Published, Published]) -> None:
    client, champion, shadow = served
    found = client.get(f"/v2/models/{MODEL}").json()
    assert found == {
        "name": MODEL,
        "versions": [champion.version, shadow.version],
        "platform": "jax_stablehlo",
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in OUTPUTS],
        "parameters": {
            "version": champion.version,
            "features": ",".join(NAMES),
            "horizon_seconds": 3600,
            "source": "simulated",
            "bundle_digest": champion.digest,
        },
    }
    other = client.get(f"/v2/models/{MODEL}/versions/{shadow.version}").json()
    assert other["parameters"]["bundle_digest"] == shadow.digest
    error(client.get("/v2/models/absent"), 404, "'absent' is not served")
    error(client.get(f"/v2/models/{MODEL}/versions/77"), 404, "'77' is not served")


def test_rows_as_json(served: tuple[Client, Published, Published]) -> None:
    client, champion, _ = served
    response = client.post(INFER, json=table(id="forty-two"))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in response.headers
    answer = response.json()
    outputs = {each["name"]: each for each in answer.pop("outputs")}
    assert answer == {
        "model_name": MODEL,
        "model_version": champion.version,
        "id": "forty-two",
        "parameters": {"source": "simulated", "role": "champion"},
    }
    assert list(outputs) == OUTPUTS
    assert all(each["shape"] == [2] and each["datatype"] == "FP32" for each in outputs.values())
    assert outputs["expected_return"]["data"] == SUMS
    assert outputs["lower"]["data"] == [each - 0.5 for each in SUMS]
    assert outputs["probability_up"]["data"] == pytest.approx(
        [1 / (1 + np.exp(-each)) for each in SUMS], abs=1e-6
    )


def test_no_id_is_made_up(served: tuple[Client, Published, Published]) -> None:
    assert "id" not in served[0].post(INFER, json=table()).json()


def test_binary_there_and_back(served: tuple[Client, Published, Published]) -> None:
    client, _, _ = served
    array = np.array(ROWS, "<f8")
    given_input = {
        "name": "features",
        "shape": [2, 3],
        "datatype": "FP64",
        "parameters": {"binary_data_size": array.nbytes},
    }
    outputs = [
        {"name": "upper", "parameters": {"binary_data": True}},
        {"name": "lower"},
        {"name": "expected_return", "parameters": {"binary_data": True}},
    ]
    head = json.dumps({"id": "é", "inputs": [given_input], "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = client.post(INFER, content=head + array.tobytes(), headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    assert int(response.headers["content-length"]) == len(response.content) == length + 16
    answer = json.loads(response.content[:length])
    assert answer["id"] == "é"
    assert answer["outputs"] == [
        {"name": name, "shape": [2], "datatype": "FP32", **more}
        for name, more in (
            ("upper", {"parameters": {"binary_data_size": 8}}),
            ("lower", {"data": [each - 0.5 for each in SUMS]}),
            ("expected_return", {"parameters": {"binary_data_size": 8}}),
        )
    ]
    values = np.frombuffer(response.content[length:], "<f4").tolist()
    assert values == [*(each + 0.5 for each in SUMS), *SUMS]


def test_a_feature_each(served: tuple[Client, Published, Published]) -> None:
    columns = [
        {"name": name, "shape": [2, 1], "datatype": "FP64", "data": [row[place] for row in ROWS]}
        for place, name in reversed(list(enumerate(NAMES)))
    ]
    wanted = [{"name": "expected_return"}]
    answer = served[0].post(INFER, json={"inputs": columns, "outputs": wanted}).json()
    assert [each["data"] for each in answer["outputs"]] == [SUMS]


def test_a_version_is_the_one_asked_for(served: tuple[Client, Published, Published]) -> None:
    client, champion, shadow = served
    for published, factor, role in ((champion, 1, "champion"), (shadow, 2, "shadow")):
        path = f"/v2/models/{MODEL}/versions/{published.version}/infer"
        answer = client.post(path, json=table()).json()
        assert answer["model_version"] == published.version
        assert answer["parameters"]["role"] == role
        assert answer["outputs"][0]["data"] == [factor * each for each in SUMS]
    path = f"/v2/models/{MODEL}/versions/77/infer"
    error(client.post(path, json=table()), 404, "'77' is not served")
    error(client.post("/v2/models/absent/infer", json=table()), 404, "'absent' is not served")


def test_answers_are_those_of_the_other_route(
    served: tuple[Client, Published, Published],
) -> None:
    client, _, _ = served
    values = np.random.default_rng(7).normal(size=(MOST_ROWS, 3)).astype(np.float32)
    protocol = client.post(INFER, json=table(values.tolist())).json()["outputs"]
    sent = {"columns": NAMES, "matrix": values.tolist()}
    own = client.post("/predict/features", json=sent).json()["predictions"]
    assert protocol[0]["data"] == [np.float32(each["prediction"]) for each in own]
    assert protocol[3]["data"] == [np.float32(each["probability_up"]) for each in own]


def test_rows_and_bytes_have_a_limit(served: tuple[Client, Published, Published]) -> None:
    client, _, _ = served
    assert client.post(INFER, json=table([ROWS[0]] * MOST_ROWS)).status_code == 200
    tall = table([ROWS[0]] * (MOST_ROWS + 1))
    error(client.post(INFER, json=tall), 413, f"{MOST_ROWS + 1} rows; at most {MOST_ROWS}")
    error(client.post(INFER, content=b" " * (MOST_BYTES + 1)), 413, f"at most {MOST_BYTES} bytes")


def test_requests_that_cannot_be_used(served: tuple[Client, Published, Published]) -> None:
    client, _, _ = served
    before = client.metric("prediction_errors_total", error_type="invalid-request")
    error(client.post(INFER, content=b"{"), 400, "no JSON")
    error(client.post(INFER, json=table([[1, 2]])), 400, "the model reads [-1, 3]")
    error(client.post(INFER, json=table(outputs=[{"name": "logits"}])), 400, ", ".join(OUTPUTS))
    after = client.metric("prediction_errors_total", error_type="invalid-request")
    assert after == before + 3


def test_packed_bodies_are_refused(served: tuple[Client, Published, Published]) -> None:
    packed = served[0].post(INFER, json=table(), headers={"content-encoding": "gzip"})
    assert error(packed, 415, "'gzip'").headers["accept-encoding"] == "identity"


def test_what_is_not_there_says_so_in_the_protocols_shape(
    served: tuple[Client, Published, Published],
) -> None:
    client, _, _ = served
    error(client.post("/v2/repository/index"), 404, "/v2/repository/index")
    error(client.get(INFER), 405, INFER)
    error(client.get("/v2/%ff%ed%a0%80"), 404, "/v2/")
    problem(client.get("/v20"), 404, "about:blank")


def test_the_document_tells_of_it(served: tuple[Client, Published, Published]) -> None:
    paths = served[0].get("/openapi.json").json()["paths"]
    operation = paths["/v2/models/{name}/versions/{version}/infer"]["post"]
    assert {"200", "400", "404", "413", "503", "default"} <= operation["responses"].keys()
    assert "422" not in operation["responses"]
    assert {each["name"] for each in operation["parameters"]} == {
        "name",
        "version",
        "Inference-Header-Content-Length",
    }
    both = {"application/json", "application/octet-stream"}
    assert operation["requestBody"]["content"].keys() == both
    assert operation["responses"]["200"]["content"].keys() == both


@settings(deadline=None, max_examples=60)
@given(
    head=st.dictionaries(
        st.sampled_from(["inputs", "outputs", "id", "parameters"]),
        st.lists(
            st.dictionaries(
                st.sampled_from(["name", "shape", "datatype", "data", "parameters"]),
                st.sampled_from(["features", "FP32", [1, 3], [2**40], [1.0, None, 3], {}])
                | st.integers(),
            )
        )
        | st.text(max_size=4),
    ),
    tail=st.binary(max_size=40),
    length=st.integers(0, 200) | st.none(),
)
def test_no_body_is_the_services_fault(
    served: tuple[Client, Published, Published], head: Any, tail: bytes, length: int | None
) -> None:
    document = json.dumps(head).encode()
    header = str(len(document) if length is None else length)
    sent = {"Inference-Header-Content-Length": header}
    response = served[0].post(INFER, content=document + tail, headers=sent)
    if response.status_code != 200:
        error(response, 400, "")


def test_whoever_may_not_ask_is_told_in_the_protocols_shape(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    templates = build_templates(tmp_path_factory.getbasetemp())
    world = ServingWorld(tmp_path_factory.mktemp("locked"), templates)
    write_usual_features(world)
    world.publish()
    keys = world.folder / "keys.json"
    key = add_key(keys, "caller", roles=[Role.PREDICT], rate=1.0, now=NOW)
    with serving(world, serving_keys=keys) as client:
        wait(lambda: client.get("/v2/health/ready").status_code == 200)
        assert error(client.post(INFER, json=table()), 401, "").headers["www-authenticate"]
        error(client.get("/v2", headers={"x-api-key": "none of them"}), 401, "no such key")
        mine = {"authorization": f"Bearer {key}"}
        assert client.post(INFER, json=table(), headers=mine).json()["outputs"][0]["data"] == SUMS
        answers = [client.post(INFER, json=table(), headers=mine) for _ in range(4)]
        assert int(error(answers[-1], 429, "times a second").headers["retry-after"]) >= 1


def test_without_a_model_nothing_is_ready(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    templates = build_templates(tmp_path_factory.getbasetemp())
    world = ServingWorld(tmp_path_factory.mktemp("nothing-approved"), templates)
    with serving(world) as client:
        assert client.get("/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/ready"):
            assert int(error(client.get(path), 503, "").headers["retry-after"]) >= 1
        error(client.post(INFER, json=table()), 503, "")
        # Which versions there will be is not known yet.
        error(client.get(f"/v2/models/{MODEL}/versions/1/ready"), 503, "")


@pytest.mark.usefixtures("served")
def test_a_service_about_to_stop_is_not_ready_and_still_answers(world: ServingWorld) -> None:
    with serve(app := create_app(world.settings())) as url, Client(base_url=url) as client:
        client.wait_ready()
        app._service.state.draining = True
        ready = client.get("/ready")
        told = problem(ready, 503, "not-ready")["detail"]
        assert told == "the service is about to stop"
        answer = error(client.get("/v2/health/ready"), 503, told)
        assert answer.headers["retry-after"] == ready.headers["retry-after"]
        assert client.get("/v2/health/live").status_code == 200
        assert client.post(INFER, json=table()).status_code == 200
        assert client.metric("prediction_errors_total") == 0


def test_a_request_is_answered_by_one_version_while_another_takes_over(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    templates = build_templates(tmp_path_factory.getbasetemp())
    world = ServingWorld(tmp_path_factory.mktemp("swapped"), templates)
    write_usual_features(world)
    first = world.publish()
    with serving(world) as client:
        client.wait_ready()
        seen: list[tuple[str, list[float]]] = []
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=client.base_url) as own:
                while not done.is_set():
                    answer = own.post(INFER, json=table()).raise_for_status().json()
                    seen.append((answer["model_version"], answer["outputs"][0]["data"]))

        asking = threading.Thread(target=ask)
        asking.start()
        wait(lambda: bool(seen))
        second = world.publish(program=scaled_program(2.0))
        wait(lambda: bool(seen) and seen[-1][0] == second.version)
        done.set()
        asking.join()
        doubled = [2 * each for each in SUMS]
        assert {(version, tuple(values)) for version, values in seen} == {
            (first.version, tuple(SUMS)),
            (second.version, tuple(doubled)),
        }
