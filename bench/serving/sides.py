"""Every side, started, and seen to give the same answers to the same rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.processes import ready, worker
from bench.serving.servers import HOST, ServerError, Servers, Side
from bench.serving.world import COLUMNS, SYMBOLS, Model, World, body, make_world
from cryptoml_assets.operations.processes import free_port

_WORKERS = Path(__file__).parent / "workers"
#: Programs of one model, compiled for other numbers of rows, differ in the last bits.
_CLOSE = 1e-5


@dataclass(frozen=True)
class Ours:
    """Our service, as shipped: keys, rate limits, request ids, metrics and logs are on."""

    world: World
    by_symbol: Side
    by_features: Side
    reload: Side


def start_ours(servers: Servers, model: Model) -> Ours:
    """Our service and what it reads."""
    port, admin_port = free_port(HOST), free_port(HOST)
    world = make_world(servers.folder, model, port, admin_port)
    credential = {"Authorization": f"Bearer {world.key}"}
    by_symbol = Side(
        "ours by symbol",
        port,
        "/predict",
        bodies=tuple(body({"symbol": symbol}) for symbol in SYMBOLS),
        headers=credential,
        check=_checked(model, lambda answer: {"expected_return": [answer["prediction"]]}),
    )
    by_features = Side(
        "ours by features",
        port,
        "/predict/features",
        bodies=named_rows(model),
        headers=credential,
        check=_checked(model, _of_rows),
    )
    reload = Side(
        "ours, told to look",
        admin_port,
        "/admin/reload",
        headers={"Authorization": f"Bearer {world.admin_key}"},
    )
    servers.start("ours", [sys.executable, "-m", "cryptoml_serving"], by_symbol, world.variables())
    return Ours(world, by_symbol, by_features, reload)


def start_route(servers: Servers, name: str, side: Side, **files: str | Path) -> Side:
    """One of the routes of ``workers/routes.py``."""
    command: list[str | Path] = [sys.executable, _WORKERS / "routes.py", str(side.port), name]
    servers.start(name, command, side, {key: str(value) for key, value in files.items()})
    return side


def start_empty(servers: Servers) -> Side:
    """The empty FastAPI route."""
    return start_route(servers, "empty", Side("empty route", free_port(HOST), "/", method="GET"))


def start_bare(servers: Servers, ours: Ours) -> Side:
    """Bare ASGI that knows our answers by heart."""
    file = servers.folder / "answers.json"
    answer = ours.by_symbol.ask().decode()
    file.write_text(json.dumps(dict.fromkeys(SYMBOLS, answer)))
    side = Side("bare route", free_port(HOST), "/", bodies=ours.by_symbol.bodies)
    return start_route(servers, "bare", side, ANSWERS=file)


def start_naive(servers: Servers, model: Model) -> Side:
    """FastAPI and JAX, one call a request."""
    file = servers.folder / "columns.json"
    file.write_text(json.dumps(COLUMNS))
    side = Side(
        "naive route",
        free_port(HOST),
        "/predict",
        bodies=named_rows(model),
        check=_checked(model, lambda answer: answer),
    )
    return start_route(servers, "naive", side, PROGRAM=model.program, COLUMNS=file)


def start_mlflow(servers: Servers, model: Model) -> Side:
    """``mlflow models serve`` with the same program.

    Raises:
        MissingPeerError: it cannot be installed here.
    """
    programs = ready("serving")
    saved = servers.folder / "mlflow-model"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "JAX_PLATFORMS": "cpu"}
    script = _WORKERS / "save_mlflow.py"
    worker(script, model.program, saved, python=programs / "python", variables=quiet)
    side = Side(
        "mlflow models serve",
        free_port(HOST),
        "/invocations",
        bodies=tuple(body({"inputs": [row]}) for row in _numbers(model)),
        check=_checked(model, lambda answer: answer["predictions"]),
    )
    command: list[str | Path] = [
        *(programs / "mlflow", "models", "serve", "--model-uri", saved, "--env-manager", "local"),
        *("--workers", "1", "--port", str(side.port)),
    ]
    servers.start("mlflow", command, side, {**quiet, **_path(programs)})
    return side


def start_bento(servers: Servers, model: Model) -> Side:
    """BentoML with the same program.

    Raises:
        MissingPeerError: it cannot be installed here.
    """
    programs = ready("serving")
    side = Side(
        "BentoML",
        free_port(HOST),
        "/predict",
        bodies=tuple(body({"features": [row]}) for row in _numbers(model)),
        check=_checked(model, lambda answer: answer),
    )
    command: list[str | Path] = [
        *(programs / "bentoml", "serve", "bento_service:Exported", "--working-dir", _WORKERS),
        *("--host", "127.0.0.1", "--port", str(side.port)),
    ]
    variables = {
        "PROGRAM": str(model.program),
        "BENTOML_HOME": str(servers.folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        **_path(programs),
    }
    servers.start("bentoml", command, side, variables)
    return side


def named_rows(model: Model) -> tuple[str, ...]:
    """One body a symbol, with one row of named values: what ours and the naive route read."""
    return tuple(body({"rows": [dict(zip(COLUMNS, row, strict=True))]}) for row in _numbers(model))


def _numbers(model: Model) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in model.rows]


def _path(programs: Path) -> dict[str, str]:
    """Peers start further programs of their own by name, and import nothing of ours."""
    return {"PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": ""}


def _of_rows(answer: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, list[float]]:
    return {"expected_return": [row["prediction"] for row in answer["predictions"]]}


def _checked(
    model: Model, read: Callable[..., Mapping[str, Sequence[float]]]
) -> Callable[[bytes], None]:
    """Refuses an answer to the first row that is not the program's own."""

    def check(answer: bytes) -> None:
        outputs = read(json.loads(answer))
        for name, values in outputs.items():
            expected = model.expected[name][:1]
            if not np.allclose(values, expected, rtol=_CLOSE, atol=1e-7):
                message = f"{name} is {values}, the program says {expected}: {answer[:300]!r}"
                raise ServerError(message)

    return check
