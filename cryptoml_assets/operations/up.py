"""The world that stays up: sandbox, Dagster UI, inference API and MLflow UI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptoml_assets.errors import ApprovalError
from cryptoml_assets.operations.demo import (
    Narrator,
    ingest,
    open_world,
    preferred_serving_port,
    start_serving,
    train,
)
from cryptoml_assets.operations.processes import Children, require_port
from cryptoml_assets.operations.world import forget_frozen_instant, sandbox_port, set_environment
from cryptoml_assets.settings import Settings
from cryptoml_serving.contract.registry import MLFLOW_ENVIRONMENT
from cryptoml_serving.contract.settings import World
from cryptoml_serving.security.sockets import admin_ports
from cryptoml_serving.settings import ServingSettings

_HOST = "127.0.0.1"
_START_SECONDS = 120.0


def up(configured: Settings) -> None:
    """Materialise the graph, bring everything up over it, and stay until interrupted.

    Where the gate approves nothing, everything comes up all the same: the Dagster UI shows the
    reasons, and the inference API answers 503 until a model is approved.

    Raises:
        PortInUseError: before anything starts, naming the port's setting.
        ChildError: when a process ends by itself; the others are stopped.
    """
    narrator = Narrator.begin()
    serving_port = preferred_serving_port()
    admin = admin_ports(ServingSettings.load())
    _require_ports(configured, serving_port, admin)
    with Children(configured.home_path / "logs") as children:
        if "CRYPTOML_INFERENCE_URL" not in os.environ:
            address = f"http://{_HOST}:{serving_port}"
            configured = set_environment({"CRYPTOML_INFERENCE_URL": address})
        if "CRYPTOML_INFERENCE_ADMIN_URLS" not in os.environ:
            urls = ",".join(f"http://{_HOST}:{port}" for port in admin)
            configured = set_environment({"CRYPTOML_INFERENCE_ADMIN_URLS": urls})
        configured, world = open_world(configured, children, narrator, freeze=False)
        forget_frozen_instant(configured)
        ingest(configured, world, narrator)
        ready = "ready"
        try:
            train(configured, narrator)
        except ApprovalError as refusal:
            narrator.say(f"[yellow]{refusal}[/yellow]")
            ready = "health"
        addresses = {
            "Dagster UI": start_dagster(children, configured.dagster_port),
            "MLflow UI": _start_mlflow(children, configured),
        }
        serving, addresses["inference API"] = start_serving(children, serving_port, admin.start)
        children.wait_ready(serving, f"{addresses['inference API']}/{ready}", _START_SECONDS)
        if admin:
            addresses["admin routes"] = f"http://{_HOST}:{admin.start}"
        addresses["metrics"] = _start_exporter(children, configured)
        if configured.world is not World.LIVE:
            addresses["sandbox world"] = configured.sandbox_url
        for name, address in addresses.items():
            narrator.console.print(f"  {name:14} {address}")
        narrator.console.print("Ctrl-C stops everything.")
        try:
            children.watch()
        except KeyboardInterrupt:
            narrator.say("stopping ...")
    narrator.say("stopped")


def _require_ports(configured: Settings, serving_port: int, admin: range) -> None:
    if configured.world is not World.LIVE:
        require_port("port of CRYPTOML_SANDBOX_URL", _HOST, sandbox_port(configured))
    require_port("CRYPTOML_DAGSTER_PORT", _HOST, configured.dagster_port)
    require_port("CRYPTOML_SERVING_PORT", _HOST, serving_port)
    for port in admin:
        require_port("CRYPTOML_SERVING_ADMIN_PORT", _HOST, port)
    require_port("CRYPTOML_EXPORTER_PORT", configured.exporter_host, configured.exporter_port)
    require_port("CRYPTOML_MLFLOW_PORT", _HOST, configured.mlflow_port)


def start_dagster(children: Children, port: int) -> str:
    """Start the Dagster UI and daemon over this process's Dagster home; the UI's address."""
    address = f"http://{_HOST}:{port}"
    child = children.start(
        "dagster",
        [
            str(Path(sys.executable).with_name("dagster")),
            "dev",
            "--workspace",
            str(Path(__file__).parents[2] / "workspace.yaml"),
            "--host",
            _HOST,
            "--port",
            str(port),
        ],
        # Each thread's own arena keeps what a range run has freed; twice the memory, for nothing.
        {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2")},
    )
    children.wait_ready(child, f"{address}/server_info", _START_SECONDS)
    return address


def _start_mlflow(children: Children, configured: Settings) -> str:
    address = f"http://{_HOST}:{configured.mlflow_port}"
    child = children.start(
        "mlflow",
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            configured.tracking_address,
            "--host",
            _HOST,
            "--port",
            str(configured.mlflow_port),
            "--workers",
            "1",
        ],
        # Its job runners serve evaluations of language models; nothing here has any.
        {**MLFLOW_ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    children.wait_ready(child, f"{address}/health", _START_SECONDS)
    return address


def _start_exporter(children: Children, configured: Settings) -> str:
    address = f"http://{configured.exporter_host}:{configured.exporter_port}/metrics"
    child = children.start(
        "exporter", [sys.executable, "-m", "cryptoml_assets.cli", "exporter"], {}
    )
    children.wait_ready(child, address, _START_SECONDS)
    return address
