"""What a model answers, as columns whose drift can be told."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cryptoml_serving.contract.served import SERVED_PREDICTIONS

if TYPE_CHECKING:
    from cryptoml_assets.deployment.history import Entry
    from cryptoml_assets.resources.lake import Lake

#: What is judged of each prediction. The width is that of the 90 % interval, a log return.
OUTPUTS = ("expected_return", "interval_width", "probability_up")


def outputs(answers: pl.DataFrame) -> pl.DataFrame:
    """:data:`OUTPUTS` of answers.

    Args:
        answers: ``symbol``, ``event_timestamp`` and the outputs of a bundle; ``source`` is kept.
    """
    kept = [name for name in ("symbol", "event_timestamp", "source") if name in answers.columns]
    width = (pl.col("upper") - pl.col("lower")).alias("interval_width")
    return answers.select(*kept, width, "expected_return", "probability_up").select(*kept, *OUTPUTS)


def served_answers(lake: Lake, champion: Entry, since: datetime, until: datetime) -> pl.DataFrame:
    """What a champion's bundle answered at the feature instants of a while, by the log.

    It counts whatever the version was at the time: as a challenger it answered the same.

    Args:
        lake: holds the log; nothing was served where there is none.
        champion: the decision about the version.
        since: left out itself.
        until: the last instant.

    Returns:
        ``symbol``, ``event_timestamp``, ``source`` and :data:`OUTPUTS`.
    """
    if not lake.exists(SERVED_PREDICTIONS):
        return _NOTHING
    days = [since.date() + timedelta(days=n) for n in range((until.date() - since.date()).days + 1)]
    subject, instant = champion.subject, pl.col("feature_timestamp")
    rows = lake.scan(SERVED_PREDICTIONS, days).filter(
        instant.is_between(since, until, closed="right"),
        pl.col("model_name") == subject.model_name,
        pl.col("bundle_digest") == subject.bundle_digest,
    )
    return outputs(rows.rename({"feature_timestamp": "event_timestamp"}).collect())


_NOTHING = pl.DataFrame(
    schema={
        "symbol": pl.String(),
        "event_timestamp": pl.Datetime("us", "UTC"),
        "source": pl.String(),
        **dict.fromkeys(OUTPUTS, pl.Float64()),
    }
)
