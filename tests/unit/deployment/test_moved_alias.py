"""Who finds a champion alias that was moved by hand posts a notice, and fails by nothing."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import Any

import pytest

from cryptoml_assets.deployment import moved_alias
from cryptoml_assets.deployment.moved_alias import teller
from cryptoml_assets.deployment.promotion import Reconciled
from cryptoml_assets.resources.notifier import Notifier
from cryptoml_assets.settings import settings

FOUND = Reconciled("9", "3", moved_by_hand=True, changed=True)


def posted() -> list[dict[str, Any]]:
    """What is to be sent, and what is kept back as a repetition."""
    database = sqlite3.connect(settings().home_path / "notices.db")
    rows = database.execute("SELECT content, repeats FROM notices ORDER BY id").fetchall()
    database.close()
    return [json.loads(content) | {"repeats": repeats} for content, repeats in rows]


def test_whoever_finds_it_posts_the_same_notice() -> None:
    teller(settings())(FOUND)
    teller(settings(), links={"asset": "https://dagster.example.com"})(FOUND)
    first, second = posted()
    assert (first["kind"], first["severity"]) == ("alias_moved", "critical")
    assert first["key"] == second["key"] == f"alias_moved:{settings().model_name}:9"
    # Nobody is told twice.
    assert (first["repeats"], second["repeats"]) == (None, 1)


@pytest.mark.parametrize(
    ("execution", "at_once", "way"),
    [
        ("local", None, "post"),
        ("kubernetes", None, "notify"),
        ("kubernetes", False, "post"),
    ],
)
def test_a_pod_sends_its_notice_itself(
    execution: str, at_once: bool | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    for name in ("post", "notify"):
        monkeypatch.setattr(Notifier, name, lambda *_, name=name: used.append(name))
    configured = settings().model_copy(update={"execution": execution})
    teller(configured, at_once=at_once)(FOUND)
    assert used == [way]


@pytest.mark.parametrize("broken", ["record", "channels"])
def test_a_notifier_that_is_down_fails_nothing(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if broken == "record":
        (settings().home_path / "notices.db").mkdir(parents=True)
    else:
        monkeypatch.setattr(moved_alias.Notifier, "of", None)
    with caplog.at_level(logging.ERROR):
        teller(settings())(FOUND)
    assert any(record.exc_info for record in caplog.records)
