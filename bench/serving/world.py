"""The model that every side serves, and the registry, features and keys that ours reads it from."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryptoml_serving.contract.feature_store import FORMULA_TAG
from cryptoml_serving.contract.manifest import FeatureSpec
from cryptoml_serving.contract.registry import feature_service_name
from cryptoml_serving.contract.stores import Stores
from cryptoml_serving.security.keys import add_key
from cryptoml_serving.security.roles import Role
from tests.serving_world import REPOSITORY, Published, ServingWorld, Templates

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT")
FEATURES = tuple(
    FeatureSpec(name=f"{view}_{number:02}", view=f"{view}_features")
    for view, count in (("price", 60), ("onchain", 40))
    for number in range(count)
)
COLUMNS = tuple(each.name for each in FEATURES)
_FORMULA = "drawn at random"
_SERVICE = feature_service_name((each.view, each.name, _FORMULA) for each in FEATURES)
_HIDDEN, _MEMBERS = (64, 32), 8
#: Requests a second of each key: a limit that is looked at and never reached.
_RATE = 1_000_000.0


@dataclass(frozen=True)
class Model:
    """A network of the size that is trained here, with weights drawn at random.

    Attributes:
        program: file with the whole prediction as serialised StableHLO, its numbers among it; so it
            takes the least time, and it is what the others serve.
        trained: the same as it is trained: a program of numbers and rows.
        weights: the numbers.
        rows: one row of inputs a symbol, shape (symbols, columns), float32.
        expected: what the program answers for them, by output.
    """

    program: Path
    trained: bytes
    weights: dict[str, NDArray[np.float32]]
    rows: NDArray[np.float32]
    expected: dict[str, NDArray[np.float32]]

    @property
    def described(self) -> str:
        """For a person."""
        widths = "-".join(map(str, (len(COLUMNS), *_HIDDEN)))
        return f"{_MEMBERS} networks {widths}"


def make_model(folder: Path) -> Model:
    """Draw the weights and lower the prediction; the same every time."""
    import jax  # noqa: PLC0415 - takes seconds
    from jax import export  # noqa: PLC0415

    from cryptoml_assets.models.calibration import Calibration  # noqa: PLC0415
    from cryptoml_assets.models.export import lower, weights_of  # noqa: PLC0415
    from cryptoml_assets.models.families.family import inputs_of, networks  # noqa: PLC0415
    from cryptoml_assets.models.predictor import Ensemble  # noqa: PLC0415
    from cryptoml_assets.models.scaling import fit_scaling  # noqa: PLC0415

    rng = np.random.default_rng(7)
    graph, states = networks("mlp", inputs_of(COLUMNS, ()), _HIDDEN, range(_MEMBERS))
    drawn = tuple(
        jax.tree.map(lambda leaf: np.float32(leaf + rng.normal(0, 0.2, leaf.shape)), state)
        for state in states
    )
    scaling = fit_scaling(rng.normal(size=(500, len(COLUMNS))).astype(np.float32))
    ensemble = Ensemble(scaling, graph, drawn, label_mean=0.0001, label_scale=0.005)
    calibration = Calibration(0.0001, 0.51, 0.0, 0.6, 0.0, 0.8, 2.2)
    trained, weights = lower(ensemble, calibration), weights_of(ensemble, calibration)
    program = folder / "model.stablehlo"
    program.write_bytes(fixed(trained, weights))
    rows = rng.normal(size=(len(SYMBOLS), len(COLUMNS))).astype(np.float32)
    answers = jax.jit(export.deserialize(bytearray(program.read_bytes())).call)(rows)
    expected = {name: np.asarray(each) for name, each in answers.items()}
    return Model(program, trained, weights, rows, expected)


def fixed(trained: bytes, weights: dict[str, NDArray[np.float32]]) -> bytes:
    """A trained program with its numbers among it."""
    import jax  # noqa: PLC0415 - takes seconds
    from jax import export  # noqa: PLC0415

    taken = export.deserialize(bytearray(trained))
    (rows,) = export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((rows, len(COLUMNS)), np.float32)
    program = jax.jit(lambda features: taken.call(weights, features))
    return bytes(export.export(program, platforms=taken.platforms)(shape).serialize())


@dataclass
class World(ServingWorld):
    """One home folder for our service, with this model as its champion."""

    model: Model = field(kw_only=True)
    port: int = field(kw_only=True)
    admin_port: int = field(kw_only=True)
    versions: Iterator[int] = field(default_factory=itertools.count, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        keys, now = self.folder / "keys.json", datetime.now(UTC)
        self.key = add_key(keys, "bench", roles=[Role.PREDICT], rate=_RATE, now=now)
        self.admin_key = add_key(keys, "sensor", roles=[Role.ADMIN], rate=_RATE, now=now)

    def variables(self) -> dict[str, str]:
        """Of the service's process: as shipped, but for where its things are."""
        return {
            "CRYPTOML_HOME": str(self.folder / "home"),
            "CRYPTOML_SYMBOLS": ",".join(SYMBOLS),
            "CRYPTOML_FEATURE_REPO": str(REPOSITORY / "feature_repo"),
            "CRYPTOML_SERVING_PORT": str(self.port),
            "CRYPTOML_SERVING_ADMIN_PORT": str(self.admin_port),
            "CRYPTOML_SERVING_KEYS": str(self.folder / "keys.json"),
            "CRYPTOML_SERVING_DEVICE": "cpu",
        }

    def fill(self) -> None:
        """One fresh row for each symbol in the online store."""
        store, at = _store(self.home), datetime.now(UTC)
        for view in ("price_features", "onchain_features"):
            places = [i for i, each in enumerate(FEATURES) if each.view == view]
            rows = [
                {"symbol": symbol, "event_timestamp": at}
                | {FEATURES[place].name: float(row[place]) for place in places}
                for symbol, row in zip(SYMBOLS, self.model.rows, strict=True)
            ]
            store.write_to_online_store(view, pd.DataFrame(rows))

    def register_next(self, *, program: bool = False) -> Published:
        """Another version, neither approved nor deployed.

        Args:
            program: it is another program; otherwise the same one with other numbers, as after
                training again.
        """
        # Too little to see in an answer.
        change = np.float32(1 + 1e-6 * next(self.versions))
        scale = self.model.weights["label.scale"] * change
        weights = {**self.model.weights, "label.scale": scale}
        trained = self.model.trained
        run, digest = self.log_bundle(
            fixed(trained, weights) if program else trained,
            weights=weights,
            features=FEATURES,
            feature_service=_SERVICE,
            platforms=("cpu", "cuda"),
        )
        version = self.register(run, digest)
        return Published(version, run, digest, self.home / "artifacts" / run / "artifacts")


