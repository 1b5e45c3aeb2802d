"""Ways of writing entries of the catalog, and what an entry must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

from cryptoml_assets.features import formulas as f
from cryptoml_assets.features.feature import COLUMNS, Feature
from cryptoml_assets.features.terms import Term, columns_of, cosine, cross_rank, sine

#: Columns of a feature table that are no features.
_RESERVED = ("symbol", "event_timestamp", "null_reason", "source", "date")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def price(
    name: str, term: Term, unit: str, about: str, *, window: int | None = None, model: bool = False
) -> Feature:
    """A price feature; ``window`` bars where that is not all its value is made of."""
    rows = term.reach + 1 if window is None else window
    return Feature(name, "price_features", term, rows, unit, about, model)


def prices(
    numbers: Iterable[int],
    name: str,
    formula: Callable[[int], Term],
    unit: str,
    about: str,
    *,
    smoothed: bool = False,
    model: Collection[int] = (),
) -> Iterable[Feature]:
    """The same price feature for several numbers of bars.

    Args:
        numbers: The numbers ``n``.
        name: Name with ``{n}`` in it.
        formula: Term of ``n``.
        unit: Unit of the values.
        about: Meaning with ``{n}`` in it, and ``{kept}`` for the rows before the newest.
        smoothed: ``n`` is the span of a smoothing of what happens from bar to bar, no window.
        model: Numbers whose feature is a model input.
    """
    for n in numbers:
        term = formula(n)
        text = about.format(n=n, kept=term.reach)
        window = n + 1 if smoothed else None
        yield price(name.format(n=n), term, unit, text, window=window, model=n in model)


def lags(name: str, term: Term, count: int, unit: str) -> Iterable[Feature]:
    """The price feature ``name``, a model input, 1 to ``count`` bars before, newest first.

    Args:
        name: The feature; its lags are ``NAME_lag_1`` and so on.
        term: Its term.
        count: Lags of it.
        unit: Its unit.
    """
    for steps in range(1, count + 1):
        about = f"{name} of the bar before." if steps == 1 else f"{name} of {steps} bars before."
        yield Feature(
            f"{name}_lag_{steps}",
            "price_features",
            term.lag(steps),
            term.reach + 1,
            unit,
            about,
            model_input=True,
            lag_of=(name, steps),
        )


def macd(name: str, spans: tuple[int, int, int], source: str) -> Iterable[Feature]:
    """The line, its signal and what is between them, of a fast, a slow and a signal span."""
    fast, slow, span = spans
    line = f"Exponential mean of the close over {fast} bars less that over {slow}"
    smoothed = f"Exponential mean over {span} bars of the difference in {name}"
    apart = f"The difference in {name} less its exponential mean in {name}_signal"
    for suffix, term, window, about in (
        ("", f.macd_line(fast, slow), slow, line),
        ("_signal", f.macd_signal(fast, slow, span), slow + span - 1, smoothed),
        ("_histogram", f.macd_histogram(fast, slow, span), slow + span - 1, apart),
    ):
        text = f"{about}, over the close ({source}); weights are cut off after a millionth."
        yield price(name + suffix, term, "ratio", text, window=window)


def rank(name: str, term: Term) -> Feature:
    """Where the feature ``name`` stands among the symbols."""
    about = (
        f"Rank of {name} among the symbols that have one at that instant, over their number; equal "
        "ones share the mean of their ranks. Null where fewer than two have."
    )
    return price(f"rank_{name}", cross_rank(term), "0-1", about)


def waves(name: str, phase: Term, about: str, *, model: bool = False) -> Iterable[Feature]:
    """Sine and cosine of an angle that stands for ``about``."""
    yield price(f"{name}_sin", sine(phase), "-1..1", f"Sine of the {about}.", model=model)
    yield price(f"{name}_cos", cosine(phase), "-1..1", f"Cosine of the {about}.", model=model)


def daily(name: str, term: Term, unit: str, about: str, *, model: bool = False) -> Feature:
    """An on-chain feature."""
    return Feature(name, "onchain_features", term, term.reach + 1, unit, about, model)


def changes(name: str, term: Term, about: str) -> Iterable[Feature]:
    """How an on-chain quantity changed over a day and over a week."""
    for n, before in ((1, "the day before"), (7, "7 days before")):
        text = f"Log of {about} over that of {before}."
        yield daily(f"{name}_{n}", f.growth(term, n), "log ratio", text)


def checked(*features: Feature) -> tuple[Feature, ...]:
    """``features``, as a catalog may hold them.

    Raises:
        ValueError: one whose name is no column name or another's, that does not say what it is,
            that is made of what its table does not see, or that is not the lag it says it is;
            channels of unequal length.
    """
    before: dict[str, Feature] = {}
    for feature in features:
        name = feature.name
        if not _NAME.fullmatch(name) or name in _RESERVED:
            taken = ", ".join(_RESERVED)
            message = (
                f"feature name {name!r}: accepted are lower-case words joined by _, not {taken}"
            )
            raise ValueError(message)
        if name in before:
            raise ValueError(f"feature {name} is in the catalog more than once")
        _refuse_other_lags(feature, before)
        before[name] = feature
        if not feature.unit.strip() or not feature.description.strip():
            raise ValueError(f"feature {name} has no unit or no description; both are needed")
        if not 1 <= feature.window <= feature.warmup + 1:
            made_of = f"accepted are 1 to {feature.warmup + 1}, the rows its value is made of"
            raise ValueError(f"feature {name} has a window of {feature.window} rows; {made_of}")
        seen = COLUMNS[feature.table]
        if strange := {each.name for each in columns_of([feature.term])} - set(seen):
            message = f"feature {name} is made of {', '.join(sorted(strange))}"
            raise ValueError(f"{message}; {feature.table} sees {', '.join(seen)}")
    _refuse_holed_channels(features)
    return features


def _refuse_other_lags(feature: Feature, before: Mapping[str, Feature]) -> None:
    if feature.lag_of is None:
        return
    name, steps = feature.lag_of
    of = before.get(name)
    if of is None or not of.model_input or steps < 1 or feature.term is not of.term.lag(steps):
        message = f"feature {feature.name} is no {name} of {steps} rows before"
        raise ValueError(f"{message}; accepted are the lags of a model input that stands before it")


def _refuse_holed_channels(features: Iterable[Feature]) -> None:
    """A model of windows reads as many rows of every channel, each row of it."""
    found: dict[str, list[int]] = {}
    for feature in features:
        if feature.lag_of is not None:
            found.setdefault(feature.lag_of[0], []).append(feature.lag_of[1])
    longest = max((max(steps) for steps in found.values()), default=0)
    for name, steps in found.items():
        if sorted(steps) != list(range(1, longest + 1)):
            there = ", ".join(map(str, sorted(steps)))
            message = f"feature {name} has the lags {there}; accepted are 1 to {longest}"
            raise ValueError(f"{message}, as of every channel")
