"""Ways of writing entries of the catalog, and what an entry must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from cryptoml_assets.features import formulas as f
from cryptoml_assets.features.feature import COLUMNS, Feature
from cryptoml_assets.features.terms import Term, columns_of, cross_rank

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
        ValueError: one whose name is no column name or another's, that does not say what it is, or
            that is made of what its table does not see.
    """
    names: set[str] = set()
    for feature in features:
        name = feature.name
        if not _NAME.fullmatch(name) or name in _RESERVED:
            taken = ", ".join(_RESERVED)
            message = (
                f"feature name {name!r}: accepted are lower-case words joined by _, not {taken}"
            )
            raise ValueError(message)
        if name in names:
            raise ValueError(f"feature {name} is in the catalog more than once")
        names.add(name)
        if not feature.unit.strip() or not feature.description.strip():
            raise ValueError(f"feature {name} has no unit or no description; both are needed")
        if not 1 <= feature.window <= feature.warmup + 1:
            made_of = f"accepted are 1 to {feature.warmup + 1}, the rows its value is made of"
            raise ValueError(f"feature {name} has a window of {feature.window} rows; {made_of}")
        seen = COLUMNS[feature.table]
        if strange := {each.name for each in columns_of([feature.term])} - set(seen):
            message = f"feature {name} is made of {', '.join(sorted(strange))}"
            raise ValueError(f"{message}; {feature.table} sees {', '.join(seen)}")
    return features
