"""The settings of the feature store: what is accepted, and that no password is ever shown."""

from pathlib import Path

import pytest

from cryptoml_serving.contract.settings import SettingsError, reject_unknown_variables
from cryptoml_serving.contract.stores import (
    CONFIGURATION,
    ONLINE_STORE_VARIABLE,
    REGISTRY_VARIABLE,
    Stores,
)
from cryptoml_serving.settings import ServingSettings

REPOSITORY = Path(__file__).parents[3] / "feature_repo"
HOME = Path("/h")


def read() -> ServingSettings:
    reject_unknown_variables(ServingSettings)
    return ServingSettings.load()


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("CRYPTOML_ONLINE_STORE", "memcached://u:s3cret@h:1", "=(not shown): it is no address of"),
        ("CRYPTOML_ONLINE_STORE", "h:6379,password=s3cret", "=(not shown): it is no address"),
        ("CRYPTOML_ONLINE_STORE", "redis://", "=(not shown): it is no address"),
        ("CRYPTOML_ONLINE_STORE", "redis://:s3/cret@h:1/0", "written as %XX"),
        ("CRYPTOML_ONLINE_STORE", "redis://u:s3?cret@h", "written as %XX"),
        ("CRYPTOML_ONLINE_STORE", "redis://u:s3@cret@h", "written as %XX"),
        ("CRYPTOML_FEATURE_REGISTRY", "registry.db", "=(not shown): it is no address"),
        ("CRYPTOML_FEATURE_REGISTRY", "host=db password=s3cret", "=(not shown): it is no address"),
        ("CRYPTOML_FEATURE_REGISTRY", "postgresql://u:s3/cret@h/d", "written as %XX"),
        ("CRYPTOML_FEATURE_REGISTRY", "postgresql://u:s3 cret@h/d", "written as %XX"),
        ("CRYPTOML_FEATURE_REGISTRY", "postgresql://u:s3[cret@h/d", "written as %XX"),
        ("CRYPTOML_FEATURE_REGISTRY", "postgresql://h/d?password=s3cret", "before the host"),
        ("CRYPTOML_FEATURE_REGISTRI", "x://u:s3cret@h/d", ": no such setting"),
    ],
)
def test_an_address_that_cannot_be_used_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, shown: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as told:
        read()
    assert variable in str(told.value)
    assert shown in str(told.value)
    assert not any(part in str(told.value) for part in ("s3", "cret"))


def test_the_settings_show_no_address() -> None:
    address = "redis://:s3cret@h:1/0"
    settings = ServingSettings(online_store=address, feature_registry="postgresql://u:s3cret@h/d")
    assert "s3cret" not in repr(settings) + str(settings) + repr(settings.stores)
    assert settings.stores.online == address


def test_embedded_stores_are_files_of_the_world() -> None:
    content = Stores(HOME).configuration(REPOSITORY)
    assert content["registry"] == {
        "registry_type": "file",
        "path": "/h/feast/registry.db",
        "cache_ttl_seconds": 10,
    }
    assert content["online_store"]["path"] == "/h/feast/online.db"
    assert Stores(HOME).files == (Path("/h/feast/registry.db"), Path("/h/feast/online.db"))


def test_each_store_is_chosen_alone() -> None:
    assert Stores(HOME, "redis://h:1/0").files == (Path("/h/feast/registry.db"),)
    assert Stores(HOME, registry="sqlite:////r.db").files == (Path("/h/feast/online.db"),)


def test_redis_keeps_rows_for_the_time_to_live_and_takes_revisions() -> None:
    section = Stores(HOME, "rediss://:a%40b@h:6380/2").configuration(REPOSITORY)["online_store"]
    assert section["url"] == "rediss://:a%40b@h:6380/2"
    assert section["key_ttl_seconds"] == 7 * 86_400
    assert section["skip_dedup"] is True


@pytest.mark.parametrize(
    ("address", "path", "limit"),
    [
        ("postgresql://u@h/d", "postgresql+pg8000://u@h/d", "timeout"),
        ("postgresql+pg8000://u@h/d", "postgresql+pg8000://u@h/d", "timeout"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d", "connect_timeout"),
        ("mysql+pymysql://u@h/d", "mysql+pymysql://u@h/d", "connect_timeout"),
        ("sqlite:////tmp/r.db", "sqlite:////tmp/r.db", "timeout"),
    ],
)
def test_a_database_is_waited_for_as_its_driver_spells_it(
    address: str, path: str, limit: str
) -> None:
    section = Stores(HOME, registry=address).configuration(REPOSITORY)["registry"]
    assert (section["registry_type"], section["path"]) == ("sql", path)
    assert section["sqlalchemy_config_kwargs"]["connect_args"] == {limit: 3}


def test_what_an_address_holds_is_not_taken_for_a_variable() -> None:
    section = Stores(HOME, "redis://:${HOME}$x'\"@h:1/0").configuration(REPOSITORY)["online_store"]
    assert section["url"] == "redis://:${HOME}$x'\"@h:1/0"


def test_the_environment_has_no_say_in_what_a_process_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in (ONLINE_STORE_VARIABLE, REGISTRY_VARIABLE):
        assert variable in (REPOSITORY / CONFIGURATION).read_text()
        monkeypatch.setenv(variable, "another shell's")
    assert Stores(HOME).configuration(REPOSITORY)["online_store"]["path"] == "/h/feast/online.db"
