"""Forks the processes of a loop: what takes seconds to import is imported once.

    python -m tests.chaos.loop_zygote SOCKET LOGS

One JSON object a connection: ``{"do": "start", "role": ..., "name": ..., "argument": ...}``,
``alive``, ``kill`` or ``names``. Its children die with it, and it with who started it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_HEAVY = (
    *("cryptoml_assets.definitions", "cryptoml_assets.operations.loop_watch"),
    *("cryptoml_assets.models.candidates", "cryptoml_assets.models.registration"),
    *("cryptoml_assets.models.figures", "cryptoml_assets.features.online"),
    *("cryptoml_serving.app", "mlflow", "feast", "jax", "deltalake", "uvicorn", "httpx"),
)


def ask(path: Path, **question: Any) -> Any:
    """Ask the zygote that listens at ``path``."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as answer:
            return json.loads(answer.readline())


class Zygote:
    def __init__(self, path: Path, logs: Path) -> None:
        self._path = path
        self._logs = logs
        self._children: dict[str, int] = {}

    def serve(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._path))
            listener.listen(16)
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rwb") as stream:
                    question = json.loads(stream.readline())
                    if question["do"] == "start":
                        answer = self._start(question, listener, connection)
                    else:
                        answer = self._answer(question)
                    stream.write(json.dumps(answer).encode() + b"\n")

    def _answer(self, question: dict[str, Any]) -> Any:
        self._reap()
        if question["do"] == "names":
            return list(self._children)
        pid = self._children.get(question["name"])
        if question["do"] == "alive" or pid is None:
            return pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return self._children.pop(question["name"], None) is not None

    def _reap(self) -> None:
        for name, pid in list(self._children.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._children[name]

    def _start(self, question: dict[str, Any], *sockets: socket.socket) -> int:
        pid = os.fork()
        if pid:
            self._children[question["name"]] = pid
            return pid
        for each in sockets:
            each.close()
        status = 1
        try:
            _die_with_parent()
            log = os.open(
                self._logs / f"{question['role']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND
            )
            os.dup2(log, 1)
            os.dup2(log, 2)
            _ROLES[question["role"]](question["argument"], self._path)
            status = 0
        except BaseException:  # noqa: BLE001 - the end of a process, told in its log
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _daemon(_: str, zygote: Path) -> None:
    """Evaluates sensors and has runs started, as Dagster's daemon does, until it is killed."""
    import dagster as dg  # noqa: PLC0415

    from cryptoml_assets.operations.loop_watch import Watch  # noqa: PLC0415

    def launch(run_id: str) -> None:
        ask(zygote, do="start", role="run", name=run_id, argument=run_id)

    with dg.DagsterInstance.get() as instance:
        watch = Watch(instance, launch, lambda run_id: bool(ask(zygote, do="alive", name=run_id)))
        while True:
            watch.recover()
            watch.tick()
            time.sleep(0.1)


def _run(run_id: str, _: Path) -> None:
    import dagster as dg  # noqa: PLC0415

    from cryptoml_assets.operations.loop_watch import Watch  # noqa: PLC0415

    with dg.DagsterInstance.get() as instance:
        Watch(instance).perform(run_id)


def _serving(port: str, _: Path) -> None:
    import uvicorn  # noqa: PLC0415

    from cryptoml_serving.app import create_app  # noqa: PLC0415

    uvicorn.run(create_app(), host="127.0.0.1", port=int(port), log_level="warning")


_ROLES = {"daemon": _daemon, "run": _run, "serving": _serving}


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    _die_with_parent()
    path, logs = map(Path, sys.argv[1:])
    from cryptoml_serving.contract.registry import MLFLOW_ENVIRONMENT  # noqa: PLC0415

    os.environ.update(MLFLOW_ENVIRONMENT)
    for name in _HEAVY:
        importlib.import_module(name)
    # The gate judges what can be served; trees take most of a run here, and never can.
    comparison = importlib.import_module("cryptoml_assets.models.comparison_assets")
    comparison.benchmarks = lambda: ()  # type: ignore[attr-defined]
    Zygote(path, logs).serve()


if __name__ == "__main__":
    main()
