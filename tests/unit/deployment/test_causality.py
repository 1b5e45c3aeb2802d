"""The proofs of one candidate, over a small lake of bars and features computed for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from cryptoml_assets.deployment import causality
from cryptoml_assets.deployment.causality import DataUsed, Delays, data_versions
from cryptoml_assets.errors import ApprovalError, LakeError
from cryptoml_assets.features import audit
from cryptoml_assets.features.compute import price_features
from cryptoml_assets.features.onchain import onchain_features
from cryptoml_assets.features.training_set import training_set
from cryptoml_assets.resources.lake import Lake
from tests.feature_data import BAR, DAY, FIRST, make_bars, make_blocks, make_metrics, midnight

COUNT = 5
DAYS = tuple(FIRST + step * DAY for step in range(COUNT))
NOW = midnight(FIRST) + COUNT * DAY
HOUR = timedelta(hours=1)
DELAYS = Delays(metrics_lag=4 * HOUR, finality_delay=HOUR)
#: The tables of a sound world, each in its version 0, and the training set.
TABLES = ("raw_prices", "price_features", "onchain_features", "training_set")
MANIFEST: Any = SimpleNamespace(
    lake_versions={"training_set": 0},
    created_at=NOW,
    horizon_seconds=3600,
    bar_seconds=300,
    training_start=NOW - 2 * DAY,
    training_end=NOW - DAY - HOUR,
    test_start=NOW - DAY,
    test_end=NOW - HOUR,
)
Made = Mapping[str, pl.DataFrame]


def made() -> dict[str, pl.DataFrame]:
    bars, metrics, blocks = make_bars(COUNT), make_metrics(COUNT), make_blocks(COUNT)
    price = price_features(bars, DAYS, BAR)
    symbols = ("BTC/USDT", "ETH/USDT")
    chain = onchain_features(metrics, blocks, symbols, DAYS, delay=4 * HOUR, now=NOW)
    rows = training_set(
        price.lazy(), chain.lazy(), bars.lazy(), now=NOW, window=2 * DAY, horizon=HOUR
    )
    return {
        "raw_prices": bars,
        "network_metrics": metrics,
        "onchain_blocks": blocks,
        "price_features": price,
        "onchain_features": chain,
        "training_set": rows,
    }


SOUND = made()


def stored(folder: Path, **changed: pl.DataFrame) -> Lake:
    lake = Lake(str(folder))
    for table, rows in {**SOUND, **changed}.items():
        if table == "training_set":
            lake.overwrite(table, rows)
        else:
            lake.replace_days(table, rows, DAYS)
    return lake


@pytest.fixture(scope="module")
def sound_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return stored(tmp_path_factory.mktemp("sound"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of each table one day, and no Feast, which takes seconds: the demo's test reads it."""

    def through(rows: pl.DataFrame, tables: Any, versions: Any, lake: str) -> pl.DataFrame:
        assert versions["price_features"] == 0
        assert Lake(lake).exists("price_features")
        return audit.by_asof_join(rows, tables).drop(audit.age_of(each) for each in tables)

    monkeypatch.setattr(audit, "through_feast", through)
    monkeypatch.setattr(causality, "_SAMPLED_DAYS", 1)
    return iter([None])


def used(lake: Lake, **other: Any) -> DataUsed:
    whole = DataUsed(
        lake=lake,
        manifest=MANIFEST,
        digest="5eed0000" + "0" * 56,
        versions=dict.fromkeys(TABLES, 0),
        pins=lambda *_: {},
        delays=DELAYS,
        learnt_at=NOW,
        now=NOW,
    )
    return replace(whole, **other)


PROOFS = [causality.parity, causality.no_look_ahead]


@pytest.mark.parametrize("proof", PROOFS)
def test_a_sound_world_passes_and_says_what_was_compared(
    proof: Callable[..., Any], sound_lake: Lake
) -> None:
    found = proof(used(sound_lake))
    assert found.passed, found.rule
    assert found.name == proof.__name__
    assert "training_set@0, price_features@0, onchain_features@0, raw_prices@0" in found.rule


@pytest.mark.parametrize("proof", PROOFS)
@pytest.mark.parametrize("table", TABLES)
def test_what_is_not_named_or_not_there_any_more_is_no_proof(
    proof: Callable[..., Any], table: str, sound_lake: Lake
) -> None:
    versions = dict.fromkeys(TABLES, 0)
    with pytest.raises(LakeError):
        proof(used(sound_lake, versions={**versions, table: 99}))
    del versions[table]
    with pytest.raises(ApprovalError, match=f"which version of {table}"):
        proof(used(sound_lake, versions=versions))


@pytest.mark.parametrize("proof", PROOFS)
def test_a_window_without_features_is_no_proof(proof: Callable[..., Any], sound_lake: Lake) -> None:
    long_ago: Any = SimpleNamespace(**{**vars(MANIFEST), "test_end": NOW - 900 * DAY})
    with pytest.raises(ApprovalError, match="no rows in the candidate's window"):
        proof(used(sound_lake, manifest=long_ago))


