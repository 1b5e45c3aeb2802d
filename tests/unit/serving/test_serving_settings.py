from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.settings import ServingSettings


def test_defaults_listen_on_loopback_only() -> None:
    settings = ServingSettings.load()
    assert (settings.serving_host, settings.serving_port) == ("127.0.0.1", 8000)
    assert settings.model_cache_path.is_relative_to(settings.home_path)


def test_own_and_shared_variables_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRYPTOML_SERVING_MAX_FEATURE_AGE", "90s")
    monkeypatch.setenv("CRYPTOML_SERVING_MODEL_CACHE", str(tmp_path))
    monkeypatch.setenv("CRYPTOML_SYMBOLS", "BTC/USDT, ETH/USDT")
    settings = ServingSettings.load()
    assert settings.serving_max_feature_age == timedelta(seconds=90)
    assert settings.model_cache_path == tmp_path
    assert settings.symbols == ("BTC/USDT", "ETH/USDT")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CRYPTOML_SERVING_PORT", "0"),
        ("CRYPTOML_SERVING_PORT", "eighty"),
        ("CRYPTOML_SERVING_REFRESH", "0s"),
        ("CRYPTOML_SERVING_REGISTRY_POLL", "soon"),
        ("CRYPTOML_SERVING_MAX_FEATURE_AGE", "-5m"),
        ("CRYPTOML_SERVING_MAX_FEATURE_AGE", "9" * 18 + "d"),
        ("CRYPTOML_SYMBOLS", ""),
    ],
)
def test_an_unusable_value_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        ServingSettings.load()
    assert str(raised.value).startswith(f"{variable}=")
    assert "Accepted:" in str(raised.value)


def test_an_own_variable_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_SERVING_MAX_AGE", "1h")
    with pytest.raises(SettingsError, match="CRYPTOML_SERVING_MAX_FEATURE_AGE"):
        ServingSettings.load()


def test_the_clock_stands_at_its_instant_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_NOW", "2024-03-01T12:00:00+02:00")
    now = ServingSettings.load().clock()
    assert now == datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert now.tzinfo is UTC


def test_variables_of_other_parts_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_DAYS", "30")
    assert ServingSettings.load().serving_port == 8000
