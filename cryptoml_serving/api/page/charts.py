"""Where the page's drawings have their lines: plain geometry, in percent or in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptoml_serving.runtime.lake_tables import Point

#: Round numbers between two powers of ten that an axis may end at.
_ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_BASIS_POINTS = 1e4
#: Size of the small drawing of past answers, in pixels.
WIDTH = 220
HEIGHT = 36
_MARGIN = 2.0
#: Fewest answers that make a line.
_FEWEST = 2


@dataclass(frozen=True)
class Scale:
    """An axis of returns around zero, as wide on both sides.

    Attributes:
        most: log return at either end.
    """

    most: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Scale:
        """The narrowest round axis that holds all values; a basis point at least."""
        largest = max((abs(value) for value in values), default=0.0) * _BASIS_POINTS
        largest = max(largest, 1.0)
        power = 10.0 ** math.floor(math.log10(largest))
        end = next(each for each in _ROUND if each * power >= largest * (1 - 1e-9))
        return cls(end * power / _BASIS_POINTS)

    def at(self, value: float) -> float:
        """Where a return lies between the ends, in percent; none lies beyond."""
        return round(50 + 50 * max(-1.0, min(1.0, value / self.most)), 2)

    @property
    def ticks(self) -> tuple[tuple[float, float], ...]:
        """Place in percent and basis points of the axis' marks."""
        return tuple(
            (50 + 50 * part, part * self.most * _BASIS_POINTS) for part in (-1, -0.5, 0, 0.5, 1)
        )


@dataclass(frozen=True)
class Bar:
    """One interval on a scale, in percent of its width."""

    left: float
    width: float
    point: float

    @classmethod
    def of(cls, scale: Scale, lower: float, value: float, upper: float) -> Bar:
        """The interval and the value in it."""
        left, right = scale.at(lower), scale.at(upper)
        return cls(left, round(right - left, 2), scale.at(value))


@dataclass(frozen=True)
class Track:
    """Past answers as a band with a line in it, and what came of them as dots.

    Attributes:
        band: path of the intervals.
        line: path of the expected returns.
        zero: height of the zero line.
        inside: dots of the returns that their interval held, ``(x, y)``.
        outside: those it did not hold.
        end: where the newest answer is.
    """

    band: str
    line: str
    zero: float
    inside: tuple[tuple[float, float], ...]
    outside: tuple[tuple[float, float], ...]
    end: tuple[float, float]

    @classmethod
    def of(cls, points: Sequence[Point]) -> Track | None:
        """The drawing of these answers, oldest first; none of fewer than two."""
        if len(points) < _FEWEST:
            return None
        values = [each.lower for each in points] + [each.upper for each in points]
        values += [each.realised for each in points if each.realised is not None]
        low, high = min(*values, 0.0), max(*values, 0.0)
        first, last = points[0].at, points[-1].at
        span = (last - first).total_seconds() or 1.0
        height = (high - low) or 1.0

        def y(value: float) -> float:
            return round(_MARGIN + (HEIGHT - 2 * _MARGIN) * (high - value) / height, 1)

        xs = [
            round(_MARGIN + (WIDTH - 2 * _MARGIN) * (each.at - first).total_seconds() / span, 1)
            for each in points
        ]
        over = [f"{x} {y(each.upper)}" for x, each in zip(xs, points, strict=True)]
        under = [f"{x} {y(each.lower)}" for x, each in zip(xs, points, strict=True)]
        known = [
            (x, y(each.realised), each.lower <= each.realised <= each.upper)
            for x, each in zip(xs, points, strict=True)
            if each.realised is not None
        ]
        line = [f"{x} {y(each.expected_return)}" for x, each in zip(xs, points, strict=True)]
        return cls(
            band=f"M{'L'.join(over)}L{'L'.join(reversed(under))}Z",
            line=f"M{'L'.join(line)}",
            zero=y(0.0),
            inside=tuple((x, height) for x, height, held in known if held),
            outside=tuple((x, height) for x, height, held in known if not held),
            end=(xs[-1], y(points[-1].expected_return)),
        )
