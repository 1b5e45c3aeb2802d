"""``POST /predict/features`` over HTTP, beside ``POST /predict`` of the same model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptoml_serving.api import features
from cryptoml_serving.api.problems import ProblemError
from cryptoml_serving.settings import ServingSettings
from tests.serving_client import ROWS, Client, problem, serving, wait, write_usual_features
from tests.serving_world import (
    FEATURES,
    MODEL,
    NOW,
    Published,
    ServingWorld,
    build_templates,
    scaled_program,
)

NAMES = [each.name for each in FEATURES]
PATH = "/predict/features"
MOST = 40


@pytest.fixture
def own(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    """A test's own, in which nothing is published yet."""
    return usual(tmp_path, tmp_path_factory)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Published]]:
    """A service with a champion and a canary, for tests that change nothing."""
    world = usual(tmp_path_factory.mktemp("explicit"), tmp_path_factory)
    champion = world.publish()
    canary = world.publish(role="canary", percent=5)
    assert (champion.version, canary.version) == ("1", "2")
    with serving(world, serving_max_rows=MOST) as client:
        client.wait_ready()
        wait(lambda: client.post(PATH, json={**named((1.0, 2.0, 3.0)), "version": "2"}).is_success)
        yield client, champion


def usual(home: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingWorld:
    world = ServingWorld(home, build_templates(tmp_path_factory.getbasetemp()))
    write_usual_features(world)
    return world


def named(*rows: tuple[Any, ...]) -> dict[str, Any]:
    return {"rows": [dict(zip(NAMES, row, strict=True)) for row in rows]}


def matrix(*rows: tuple[Any, ...]) -> dict[str, Any]:
    """The same with the columns the other way round."""
    return {"columns": NAMES[::-1], "matrix": [row[::-1] for row in rows]}


def test_rows_are_predicted_by_the_champion(steady: tuple[Client, Published]) -> None:
    client, published = steady
    answer = client.post(PATH, json=named((0.1, 0.2, 0.3), (-1.0, None, 0.25))).json()
    first, second = answer.pop("predictions")
    assert first == pytest.approx(
        {
            "prediction": 0.6,
            "lower": 0.1,
            "upper": 1.1,
            "probability_up": 0.6456563,
            "confidence": 0.6456563,
        },
        abs=1e-6,
    )
    assert second["prediction"] == -0.75
    assert second["confidence"] == 1 - second["probability_up"]
    assert datetime.fromisoformat(answer.pop("timestamp")) == NOW
    assert answer == {
        "horizon_seconds": 3600,
        "model_name": MODEL,
        "model_version": published.version,
        "role": "champion",
        "source": "simulated",
    }


@pytest.mark.parametrize("shape", [named, matrix])
@pytest.mark.parametrize("company", [0, 1, 6, MOST - 1])
def test_features_of_a_symbol_get_the_answer_of_the_symbol_to_the_bit(
    steady: tuple[Client, Published], shape: Any, company: int
) -> None:
    client, _ = steady
    others = [(float(number), 0.5, None) for number in range(company)]
    for symbol, row in ROWS.items():
        known = client.ask(symbol).json()
        if known["role"] != "champion":
            continue
        (*_, answer) = client.post(PATH, json=shape(*others, row)).json()["predictions"]
        assert answer == {name: known[name] for name in answer}


def test_a_version_can_be_chosen(steady: tuple[Client, Published]) -> None:
    client, champion = steady
    body = named((0.1, 0.2, 0.3))
    answer = client.post(PATH, json={**body, "version": "2"}).json()
    assert (answer["model_version"], answer["role"]) == ("2", "canary")
    assert client.post(PATH, json={**body, "version": champion.version}).is_success
    assert client.post(PATH, json={**body, "version": None}).is_success
    members = problem(client.post(PATH, json={**body, "version": "9"}), 404, "unknown-version")
    assert "'9'" in members["detail"]


@pytest.mark.parametrize(
    ("body", "where", "why"),
    [
        (b"", "body", "not JSON"),
        (b"[]", "body", "no object"),
        (b"{}", "body", "either rows"),
        (b'{"rows": []}', "body/rows", "at least one row"),
        (b'{"rows": {}}', "body/rows", "at least one row"),
        (b'{"rows": [7]}', "body/rows/0", "no object"),
        (b'{"rows": [{}]}', "body/rows/0/log_return_1", "the model reads this column"),
        (b'{"rows": [[1, 2, 3]]}', "body/rows/0", "no object"),
        ({**named((1, 2, 3)), "more": 1}, "body/more", "no such member"),
        ({**named((1, 2, 3)), "columns": NAMES}, "body", "either rows"),
        ({**named((1, 2, 3)), **matrix((1, 2, 3))}, "body", "either rows"),
        ({**named((1, 2, 3)), "version": 1}, "body/version", "no string"),
        ({"matrix": [[1, 2, 3]]}, "body", "either rows"),
        (named((1, 2, 3), (1, "2", 3)), "body/rows/1/sma_gap_5", "neither a number nor null"),
        (named((1, True, 3)), "body/rows/0/sma_gap_5", "neither a number nor null"),
        (named((1, [2], 3)), "body/rows/0/sma_gap_5", "neither a number nor null"),
        (named((1, 1e39, 3)), "body/rows/0/sma_gap_5", "too large"),
        (matrix((-1e39, 2, 3)), "body/matrix/0/log_return_1", "too large"),
        (b'{"rows": [{"log_return_1": NaN}]}', "body", "not JSON"),
        ({"columns": "abc", "matrix": [[1, 2, 3]]}, "body/columns", "list of names"),
        ({"columns": [1, 2, 3], "matrix": [[1, 2, 3]]}, "body/columns", "list of names"),
        ({"columns": [*NAMES, NAMES[0]], "matrix": [[1] * 4]}, "body/columns", "named twice"),
        ({"columns": NAMES, "matrix": [[1, 2]]}, "body/matrix/0", "list of 3"),
        ({"columns": NAMES, "matrix": [[1, 2, 3], 4]}, "body/matrix/1", "list of 3"),
        ({"columns": NAMES, "matrix": [[1, 2, "3"]]}, "body/matrix/0/mvrv_ratio", "neither"),
    ],
)
def test_what_is_wrong_is_named(
    steady: tuple[Client, Published], body: Any, where: str, why: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = steady[0].post(PATH, content=content)
    (reason, *_) = problem(answer, 422, "invalid-request")["errors"]
    assert reason["location"] == where
    assert why in reason["reason"]


def test_unknown_and_missing_columns_are_all_named(steady: tuple[Client, Published]) -> None:
    wrong = {"log_return_1": 1.0, "sma_gap_6": 2.0, "x" * 500: 3.0}
    good = dict.fromkeys(NAMES, 1.0)
    for body in (
        {"rows": [good, wrong]},
        {"columns": [*wrong], "matrix": [[1.0, 2.0, 3.0]]},
    ):
        members = problem(steady[0].post(PATH, json=body), 422, "invalid-request")
        at = "body/rows/1" if "rows" in body else "body/columns"
        places = [each["location"] for each in members["errors"]]
        assert places == [
            f"{at}/sma_gap_6",
            f"{at}/{'x' * 64}...",
            f"{at}/sma_gap_5",
            f"{at}/mvrv_ratio",
        ]


def test_only_some_of_many_names_are_told(steady: tuple[Client, Published]) -> None:
    for count, told in ((7, 7), (12, 8)):
        names = [f"n{number}" for number in range(count)]
        for body in (
            {"rows": [dict.fromkeys(names, 1.0)]},
            {"columns": names, "matrix": [[1.0] * count]},
        ):
            members = problem(steady[0].post(PATH, json=body), 422, "invalid-request")
            places = [each["location"].rpartition("/")[2] for each in members["errors"]]
            assert places == [*names, *NAMES][:8]
            assert len(set(names) & set(places)) == told


class Uncounted(list[Any]):
    """Names that nobody is to go through."""

    def __iter__(self) -> Iterator[Any]:
        message = "went through all names"
        raise AssertionError(message)


class UncountedRow(dict[str, Any]):
    """The same as a row."""

    def __iter__(self) -> Iterator[Any]:
        message = "went through all names"
        raise AssertionError(message)


@pytest.mark.parametrize("known", [True, False])
def test_names_beyond_number_are_counted_and_no_more(known: bool) -> None:
    """Else one body keeps everybody waiting."""
    names = NAMES * 1000 if known else [f"n{number}" for number in range(3000)]
    row = UncountedRow({f"n{number}": 1.0 for number in range(3000)})
    for asked, at in (
        ({"columns": Uncounted(names), "matrix": [[1.0]]}, "body/columns"),
        ({"rows": [row]}, "body/rows/0"),
    ):
        with pytest.raises(ProblemError) as refused:
            features._values(asked, tuple(NAMES), MOST)
        assert refused.value.detail == f"{at}: it has 3000 names; the model has 3 columns"


def test_a_request_has_a_largest_number_of_rows(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    rows = [(1.0, 2.0, 3.0)] * MOST
    assert len(client.post(PATH, json=named(*rows)).json()["predictions"]) == MOST
    for shape in (named, matrix):
        members = problem(client.post(PATH, json=shape(*rows, rows[0])), 413, "too-large")
        assert f"at most {MOST}" in members["detail"]


def test_other_methods_and_the_document(steady: tuple[Client, Published]) -> None:
    client, _ = steady
    assert client.get(PATH).status_code == 405
    operation = client.get("/openapi.json").json()["paths"][PATH]["post"]
    assert {"200", "404", "413", "422", "503"} <= operation["responses"].keys()


def test_a_model_that_answers_no_number_answers_no_row(own: ServingWorld) -> None:
    """Nor does a body that is right make the service fail."""
    from tests.serving_world import numberless_program  # noqa: PLC0415 - imports jax

    own.publish()
    run, digest = own.log_bundle(program=numberless_program())
    version = own.register(run, digest)
    artifacts = own.home / "artifacts" / run / "artifacts"
    own.place(Published(version, run, digest, artifacts), "shadow")
    with serving(own) as client:
        body = {**named((1.0, 2.0, 3.0)), "version": version}
        wait(lambda: client.post(PATH, json=body).status_code == 422)
        for sent, at in (
            (body, "rows"),
            ({**matrix((1.0, 2.0, 3.0)), "version": version}, "matrix"),
        ):
            members = problem(client.post(PATH, json=sent), 422, "invalid-request")
            (reason,) = members["errors"]
            assert reason["location"] == f"body/{at}/0"
            assert "no prediction" in reason["reason"]


def test_before_a_model_is_loaded(own: ServingWorld) -> None:
    with serving(own) as client:
        answer = client.post(PATH, json=named((1.0, 2.0, 3.0)))
        problem(answer, 503, "not-ready")
        assert int(answer.headers["retry-after"]) >= 1
        # Which versions there will be is not known yet.
        chosen = client.post(PATH, json={**named((1.0, 2.0, 3.0)), "version": "1"})
        assert problem(chosen, 503, "not-ready")["detail"] == answer.json()["detail"]
        assert int(chosen.headers["retry-after"]) >= 1


def mixed(client: Client, seed: int, answered: list[tuple[str, bool]]) -> None:
    """Requests of many sizes and both kinds; what answered each, and whether rightly."""
    rng = np.random.default_rng(seed)
    for count in (1, 3, 70, 2, 9, 512, 1, 65, 30):
        rows = [tuple(row) for row in rng.normal(0, 1, (count, 3)).round(3).tolist()]
        answer = client.post(PATH, json=(named, matrix)[count % 2](*rows))
        assert answer.status_code == 200, answer.text
        sums = np.array([each["prediction"] for each in answer.json()["predictions"]])
        right = bool(np.allclose(sums, np.sum(rows, axis=1), atol=1e-5))
        answered.append((answer.json()["model_version"], right))
        assert client.ask("BTC/USDT").status_code == 200


def test_nothing_is_compiled_after_ready_but_for_the_next_model(own: ServingWorld) -> None:
    """Mixed requests from several threads, before, during and after a swap."""
    # A program that no other service of this process has.
    program = scaled_program(1.0 + 2**-22)
    first = own.publish(program=program)
    answered: list[tuple[str, bool]] = []
    with serving(own) as client:
        client.wait_ready()
        ready = client.metric("compilations_total")
        assert ready >= len(ServingSettings().serving_batch_sizes)
        together(client, answered, client.base_url)
        assert client.metric("compilations_total") == ready
        assert client.metric("serving_device", device="cpu") == 1
        assert client.metric("batch_rows_count") > 0
        assert {version for version, _ in answered} == {first.version}
        second = own.publish(program=program)
        wait(lambda: answered_by(client) == second.version)
        together(client, answered, client.base_url)
        # It is the program of the first.
        assert client.metric("compilations_total") == ready
        third = own.publish(program=scaled_program(1.0 + 2**-23))
        wait(lambda: answered_by(client) == third.version)
        swapped = client.metric("compilations_total")
        assert swapped > ready
        together(client, answered, client.base_url)
        assert client.metric("compilations_total") == swapped
        rows = client.metric("explicit_rows_total", model_version=second.version)
        assert rows >= 4 * 600
    assert all(right for _, right in answered)
    assert answered[-1][0] == third.version


def answered_by(client: Client) -> str:
    version: str = client.post(PATH, json=named((1.0, 2.0, 3.0))).json()["model_version"]
    return version


def together(client: Client, answered: list[tuple[str, bool]], url: Any) -> None:
    def one(seed: int) -> None:
        with Client(base_url=url) as own:
            mixed(own, seed, answered)

    before = len(answered)
    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(answered) == before + 4 * 9
