"""What the page shows, as text and geometry: a function of what is served and of the lake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptoml_serving.api.models import answering, loaded
from cryptoml_serving.api.page import figures
from cryptoml_serving.api.page.charts import Bar, Scale, Track
from cryptoml_serving.api.page.panels import (
    Approval,
    Drifts,
    Past,
    Placed,
    approval,
    drifts,
    past,
)
from cryptoml_serving.contract.settings import World, format_duration

if TYPE_CHECKING:
    from datetime import datetime

    from cryptoml_serving.api.service import Service
    from cryptoml_serving.contract.prediction import Prediction
    from cryptoml_serving.runtime.lake_tables import Point
    from cryptoml_serving.runtime.lake_view import Picture
    from cryptoml_serving.runtime.snapshot import Snapshot


@dataclass(frozen=True)
class Age:
    """An age and whether it goes on growing while the page is looked at.

    Attributes:
        label: of what.
        seconds: none where it never was.
        grows: whether it does so in real time; a world whose clock stands still has others.
        bad: whether it is past what is allowed.
    """

    label: str
    seconds: float | None
    grows: bool = True
    bad: bool = False

    @property
    def text(self) -> str:
        """In words."""
        return figures.age(self.seconds)


@dataclass(frozen=True)
class Row:
    """One symbol.

    Attributes:
        symbol: ccxt symbol.
        prediction: none where there is none now, or its features are past the limit.
        why: why there is none, in words.
        up: whether the expected return is positive.
        bar: the interval on the axis that all rows share.
        track: the last hours.
        held: returns known of the last hours that their interval held, and all that are known.
        age: of the features.
    """

    symbol: str
    prediction: Prediction | None
    why: str = ""
    up: bool = False
    bar: Bar | None = None
    track: Track | None = None
    held: tuple[int, int] = (0, 0)
    age: Age | None = None


@dataclass(frozen=True)
class View:
    """The whole page."""

    model_name: str
    now: datetime
    ready: bool
    not_ready: str
    source: str
    simulated: bool
    horizon: str
    troubles: tuple[tuple[str, str], ...]
    ages: tuple[Age, ...]
    axis: tuple[tuple[float, str], ...]
    rows: tuple[Row, ...]
    placed: tuple[Placed, ...]
    approval: Approval | None
    past: Past
    drifts: tuple[Drifts, ...]
    lake_problem: str
    lake_read: bool


def view(service: Service, picture: Picture) -> View:
    """Everything as it is now.

    Args:
        service: its settings and its state.
        picture: what was last read of the lake.
    """
    settings, state = service.settings, service.state
    snapshot, model, now = state.snapshot, answering(state), settings.clock()
    # The model's own word for what it learned from, where there is a model.
    source = settings.world.value if model is None else model.bundle.manifest.source
    rows, scale = _rows(service, snapshot, picture, now)
    deployment = state.deployment
    return View(
        model_name=settings.model_name,
        now=now,
        ready=state.ready,
        not_ready="" if state.ready else state.not_ready,
        source=source,
        simulated=source == World.SIMULATED,
        horizon="" if model is None else figures.age(model.bundle.manifest.horizon_seconds),
        troubles=tuple(sorted(state.troubles.items())),
        ages=_ages(service, picture, now),
        axis=tuple((place, figures.mark(mark)) for place, mark in scale.ticks),
        rows=rows,
        placed=tuple(
            Placed.of(placement, loaded(state, placement))
            for placement in (() if deployment is None else deployment.placements)
        ),
        approval=None if model is None else approval(model),
        past=past(picture.history, deployment),
        drifts=drifts(picture, settings.symbols),
        lake_problem=picture.problem,
        lake_read=picture.read_at is not None,
    )


def _ages(service: Service, picture: Picture, now: datetime) -> tuple[Age, ...]:
    state = service.state
    ages = [
        Age("features read", state.age("features")),
        Age("registry asked", state.age("model")),
    ]
    if picture.read_at is not None:
        seconds = (now - picture.read_at).total_seconds()
        ages.append(Age("lake read", seconds, grows=_moves(service)))
    return tuple(ages)


def _rows(
    service: Service, snapshot: Snapshot | None, picture: Picture, now: datetime
) -> tuple[tuple[Row, ...], Scale]:
    predictions = {} if snapshot is None else dict(snapshot.predictions)
    missing = {} if snapshot is None else snapshot.missing
    scale = Scale.over(value for each in predictions.values() for value in (each.lower, each.upper))
    rows = []
    for symbol in service.settings.symbols:
        points = picture.track_of(symbol, now)
        prediction = predictions.get(symbol)
        if prediction is None:
            why = missing.get(symbol, service.state.not_ready)
            rows.append(Row(symbol, None, why, track=Track.of(points), held=_held(points)))
        else:
            rows.append(_row(service, prediction, scale, points, now))
    return tuple(rows), scale


def _row(
    service: Service,
    prediction: Prediction,
    scale: Scale,
    points: tuple[Point, ...],
    now: datetime,
) -> Row:
    seconds = (now - prediction.feature_timestamp).total_seconds()
    limit = service.settings.serving_max_feature_age
    old = seconds > limit.total_seconds()
    why = f"not served: its features are past {format_duration(limit)}" if old else ""
    return Row(
        symbol=prediction.symbol,
        prediction=None if old else prediction,
        why=why,
        up=prediction.expected_return >= 0,
        bar=Bar.of(scale, prediction.lower, prediction.expected_return, prediction.upper),
        track=Track.of(points),
        held=_held(points),
        age=Age("features", seconds, grows=_moves(service), bad=old),
    )


def _held(points: tuple[Point, ...]) -> tuple[int, int]:
    known = [each for each in points if each.realised is not None]
    inside = [each for each in known if each.lower <= (each.realised or 0.0) <= each.upper]
    return len(inside), len(known)


def _moves(service: Service) -> bool:
    """Whether the world's clock is the real one."""
    return service.settings.now is None and service.settings.clock_file is None
