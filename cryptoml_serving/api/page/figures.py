"""Numbers, ages and instants as the page writes them."""

from __future__ import annotations

import math
from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_MINUS = "\N{MINUS SIGN}"
_NOTHING = "\N{EM DASH}"
_BASIS_POINTS = 1e4
_THOUSAND = 1000
_MINUTE = 60
_HOUR = 3600
_DAY = 86400
_DIGITS = 4


def basis_points(value: float | None, digits: int = 1) -> str:
    """A log return in basis points, always with its sign: ``+12.3``."""
    if value is None:
        return _NOTHING
    text = f"{value * _BASIS_POINTS:+.{digits}f}"
    if float(text) == 0:
        text = text[1:]
    return text.replace("-", _MINUS)


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent, without the sign for it: ``52.8``."""
    return _NOTHING if value is None else f"{value * 100:.{digits}f}"


def figure(value: float) -> str:
    """A figure of any size in at most four digits: ``17,270``, ``0.01518``, ``1.833e-04``."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= _THOUSAND:
        text = f"{value:,.0f}"
    elif size >= 10 ** (-_DIGITS + 1):
        text = f"{value:.{_DIGITS}g}"
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    return text.replace("-", _MINUS)


def age(seconds: float | None) -> str:
    """How long ago, in its two largest units: ``4 s``, ``5 min``, ``2 h 10 min``, ``3 d``."""
    if seconds is None or math.isnan(seconds):
        return _NOTHING
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        minutes = whole % _HOUR // _MINUTE
        return f"{whole // _HOUR} h {minutes} min" if minutes else f"{whole // _HOUR} h"
    hours = whole % _DAY // _HOUR
    return f"{whole // _DAY} d {hours} h" if hours else f"{whole // _DAY} d"


def mark(basis: float) -> str:
    """A mark of an axis in basis points, with its sign: ``+75``."""
    return f"{basis:+g}".replace("-", _MINUS) if basis else "0"


def instant(at: datetime) -> str:
    """Day and minute, UTC: ``2026-11-22 02:03``."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def clock(at: datetime) -> str:
    """Time of the day, UTC: ``02:03:24``."""
    return f"{at.astimezone(UTC):%H:%M:%S}"


def machine(at: datetime) -> str:
    """As a ``time`` element wants it."""
    return at.astimezone(UTC).isoformat()


def words(name: str) -> str:
    """A name of code as words: ``beats_base_rate`` is ``beats base rate``."""
    return name.replace("_", " ")
