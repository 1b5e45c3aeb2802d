"""What became of served predictions: each held against the return that followed it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from cryptoml_assets.features.training_set import with_labels
from cryptoml_assets.models.evaluation import covered, row_losses, told_right
from cryptoml_assets.models.rows import Rows
from cryptoml_assets.models.strategy import Costs, direction, takeovers
from cryptoml_serving.contract.manifest import OUTPUTS

#: The lake table, stored by days of ``feature_timestamp``.
PREDICTION_OUTCOMES = "prediction_outcomes"
#: What a present text of rules says of how outcomes are computed; another one, and all are again.
_FORMULAS = 1
_INSTANT = pl.Datetime("us", "UTC")
#: What is known of a prediction only once its horizon has passed; null where a bar is missing.
SCORES = {
    "realised_return": pl.Float64(),
    "correct": pl.Boolean(),
    "covered": pl.Boolean(),
    "log_loss": pl.Float64(),
    "squared_error": pl.Float64(),
    "crps": pl.Float64(),
}
SCHEMA = pl.Schema(
    {
        "prediction_id": pl.String(),
        "model_name": pl.String(),
        "model_version": pl.String(),
        "role": pl.String(),
        "symbol": pl.String(),
        "feature_timestamp": _INSTANT,
        "computed_at": _INSTANT,
        "horizon_seconds": pl.Int64(),
        **dict.fromkeys(OUTPUTS, pl.Float64()),
        "outcome_at": _INSTANT,
        **SCORES,
        "position": pl.Int64(),
        "pnl_usd": pl.Float64(),
        "source": pl.String(),
        "date": pl.Date(),
    }
)
KEY = ("prediction_id",)
MEANINGS = {
    "prediction_id": "name of the prediction: same bundle, symbol, feature instant and feature "
    "values, same name",
    "model_name": "name of the registered model",
    "model_version": "the registry's version of the model",
    "bundle_digest": "digest of the bundle that predicted",
    "role": "what the version was when it predicted: champion, shadow or canary",
    "symbol": "base and quote currency, BASE/QUOTE",
    "feature_timestamp": "close of the newest bar the features were computed from (UTC)",
    "horizon_seconds": "how far ahead the return reaches, seconds",
    "expected_return": "expected log return over the horizon",
    "lower": "lower end of the 90 % interval, log return",
    "upper": "upper end of the 90 % interval, log return",
    "probability_up": "probability of a positive return",
    "computed_at": "when the prediction was computed (UTC)",
    "sequence": "number of the decision under which the version served",
    "outcome_at": "when the horizon had passed (UTC)",
    "realised_return": "log return over the horizon, as training labels are computed; null where a "
    "bar is missing for good",
    "correct": "whether the direction was told right; even odds are told as down",
    "covered": "whether the return lies in the interval",
    "log_loss": "of the probability of an up move, nats",
    "squared_error": "of the expected return",
    "crps": "continuous ranked probability score of the predicted distribution, log return",
    "position": "1 long, -1 short, 0 none: in the direction of an expected return that is larger "
    "than a round trip costs; none where features changed and a later prediction took its place",
    "pnl_usd": "result of the position net of costs, for CRYPTOML_TRADE_NOTIONAL_USD, USD",
    "source": "the world the model learned from: simulated, replay or live",
    "date": "UTC day of feature_timestamp; the partition",
}


_ASKED = ("model_name", "model_version", "symbol", "feature_timestamp", "horizon_seconds")
#: Of predictions that one version made of one symbol and instant: whether it is the last. There
#: are several where features of that instant changed, and the last one is what the version stands
#: for. Ids are unique.
NEWEST = pl.col("prediction_id") == (
    pl.col("prediction_id").sort_by("computed_at", "prediction_id").last().over(_ASKED)
)


@dataclass(frozen=True)
class Rules:
    """How outcomes are computed.

    Attributes:
        costs: of trading.
        notional_usd: amount of one position, USD.
        patience: time after a bar's close past which it is not waited for any longer.
        horizon: how far predictions reach, as far as is known before they are read.
    """

    costs: Costs
    notional_usd: float
    patience: timedelta
    horizon: timedelta

    def text(self) -> str:
        """Changes when outcomes of the same predictions and bars do."""
        costs = f"{self.costs.fee_bps:g}+{self.costs.slippage_bps:g} bps"
        return f"{_FORMULAS}: {costs} of {self.notional_usd:g} USD, {self.patience}"


def without_duplicates(served: pl.DataFrame) -> pl.DataFrame:
    """Each prediction once: of rows of one id the one that was computed first counts."""
    order = ("computed_at", "sequence", "model_version", "role")
    return served.sort("prediction_id", *order).unique(
        "prediction_id", keep="first", maintain_order=True
    )


def longest_horizon(served: pl.DataFrame) -> timedelta:
    """The longest horizon of any prediction; none without rows."""
    return timedelta(seconds=int(served["horizon_seconds"].max() or 0))  # type: ignore[arg-type]


def outcomes(
    served: pl.DataFrame, bars: pl.DataFrame, *, now: datetime, rules: Rules
) -> pl.DataFrame:
    """What became of the predictions whose horizon has passed.

    Args:
        served: predictions, each once, with those one horizon before and after them: a position is
            taken over by the one that follows it a horizon later of the same version and symbol.
            Only the :data:`NEWEST` of an instant has one.
        bars: ``raw_prices`` of one venue and length.
        now: the present instant.
        rules: how outcomes are computed.

    Returns:
        :data:`SCHEMA`, in order of time, symbol and id. A prediction whose bar is not there yet has
        no row; when it is past waiting for, it has one with nulls.
    """
    parts = [
        _of_one_horizon(group, bars, timedelta(seconds=seconds), rules)
        for (seconds,), group in served.partition_by("horizon_seconds", as_dict=True).items()
    ]
    if not parts:
        return pl.DataFrame(schema=SCHEMA)
    passed = pl.col("outcome_at") <= now
    lost = pl.col("outcome_at") + rules.patience < now
    return (
        pl.concat(parts)
        .filter(passed & (pl.col("realised_return").is_not_null() | lost))
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        .sort("feature_timestamp", "symbol", "prediction_id")
    )


def _of_one_horizon(
    served: pl.DataFrame, bars: pl.DataFrame, horizon: timedelta, rules: Rules
) -> pl.DataFrame:
    """Every prediction of one horizon with its position and, where the bars are there, scores."""
    held = _with_positions(served, horizon, rules.costs)
    keys = held.select("prediction_id", "symbol", event_timestamp="feature_timestamp")
    labels = with_labels(keys.lazy(), bars.lazy(), horizon).collect()
    known = held.join(
        labels.filter(pl.col("label").is_finite()).select("prediction_id", "label"),
        on="prediction_id",
    )
    result = pl.col("position") * (pl.col("realised_return").exp() - 1.0)
    return (
        held.with_columns(outcome_at=pl.col("feature_timestamp") + horizon)
        .join(_scores(known), on="prediction_id", how="left")
        .with_columns(
            pnl_usd=rules.notional_usd * (result - pl.col("traded") * rules.costs.one_way)
        )
    )


def _with_positions(served: pl.DataFrame, horizon: timedelta, costs: Costs) -> pl.DataFrame:
    """Each prediction with its position and the amount it trades, in multiples of the position."""
    newest = served.select(NEWEST).to_series()
    held = _taken_over(served.filter(newest), horizon, costs)
    # What was answered before took no position that lasted.
    none = {"position": pl.lit(0.0), "traded": pl.lit(0.0)}
    return pl.concat([held, served.filter(~newest).with_columns(**none)])


def _taken_over(served: pl.DataFrame, horizon: timedelta, costs: Costs) -> pl.DataFrame:
    """As :func:`_with_positions`, of predictions that are the newest of their instants."""
    # The book of a version and symbol goes on whatever its role was.
    books = pl.concat_str("model_name", "model_version", "symbol", separator="\0")
    events, ends = (
        (served["feature_timestamp"] + reach).dt.replace_time_zone(None).to_numpy()
        for reach in (timedelta(0), horizon)
    )
    rows = Rows(
        symbols=served.select(books).to_series().to_numpy().astype(np.str_),
        events=events,
        label_times=ends,
        features=np.zeros((len(events), 0), np.float32),
        labels=np.zeros(len(events)),
    )
    position = direction(served["expected_return"].to_numpy().astype(np.float32), costs)
    _, traded = takeovers(rows, position, np.timedelta64(horizon))
    return served.with_columns(position=pl.Series(position), traded=pl.Series(traded))


def _scores(known: pl.DataFrame) -> pl.DataFrame:
    """:data:`SCORES` of predictions whose return is known, by id."""
    labels = known["label"].to_numpy()
    # As the bundle answered: its outputs are 32-bit numbers.
    answers = {name: known[name].to_numpy().astype(np.float32) for name in OUTPUTS}
    losses = row_losses(labels, answers)
    errors = labels - answers["expected_return"].astype(np.float64)
    scores = known.select(
        "prediction_id",
        realised_return="label",
        correct=pl.Series(told_right(labels, answers) == 1.0),
        covered=pl.Series(covered(labels, answers) == 1.0),
        log_loss=pl.Series(losses.log_loss),
        squared_error=pl.Series(errors**2),
        crps=pl.Series(losses.crps),
    )
    return scores.with_columns(pl.col(pl.Float64).replace([np.inf, -np.inf, np.nan], None))
