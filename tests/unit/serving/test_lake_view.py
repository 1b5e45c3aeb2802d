"""What is read of the lake in the background, with real tables."""

from __future__ import annotations

import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from cryptoml_serving.contract.approval import generate_keys
from cryptoml_serving.contract.served import ServedPrediction
from cryptoml_serving.runtime import lake_tables
from cryptoml_serving.runtime.errors import LakeUnavailableError
from cryptoml_serving.runtime.finder import MOST_WAITING, Finder
from cryptoml_serving.runtime.lake_view import LakeView
from cryptoml_serving.runtime.served_table import append_new
from cryptoml_serving.settings import ServingSettings
from cryptoml_serving.telemetry import Metrics
from tests.lake_tables import write_drift, write_outcomes
from tests.serving_world import NOW
from tests.waiting import until

BAR = timedelta(minutes=5)


@pytest.fixture
def settings(tmp_path: Path) -> ServingSettings:
    made = ServingSettings(home=tmp_path, now=NOW)
    generate_keys(made.home_path / "keys" / "approval.key", made.public_key_path)
    return made


def view(settings: ServingSettings) -> LakeView:
    return LakeView(settings, Metrics("m"), lambda: True)


def served(name: str, bars: int, **changes: object) -> ServedPrediction:
    at = NOW - bars * BAR
    fields = {
        "prediction_id": name,
        "model_name": "m",
        "model_version": "1",
        "bundle_digest": "0" * 64,
        "role": "champion",
        "symbol": "BTC/USDT",
        "feature_timestamp": at,
        "horizon_seconds": 3600,
        "expected_return": 0.001,
        "lower": -0.01,
        "upper": 0.01,
        "probability_up": 0.6,
        "source": "simulated",
        "computed_at": at + timedelta(seconds=20),
        "sequence": 0,
    }
    return ServedPrediction.model_validate({**fields, **changes})


def test_a_lake_without_tables_is_an_empty_picture(settings: ServingSettings) -> None:
    lake = view(settings)
    lake.read()
    picture = lake.picture
    assert (picture.problem, picture.read_at) == ("", NOW)
    assert not picture.history.decisions
    assert not picture.feature_drift
    assert not picture.track


def test_the_track_has_the_newest_answers_of_the_champion_and_what_came(
    settings: ServingSettings,
) -> None:
    lake = settings.lake_uri
    later = NOW + timedelta(minutes=1)
    append_new(
        lake,
        [
            served("first", 3),
            served("revised", 3, expected_return=0.002, computed_at=later),
            served("newer", 1),
            served("shadow", 2, role="shadow"),
            served("long ago", 12 * 7),
            served("other", 2, symbol="ETH/USDT"),
        ],
    )
    came = {"prediction_id": "revised", "outcome_at": NOW, "realised_return": 0.004}
    write_outcomes(lake, [{**came, "feature_timestamp": NOW - 3 * BAR}])
    reader = view(settings)
    reader.read()
    track = reader.picture.track
    assert [(each.at, each.expected_return, each.realised) for each in track["BTC/USDT"]] == [
        (NOW - 3 * BAR, 0.002, 0.004),
        (NOW - BAR, 0.001, None),
    ]
    assert len(track["ETH/USDT"]) == 1


def test_hours_that_passed_without_a_new_row_are_no_longer_the_last_ones(
    settings: ServingSettings, tmp_path: Path
) -> None:
    append_new(settings.lake_uri, [served("older", 12 * 5), served("newer", 12)])
    clock = tmp_path / "clock"
    moved = settings.model_copy(update={"now": None, "clock_file": clock})
    reader = view(moved)
    shown = []
    for hours in (0, 2, 6):
        now = NOW + timedelta(hours=hours)
        clock.write_text(now.isoformat())
        reader.read()
        assert reader.picture.read_at == now
        track = reader.picture.track_of("BTC/USDT", now)
        shown.append([each.at for each in track])
    older, newer = NOW - timedelta(hours=5), NOW - timedelta(hours=1)
    assert shown == [[older, newer], [newer], []]
    assert reader.picture.track_of("nobody", NOW) == ()


class Panic(BaseException):
    """As a panic of a library's Rust arrives: no Exception."""


