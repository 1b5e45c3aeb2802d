"""How versions did live, beside what their training runs promised of them.

Whether a version is below its promise is a question of significance: outcomes overlap and symbols
move together, so p-values come from the block bootstrap of `models.significance`, and the promise
is itself a mean over the rows of a test part, which could have come out otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cryptoml_assets.models.significance import overlap_block, regime_block
from cryptoml_assets.monitoring.outcomes import NEWEST, PREDICTION_OUTCOMES, longest_horizon
from cryptoml_assets.monitoring.resolved import resolved_p_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cryptoml_assets.resources.lake import Lake

#: What stands for every symbol.
ALL = "all"
#: Name of each window, up to now, and its length.
WINDOWS = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
#: Figures of a window; each but the sums is a mean over outcomes.
FIGURES = ("predictions", "accuracy", "log_loss", "mse", "crps", "coverage", "pnl_usd")
_LONGEST = max(WINDOWS.values())
_FEWEST_BLOCKS = 2
_INSTANT = pl.Datetime("us", "UTC")
SCHEMA = pl.Schema(
    {
        "model_name": pl.String(),
        "model_version": pl.String(),
        "role": pl.String(),
        "symbol": pl.String(),
        "time_window": pl.String(),
        "window_start": _INSTANT,
        "window_end": _INSTANT,
        "predictions": pl.Int64(),
        "accuracy": pl.Float64(),
        "log_loss": pl.Float64(),
        "mse": pl.Float64(),
        "crps": pl.Float64(),
        "coverage": pl.Float64(),
        "pnl_usd": pl.Float64(),
        "promised_accuracy": pl.Float64(),
        "promised_log_loss": pl.Float64(),
        "promised_coverage": pl.Float64(),
        "below_promise": pl.Boolean(),
        "p_value": pl.Float64(),
        "source": pl.String(),
    }
)
KEY = ("model_name", "model_version", "role", "symbol", "time_window")
MEANINGS = {
    "model_name": "name of the registered model",
    "model_version": "the registry's version of the model",
    "role": "what the version was when it predicted: champion, shadow or canary",
    "symbol": f"base and quote currency, BASE/QUOTE, or {ALL}",
    "time_window": f"how far back outcomes count: {', '.join(WINDOWS)}",
    "window_start": "outcomes known after this instant count (UTC)",
    "window_end": "up to this one (UTC)",
    "predictions": "predictions whose outcome is known",
    "accuracy": "share of directions told right",
    "log_loss": "mean log loss of the probability of an up move, nats",
    "mse": "mean squared error of the expected log return",
    "crps": "mean continuous ranked probability score, log return",
    "coverage": "share of returns inside the 90 % interval",
    "pnl_usd": "result of all positions net of costs, USD",
    "promised_accuracy": "accuracy in the newest test part of the version's training run",
    "promised_log_loss": "log loss there",
    "promised_coverage": "coverage there",
    "below_promise": "whether accuracy, log loss or coverage is worse than promised by more than "
    "luck explains; judged of all symbols together, on enough outcomes",
    "p_value": "probability of figures as bad as these if the promise holds, corrected for how "
    "many figures and windows are looked at; null where not judged",
    "source": "worlds the version learned from",
}


@dataclass(frozen=True)
class Promise:
    """Figures of the newest test part of a training run.

    Attributes:
        accuracy: share of directions told right.
        log_loss: nats.
        coverage: share of labels inside the 90 % interval.
        rows: how many rows they are means of.
    """

    accuracy: float
    log_loss: float
    coverage: float
    rows: float

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> Promise | None:
        """The promise of a run's figures; none where the run lacks one of them."""
        names = {"rows": "test_rows"}
        try:
            return cls(
                **{name: figures[names.get(name, name)] for name in cls.__dataclass_fields__}
            )
        except KeyError:
            return None


