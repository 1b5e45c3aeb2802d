"""Applications that ours is compared with, on the same server: routes.py PORT NAME.

``empty``: a FastAPI route that answers ``{}``. ``bare``: ASGI alone, that reads ``{"symbol": ...}``
and sends bytes which were serialised before. ``naive``: a FastAPI route over explicit features,
written the way its documentation would have it, that calls JAX for every request.

``ANSWERS`` is a JSON file with the bare route's answer by symbol, ``PROGRAM`` the exported program
and ``COLUMNS`` a JSON file with its columns. Imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from granian import Granian
from granian.constants import Interfaces
from pydantic import BaseModel


def empty() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def nothing() -> dict[str, str]:
        return {}

    return app


def bare() -> Callable[..., Awaitable[None]]:
    import orjson  # noqa: PLC0415 - the other routes do without

    text = json.loads(Path(os.environ["ANSWERS"]).read_text())
    answers = {symbol: answer.encode() for symbol, answer in text.items()}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        message = await receive()
        answer = answers[orjson.loads(message["body"])["symbol"]]
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


class Rows(BaseModel):
    """What the naive route reads."""

    rows: list[dict[str, float | None]]


def naive() -> FastAPI:
    import jax  # noqa: PLC0415 - the other routes do without
    import numpy as np  # noqa: PLC0415
    from jax import export  # noqa: PLC0415

    exported = export.deserialize(bytearray(Path(os.environ["PROGRAM"]).read_bytes()))
    columns = json.loads(Path(os.environ["COLUMNS"]).read_text())
    program = jax.jit(exported.call)
    app = FastAPI()

    @app.post("/predict")
    async def predict(body: Rows) -> dict[str, list[float]]:
        table = np.array([[row[name] for name in columns] for row in body.rows], np.float32)
        answer = program(table)
        return {name: np.asarray(values).tolist() for name, values in answer.items()}

    return app


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def main() -> None:
    port, name = sys.argv[1:]
    Granian(
        f"{Path(__file__).stem}:{name}",
        factory=True,
        working_dir=Path(__file__).parent,
        address="127.0.0.1",
        port=int(port),
        interface=Interfaces.ASGI,
        workers=1,
        websockets=False,
    ).serve()


if __name__ == "__main__":
    main()
