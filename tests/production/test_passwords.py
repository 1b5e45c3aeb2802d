"""A password of any characters is read as it is, and nothing that is told has it."""

from __future__ import annotations

import string
import traceback
from collections.abc import Callable, Mapping
from urllib.parse import quote, unquote, urlsplit

import dagster as dg
import pytest
from dagster_postgres.utils import DagsterPostgresException
from hypothesis import example, given
from hypothesis import strategies as st
from redis import Redis
from redis.connection import parse_url
from sqlalchemy import create_engine, make_url, text

from cryptoml_assets.operations.graph import prepare_dagster_home
from cryptoml_assets.settings import Settings, settings
from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.contract.stores import masked
from tests.production.credentials import SPECIAL, secrets_of

#: Each setting that is an address with a password, how it is written, and how its library reads it.
ADDRESSES: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "dagster_postgres_url": (
        "postgresql+psycopg2://user:{}@host:5432/dagster",
        lambda address: make_url(address).password,
    ),
    "tracking_uri": (
        "postgresql+pg8000://user:{}@host:5432/mlflow",
        lambda address: make_url(address).password,
    ),
    "feature_registry": (
        "postgresql+pg8000://user:{}@host:5432/feast",
        lambda address: make_url(address).password,
    ),
    "online_store": (
        "rediss://:{}@host:6379/0",
        lambda address: parse_url(address)["password"],
    ),
}
#: None stands in an error or among other settings by chance.
PASSWORDS = st.text(string.printable + "äß€漢", max_size=40).map(lambda each: f"hush{each}")


@pytest.mark.parametrize("name", ADDRESSES)
@given(password=PASSWORDS)
@example(password=f"hush{SPECIAL}")
def test_any_password_is_read_as_it_is_and_shown_nowhere(name: str, password: str) -> None:
    written, read = ADDRESSES[name]
    address = written.format(quote(password, safe=""))
    configured = Settings.load(**{name: address})
    assert getattr(configured, name) == address
    assert read(address) == password
    for shown in (repr(configured), str(configured), masked(f"no answer of {address}, sorry")):
        assert quote(password, safe="") not in shown
        assert password not in shown


@pytest.mark.parametrize("name", ADDRESSES)
@given(password=PASSWORDS)
@example(password=f"hush{SPECIAL}")
def test_a_password_written_as_it_is_works_or_is_refused_without_it(
    name: str, password: str
) -> None:
    written, read = ADDRESSES[name]
    address = written.format(password)
    told = ""
    try:
        Settings.load(**{name: address})
    except SettingsError as error:
        told = str(error)
    if told:
        assert Settings.variable(name) in told
    else:
        # A % that stands for itself cannot be told from one that does not.
        assert read(address) == unquote(password)
        told = masked(f"no answer of {address}, sorry")
    assert password not in told


def test_servers_take_a_password_of_special_characters(production: Mapping[str, str]) -> None:
    configured = settings()
    for address in (
        configured.dagster_postgres_url,
        configured.tracking_uri,
        configured.feature_registry,
    ):
        assert str(make_url(address).password).endswith(SPECIAL)
        engine = create_engine(address)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        engine.dispose()
    assert unquote(urlsplit(configured.online_store).password or "").endswith(SPECIAL)
    with Redis.from_url(configured.online_store) as client:
        assert client.ping()


@pytest.mark.parametrize("wrong", ["password", "port"])
def test_a_database_that_does_not_let_us_in_is_told_without_the_password(
    production: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: str,
) -> None:
    monkeypatch.setattr("dagster_postgres.utils.calculate_delay", lambda **_: 0.0)
    address = production["CRYPTOML_DAGSTER_POSTGRES_URL"]
    parts = urlsplit(address)
    if wrong == "password":
        address = address.replace(str(parts.password), f"{parts.password}not")
    else:
        address = address.replace(f":{parts.port}/", ":1/")
    monkeypatch.setenv("CRYPTOML_DAGSTER_POSTGRES_URL", address)
    settings.cache_clear()
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_dagster_home(settings().home_path)))
    with pytest.raises(DagsterPostgresException) as told:
        dg.DagsterInstance.get()
    whole = "".join(traceback.format_exception(told.value)) + caplog.text
    assert {"password": "password authentication failed", "port": "refused"}[wrong] in whole
    assert not any(word in whole for word in secrets_of(production))