def failures(lake: Lake, **other: Any) -> tuple[bool, bool]:
    """Whether parity, and whether the absence of look-ahead, is refuted."""
    parity, ahead = (proof(used(lake, **other)) for proof in PROOFS)
    assert all(each.figure > 0 for each in (parity, ahead) if not each.passed)
    return not parity.passed, not ahead.passed


def test_a_feature_made_of_the_next_bar_is_found(tmp_path: Path) -> None:
    """Also where the training set holds it just as the table does."""
    ahead = pl.col("log_return_1").shift(-1).over("symbol").fill_null(0.0)
    price = SOUND["price_features"].with_columns(log_return_1=ahead)
    rows = training_set(
        price.lazy(),
        SOUND["onchain_features"].lazy(),
        SOUND["raw_prices"].lazy(),
        now=NOW,
        window=2 * DAY,
        horizon=HOUR,
    )
    lake = stored(tmp_path, price_features=price, training_set=rows)
    assert failures(lake) == (True, True)
    assert "log_return_1 of BTC/USDT" in causality.parity(used(lake)).rule


def test_inputs_joined_from_a_later_row_are_found(tmp_path: Path) -> None:
    later = pl.col("rsi").shift(-1).over("symbol").fill_null(50.0)
    lake = stored(tmp_path, training_set=SOUND["training_set"].with_columns(rsi=later))
    assert failures(lake) == (True, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": pl.col("label") * (1 + 1e-15)}, "not the return of their bars"),
        ({"label": pl.lit(None, pl.Float64)}, "not the return of their bars"),
        (
            {"label_timestamp": pl.col("label_timestamp") + timedelta(minutes=5)},
            "not one horizon ahead",
        ),
    ],
)
def test_labels_of_another_return_are_found(
    change: dict[str, pl.Expr], words: str, tmp_path: Path
) -> None:
    rows = SOUND["training_set"].with_columns(**change)
    found = causality.no_look_ahead(used(stored(tmp_path, training_set=rows)))
    assert not found.passed
    assert words in found.rule


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"created_at": NOW - timedelta(minutes=1)}, "labels were not known"),
        ({"training_end": MANIFEST.training_end + timedelta(minutes=5)}, "into the test part"),
    ],
)
def test_a_bundle_that_saw_its_test_part_or_the_future_is_found(
    change: dict[str, datetime], words: str, sound_lake: Lake
) -> None:
    manifest: Any = SimpleNamespace(**{**vars(MANIFEST), **change})
    found = causality.no_look_ahead(used(sound_lake, manifest=manifest))
    assert not found.passed
    assert words in found.rule


def test_labels_are_to_be_known_when_they_were_learnt_whatever_the_bundle_says(
    sound_lake: Lake,
) -> None:
    """A bundle's date is that of its newest label, which proves nothing of that label."""
    newest = SOUND["training_set"]["label_timestamp"].max()
    manifest: Any = SimpleNamespace(**{**vars(MANIFEST), "created_at": newest})
    sound = causality.no_look_ahead(used(sound_lake, manifest=manifest, learnt_at=newest))
    assert sound.passed, sound.rule
    early = newest - timedelta(minutes=1)
    found = causality.no_look_ahead(used(sound_lake, manifest=manifest, learnt_at=early))
    assert not found.passed
    assert "labels were not known" in found.rule


def test_a_run_says_when_it_learnt_and_an_old_one_had_learnt_by_now() -> None:
    then = NOW - DAY
    assert causality.learnt_at({"cryptoml.as_of": then.isoformat()}, NOW) == then
    assert causality.learnt_at({"lake.raw_prices": "4"}, NOW) == NOW
    for wrong in ("yesterday", "2024-03-01T12:00"):
        with pytest.raises(ValueError, match=wrong):
            causality.learnt_at({"cryptoml.as_of": wrong}, NOW)


def test_the_versions_used_count_and_not_what_was_stored_since(tmp_path: Path) -> None:
    """Bars revised after the features were made refute nothing, wherever the pins lead."""
    lake = stored(tmp_path)
    revised = SOUND["raw_prices"].with_columns(close=pl.col("close") * 1.01)
    newest = lake.replace_days("raw_prices", revised, DAYS)
    lake.replace_days("price_features", SOUND["price_features"].with_columns(rsi=0.0), DAYS)
    lake.overwrite("training_set", SOUND["training_set"].head(10))

    def pins(_: str, days: tuple[date, ...]) -> dict[date, dict[str, int]]:
        return {day: {"raw_prices": newest} for day in days}

    assert failures(lake, pins=pins) == (False, False)
    # Labels of the revised bars are others than those that were learnt from.
    versions = {**dict.fromkeys(TABLES, 0), "raw_prices": newest}
    assert failures(lake, versions=versions) == (True, True)


def test_the_versions_are_those_of_the_bundle_and_of_its_run() -> None:
    tags = {"lake.raw_prices": "4", "lake.training_set": "9", "cryptoml.source": "simulated"}
    assert data_versions(MANIFEST, tags) == {"raw_prices": 4, "training_set": 0}
    with pytest.raises(ValueError, match="invalid literal"):
        data_versions(MANIFEST, {"lake.raw_prices": "newest"})
