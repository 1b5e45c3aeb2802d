from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cryptoml_assets.errors import WorldUnreachableError
from cryptoml_assets.operations.demo import Narrator, covered_days, require_reachable
from cryptoml_assets.operations.processes import Children, free_port
from cryptoml_assets.operations.world import (
    WorldChangedError,
    frozen_instant,
    join_sandbox,
    reachable,
    start_sandbox,
)
from cryptoml_assets.settings import Settings, settings
from tests.sandbox_server import sandbox

HOST = "127.0.0.1"
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)


def test_first_demo_fixes_the_instant_of_later_ones() -> None:
    first = frozen_instant(settings())
    assert timedelta(0) <= datetime.now(UTC) - first < timedelta(minutes=1)
    assert frozen_instant(Settings.load()) == first


def test_a_set_instant_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_NOW", NOW.isoformat())
    assert frozen_instant(Settings.load()) == NOW


def test_covered_days_stay_inside_the_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_DAYS", "10")
    assert covered_days(Settings.load(), NOW) == (NOW.date() - timedelta(days=10), NOW.date())
    monkeypatch.setenv("CRYPTOML_DAYS", "1000")
    assert covered_days(Settings.load(), NOW)[0] == Settings.load().start


def test_sandbox_child_tells_its_world_and_another_world_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("CRYPTOML_SANDBOX_PORT", "CRYPTOML_SANDBOX_URL", "CRYPTOML_NOW"):
        monkeypatch.setenv(variable, "")  # so that what the start sets is undone afterwards
        monkeypatch.delenv(variable)
    with Children(tmp_path / "logs") as children:
        world = start_sandbox(children, frozen=NOW, port=free_port(HOST))
        assert (world.source, world.now) == ("simulated", NOW)
        assert set(settings().symbols) <= set(world.symbols)
    monkeypatch.setenv("CRYPTOML_SANDBOX_SEED", "8")
    with (
        Children(tmp_path / "logs") as children,
        pytest.raises(WorldChangedError, match="seed: 7 → 8"),
    ):
        start_sandbox(children, frozen=NOW, port=free_port(HOST))


def test_every_silent_address_is_named_after_bounded_retries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"http://{HOST}:{free_port(HOST)}"
    with sandbox(now=NOW) as world:
        monkeypatch.setenv("CRYPTOML_WORLD", "live")
        monkeypatch.setenv("CRYPTOML_VENUE_URL", world.url)
        monkeypatch.setenv("CRYPTOML_CHAIN_URL", f"{nowhere}/rpc")
        monkeypatch.setenv("CRYPTOML_METRICS_URL", nowhere)
        monkeypatch.setenv("CRYPTOML_RETRY_DELAYS", "0.01,0.01")
        configured = Settings.load()
        assert [why is None for why in reachable(configured).values()] == [True, False, False]
        with pytest.raises(WorldUnreachableError) as caught:
            require_reachable(configured, Narrator.begin())
    message = str(caught.value)
    assert "after 3 attempts" in message
    assert f"chain node {nowhere}/rpc" in message
    assert f"network metrics {nowhere}" in message
    assert world.url not in message


def test_a_missing_sandbox_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = f"http://{HOST}:{free_port(HOST)}"
    monkeypatch.setenv("CRYPTOML_SANDBOX_URL", nowhere)
    with pytest.raises(WorldUnreachableError, match=f"no sandbox world at {nowhere}/world"):
        join_sandbox(Settings.load())


def test_joining_a_sandbox_ignores_the_proxies_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{HOST}:{free_port(HOST)}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with sandbox(now=NOW) as world:
        monkeypatch.setenv("CRYPTOML_SANDBOX_URL", world.url)
        assert join_sandbox(Settings.load()).now == NOW