def make_world(folder: Path, model: Model, port: int, admin_port: int) -> World:
    """Registry, feature store and keys, with the first version deployed."""
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    templates = folder / "templates"
    templates.mkdir()
    MlflowClient(f"sqlite:///{templates / 'mlflow.db'}").search_experiments()
    _apply_views(templates)
    made = Templates(templates / "mlflow.db", templates / "feast", b"")
    world = World(folder / "ours", made, model=model, port=port, admin_port=admin_port)
    world.fill()
    world.place(world.register_next())
    return world


def _store(home: Path) -> Any:
    from feast import FeatureStore, RepoConfig  # noqa: PLC0415 - takes seconds

    (home / "feast").mkdir(parents=True, exist_ok=True)
    configured = Stores(home).configuration(REPOSITORY / "feature_repo")
    return FeatureStore(config=RepoConfig(**configured))


def _apply_views(home: Path) -> None:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource  # noqa: PLC0415
    from feast import ValueType as Kind  # noqa: PLC0415
    from feast.types import Float64, String  # noqa: PLC0415

    entity = Entity(name="crypto_symbol", join_keys=["symbol"], value_type=Kind.STRING)
    source = FileSource(path="never-read.parquet", timestamp_field="event_timestamp")
    views = [
        FeatureView(
            name=view,
            entities=[entity],
            ttl=timedelta(days=7),
            schema=[
                Field(name="symbol", dtype=String),
                *(
                    Field(name=each.name, dtype=Float64, tags={FORMULA_TAG: _FORMULA})
                    for each in FEATURES
                    if each.view == view
                ),
            ],
            source=source,
        )
        for view in ("price_features", "onchain_features")
    ]
    _store(home).apply([entity, *views, FeatureService(name=_SERVICE, features=views)])


def plain_environment() -> dict[str, str]:
    """This process's environment without the project's own variables; JAX on the CPU."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("CRYPTOML_")}
    # Without it every server would compile its sources anew.
    plain.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**plain, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}


def body(value: object) -> str:
    """JSON in one line."""
    return json.dumps(value, separators=(",", ":"))
