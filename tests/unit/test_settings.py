from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cryptoml_assets.operations.variables import CLASSES, check_environment, example
from cryptoml_assets.settings import Settings, settings
from cryptoml_serving.contract.settings import SettingsError, World, format_duration, parse_duration

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("CRYPTOML_HORIZON", "soon", "5m, 1h or 7d"),
        ("CRYPTOML_TIMEFRAME", "7m", "1m, 5m, 15m"),
        ("CRYPTOML_DAYS", "many", "days of history"),
        ("CRYPTOML_WORLD", "dream", "simulated, replay or live"),
        ("CRYPTOML_TEST_SHARE", "1.5", "newest share"),
        ("CRYPTOML_RETRY_DELAYS", "1;2", "comma-separated seconds"),
        ("CRYPTOML_SERVING_PORT", "99999", "port the service listens on"),
        ("CRYPTOML_SANDBOX_SIGNAL", "-1", "planted predictability"),
        ("CRYPTOML_SANDBOX_FAULTS", "many", "JSON object"),
        ("CRYPTOML_NOW", "yesterday", "ISO instant"),
    ],
)
def test_wrong_value_is_named_with_what_is_accepted(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, accepted: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        check_environment()
    assert variable in str(caught.value)
    assert value in str(caught.value)
    assert accepted in str(caught.value)


def test_unknown_variable_is_refused_with_close_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_HORIZONT", "1h")
    with pytest.raises(SettingsError, match=r"CRYPTOML_HORIZONT: no such .*CRYPTOML_HORIZON"):
        check_environment()


def test_horizon_must_be_whole_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_HORIZON", "7m")
    with pytest.raises(SettingsError, match="CRYPTOML_HORIZON=7m is not a whole number of 5m bars"):
        Settings.load()


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("90s", 90), ("5m", 300), ("1h", 3600), ("7d", 604800)]
)
def test_durations_read_and_write(text: str, seconds: float) -> None:
    parsed = parse_duration(text)
    assert parsed == timedelta(seconds=seconds)
    assert isinstance(parsed, timedelta)
    assert parse_duration(format_duration(parsed)) == parsed


def test_worlds_keep_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    lakes = set()
    for world in World:
        monkeypatch.setenv("CRYPTOML_WORLD", world.value)
        lakes.add(Settings.load().lake_uri)
    assert len(lakes) == len(World)


def test_only_the_live_world_leaves_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Settings.load()
    assert local.venue_address == local.sandbox_url
    assert local.chain_address.startswith(local.sandbox_url)
    assert local.metrics_address == local.sandbox_url
    monkeypatch.setenv("CRYPTOML_WORLD", "live")
    live = Settings.load()
    assert live.venue_address is None
    assert live.chain_address.startswith("https://")
    assert live.metrics_address.startswith("https://")


def test_clock_stands_still_when_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_NOW", "2024-05-01T12:00:00Z")
    assert settings().clock() == datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_example_names_every_variable_and_reads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for line in example().splitlines():
        if line.startswith("#CRYPTOML_"):
            name, _, value = line[1:].partition("=")
            written[name] = value
    expected = {variable for cls in CLASSES.values() for variable in cls.variables()}
    assert written.keys() == expected
    for name, value in written.items():
        if value:
            monkeypatch.setenv(name, value)
    for cls in CLASSES.values():
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        assert cls.load().model_dump() == cls.model_construct(**defaults).model_dump()


def test_env_example_is_current() -> None:
    assert (REPOSITORY / ".env.example").read_text() == example()
