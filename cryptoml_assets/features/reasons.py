"""The reasons for which a value is null, by name."""

from __future__ import annotations

from collections.abc import Collection

BEFORE_HISTORY, MISSING_BAR = "before_history", "missing_bar"
OTHER_SYMBOL_MISSING, UNDEFINED = "other_symbol_missing", "undefined"
NOT_PUBLISHED, NO_FINAL_BLOCKS = "not_published", "no_final_blocks"

#: What each reason says, for people.
REASONS = {
    BEFORE_HISTORY: "the window reaches back before the symbol's first bar",
    MISSING_BAR: "a bar of the window is not there",
    OTHER_SYMBOL_MISSING: "a bar of another symbol, such as bitcoin, is not there",
    UNDEFINED: "all is there, but the formula has no value, as of a price that never moved",
    NOT_PUBLISHED: "a metric of a day of the window is not there",
    NO_FINAL_BLOCKS: "a day of the window has no final block",
}
#: Column of a feature table: the reasons of all null values of a row, sorted, joined by ``+``.
NULL_REASON = "null_reason"


def joined(reasons: Collection[str]) -> str | None:
    """Reasons as a row holds them; none for no reason."""
    return "+".join(sorted(reasons)) or None