def promises(client: Any, outcomes: pl.DataFrame) -> dict[str, Promise]:
    """What the training run of each version promised; a version or run that is gone, nothing.

    Args:
        client: of the tracker.
        outcomes: of which versions.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds to import

    from cryptoml_assets.models.registration import (  # noqa: PLC0415 - imports mlflow
        out_of_sample_figures,
    )

    found = {}
    versions = outcomes.select("model_name", "model_version").unique()
    for name, version in versions.sort(pl.all()).iter_rows():
        try:
            run = client.get_run(client.get_model_version(name, version).run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            continue
        if (promise := Promise.of(out_of_sample_figures(run))) is not None:
            found[version] = promise
    return found


def recent_outcomes(lake: Lake, now: datetime) -> pl.DataFrame:
    """Outcomes with a known return that the longest window may hold, in order of time.

    Where a version answered again as features of an instant changed, its last answer counts.
    """
    # A horizon of up to the longest window lies between a prediction's day and its outcome.
    first = (now - 2 * _LONGEST).date()
    return (
        lake.scan(PREDICTION_OUTCOMES)
        .filter(
            pl.col("date") >= first,
            pl.col("realised_return").is_not_null(),
            pl.col("outcome_at").is_between(now - _LONGEST, now, closed="right"),
        )
        .filter(NEWEST)
        .sort("feature_timestamp", "symbol", "prediction_id")
        .collect()
    )


def performance(
    outcomes: pl.DataFrame,
    promises: Mapping[str, Promise],
    *,
    now: datetime,
    minimum: int,
    significance: float,
    seed: int,
) -> pl.DataFrame:
    """Figures of each version, role, symbol and window.

    Args:
        outcomes: with a known return, as :func:`recent_outcomes` gives them.
        promises: of versions, where known.
        now: end of every window.
        minimum: least number of outcomes that are judged.
        significance: largest p-value at which a version counts as below its promise: of versions
            that keep their promise, at most this share is found below it in one report.
        seed: of the bootstrap.

    Returns:
        :data:`SCHEMA`, sorted; windows without outcomes have no row.
    """
    parts = [pl.DataFrame(schema=SCHEMA)]
    for group in outcomes.partition_by("model_name", "model_version", "role"):
        promise = promises.get(group["model_version"][0])
        windows = {
            name: group.filter(pl.col("outcome_at") > now - length)
            for name, length in WINDOWS.items()
        }
        judged = (
            _judge(windows, promise, minimum, significance, seed) if promise is not None else {}
        )
        for name, rows in windows.items():
            every = _figures(rows.with_columns(symbol=pl.lit(ALL)), name, promise, now)
            p_value = pl.lit(judged.get(name), pl.Float64())
            parts += [_figures(rows, name, promise, now), every.with_columns(p_value=p_value)]
    below = (pl.col("p_value") <= significance).fill_null(value=False)
    return (
        pl.concat([part.select(SCHEMA.names()).cast(SCHEMA) for part in parts])
        .with_columns(below_promise=below)
        .sort("model_name", pl.col("model_version").cast(pl.Int64, strict=False), *KEY[2:])
    )


def champion_figures(
    report: pl.DataFrame, *, model_name: str, champion: str | None
) -> dict[str, Any]:
    """What the report says of the champion over all symbols: figures such as ``accuracy_24h``.

    A version that stood before it is nobody's concern here, however new its outcomes are: it takes
    a horizon until the first of the one after it are known.

    Args:
        report: of :func:`performance`.
        model_name: of the registered model.
        champion: the version that answers now; none before the first approval.

    Returns:
        ``judged`` says whether any window held enough outcomes of it, ``below_promise`` whether it
        is below its promise in any, so not where it is not judged; ``versions`` which are in the
        report.
    """
    own = report.filter(
        role="champion", symbol=ALL, model_name=model_name, model_version=champion or ""
    )
    told: dict[str, Any] = {
        "judged": bool(own["p_value"].is_not_null().any()),
        "below_promise": bool(own["below_promise"].any()),
        "versions": sorted(set(report["model_version"])),
    }
    if champion is not None:
        told["champion"] = champion
    for row in own.iter_rows(named=True):
        figures = {name: row[name] for name in (*FIGURES, "p_value") if row[name] is not None}
        told |= {f"{name}_{row['time_window']}": value for name, value in figures.items()}
    return told


def shortfall(rows: pl.DataFrame, promise: Promise, level: float, seed: int) -> float | None:
    """Probability of outcomes as bad as these, in any one figure, if the promise holds.

    Args:
        rows: outcomes of one version, of all symbols.
        promise: of its training run.
        level: what the probability is held against; it can be as small as that.
        seed: of the bootstrap.

    Returns:
        Corrected for the number of figures; none where the outcomes span too little time to tell,
        and where a figure, or its promise, is no number.
    """
    events = rows["feature_timestamp"].dt.replace_time_zone(None).to_numpy()
    horizon = np.timedelta64(longest_horizon(rows))
    overlap = overlap_block(horizon)
    if events.max() - events.min() < _FEWEST_BLOCKS * overlap:
        return None
    correct, covered = (rows[name].cast(float).to_numpy() for name in ("correct", "covered"))
    worse = (
        (promise.accuracy - correct, overlap),
        (rows["log_loss"].to_numpy() - promise.log_loss, overlap),
        (promise.coverage - covered, regime_block(horizon)),
    )
    if not all(np.isfinite(by).all() for by, _ in worse):
        return None
    least = min(
        resolved_p_value(events, _discounted(by, promise.rows), block, seed, level / len(worse))
        for by, block in worse
    )
    return min(1.0, len(worse) * least)


def _discounted(worse: NDArray[np.float64], promised_rows: float) -> NDArray[np.float64]:
    """How much worse each row is than promised, their mean as small as the promise's error makes.

    If the version does as well as ever, the promise is a mean over ``promised_rows`` such rows, and
    errs by as much more or less than the mean of these as it is of fewer or more rows. Their
    difference is wider than the mean alone by the factor the mean is divided by.
    """
    wider = np.sqrt(1.0 + len(worse) / promised_rows)
    discounted: NDArray[np.float64] = worse - worse.mean() * (1.0 - 1.0 / wider)
    return discounted


def _judge(
    windows: Mapping[str, pl.DataFrame],
    promise: Promise,
    minimum: int,
    significance: float,
    seed: int,
) -> dict[str, float]:
    """The p-value of each window with enough outcomes, corrected for how many windows there are."""
    found: dict[str, float] = {}
    heights = set()
    for name, rows in windows.items():
        if rows.height < minimum:
            continue
        p_value = shortfall(rows, promise, significance / len(windows), seed)
        if p_value is not None:
            found[name] = p_value
            # Windows end at the same instant: of as many rows, they hold the same ones.
            heights.add(rows.height)
    return {name: min(1.0, len(heights) * p_value) for name, p_value in found.items()}


def _figures(
    rows: pl.DataFrame, window: str, promise: Promise | None, now: datetime
) -> pl.DataFrame:
    """:data:`SCHEMA` of one version and role in one window; not judged yet."""
    promised = {
        f"promised_{name}": pl.lit(getattr(promise, name, None), pl.Float64())
        for name in ("accuracy", "log_loss", "coverage")
    }
    return (
        rows.group_by("model_name", "model_version", "role", "symbol")
        .agg(
            predictions=pl.len(),
            accuracy=pl.col("correct").mean(),
            log_loss=pl.col("log_loss").mean(),
            mse=pl.col("squared_error").mean(),
            crps=pl.col("crps").mean(),
            coverage=pl.col("covered").mean(),
            pnl_usd=pl.col("pnl_usd").sum(),
            source=pl.col("source").unique().sort().str.join("+"),
        )
        .with_columns(
            **promised,
            time_window=pl.lit(window),
            window_start=pl.lit(now - WINDOWS[window], _INSTANT),
            window_end=pl.lit(now, _INSTANT),
            below_promise=pl.lit(value=False),
            p_value=pl.lit(None, pl.Float64()),
        )
    )