def test_a_panic_is_a_trouble_and_the_threads_go_on(
    settings: ServingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    panicking = [True]
    inner = lake_tables.stamp

    def stamp(lake: str, table: str) -> object:
        if panicking[0] and table == "feature_drift":
            raise Panic
        return inner(lake, table)

    monkeypatch.setattr(lake_tables, "stamp", stamp)
    quick = settings.model_copy(update={"serving_lake_poll": timedelta(milliseconds=10)})
    reader = view(quick)
    reader.start()
    try:
        until(lambda: reader.picture.problem == "cannot be read now: feature drift")
        panicking[0] = False
        until(lambda: reader.picture.problem == "" and reader.picture.read_at is not None)

        def panics() -> None:
            raise Panic("slice index")

        with pytest.raises(LakeUnavailableError, match="Panic: slice index"):
            reader._finder.submit(panics).result(10)
        assert reader._finder.submit(lambda: 1).result(10) == 1
    finally:
        reader.stop()


def test_a_table_is_read_again_only_when_it_changed(
    settings: ServingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = settings.lake_uri
    write_drift(lake, NOW, {("rsi", "BTC/USDT"): 0.1})
    reader = view(settings)
    reader.read()
    number = reader.picture.number
    read, inner = [], lake_tables.drift

    def drift(lake: str, table: str) -> object:
        read.append(table)
        return inner(lake, table)

    monkeypatch.setattr(lake_tables, "drift", drift)
    reader.read()
    assert (read, reader.picture.number) == ([], number)
    write_drift(lake, NOW, {("rsi", "BTC/USDT"): 0.5})
    reader.read()
    assert read == ["feature_drift"]
    assert reader.picture.number == number + 1
    assert [each.psi for each in reader.picture.feature_drift] == [0.5]


def test_what_cannot_be_read_stays_as_it_was_and_is_told(settings: ServingSettings) -> None:
    lake = settings.lake_uri
    write_drift(lake, NOW, {("rsi", "BTC/USDT"): 0.1})
    metrics = Metrics("m")
    reader = LakeView(settings, metrics, lambda: True)
    reader.read()
    write_drift(lake, NOW, {("rsi", "BTC/USDT"): 0.5})
    for each in (Path(lake) / "feature_drift").glob("*.parquet"):
        each.unlink()
    reader.read()
    assert "feature drift" in reader.picture.problem
    assert [each.psi for each in reader.picture.feature_drift] == [0.1]
    assert metrics.refresh_errors.labels("lake")._value.get() == 1
    shutil.rmtree(Path(lake) / "feature_drift")
    write_drift(lake, NOW, {("rsi", "BTC/USDT"): 0.7})
    reader.read()
    assert reader.picture.problem == ""
    assert [each.psi for each in reader.picture.feature_drift] == [0.7]


def test_a_prediction_is_found_in_the_lake_with_its_outcome(settings: ServingSettings) -> None:
    lake = settings.lake_uri
    append_new(lake, [served("wanted", 12 * 30), served("another", 1)])
    came = {"prediction_id": "wanted", "outcome_at": NOW, "realised_return": 0.004}
    write_outcomes(lake, [{**came, "feature_timestamp": NOW - 12 * 30 * BAR}])
    reader = view(settings)
    reader.start()
    try:
        found = reader.find("wanted").result(10)
        assert found is not None
        assert found["feature_timestamp"] == NOW - 12 * 30 * BAR
        assert found["outcome"]["realised_return"] == 0.004
        assert reader.find("nobody").result(10) is None
    finally:
        reader.stop()
    with pytest.raises(LakeUnavailableError, match="ends"):
        reader.find("wanted")


def test_work_that_hangs_holds_up_a_few_and_never_the_end() -> None:
    finder, hang, begun = Finder(), threading.Event(), threading.Event()

    def stuck() -> None:
        begun.set()
        hang.wait()

    finder.start()
    first = finder.submit(stuck)
    assert begun.wait(10)
    waiting = [finder.submit(lambda: 1) for _ in range(MOST_WAITING)]
    with pytest.raises(LakeUnavailableError, match="wait"):
        finder.submit(lambda: 1)
    finder.stop()
    assert all(each.cancelled() for each in waiting)
    hang.set()
    assert first.result(10) is None
