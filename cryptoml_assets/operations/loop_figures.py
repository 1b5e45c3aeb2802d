"""What a proof of the loop tells: how each version did live, before and after the change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from cryptoml_assets.monitoring.outcomes import PREDICTION_OUTCOMES
from cryptoml_serving.contract.served import SERVED_PREDICTIONS

if TYPE_CHECKING:
    from cryptoml_assets.resources.lake import Lake


@dataclass(frozen=True)
class Live:
    """How the champion of a span of time did live.

    Attributes:
        version: the model's.
        outcomes: predictions whose outcome is known.
        accuracy: share of directions told right.
        log_loss: mean, nats; a coin has 0.693.
        pnl_usd: sum over them.
    """

    version: str
    outcomes: int
    accuracy: float
    log_loss: float
    pnl_usd: float

    def told(self) -> str:
        """In words."""
        return (
            f"version {self.version}: accuracy {self.accuracy:.3f}, log loss {self.log_loss:.3f} "
            f"over {self.outcomes} outcomes"
        )


def live(lake: Lake, version: str, begins: datetime, ends: datetime | None = None) -> Live | None:
    """How ``version`` did as champion on predictions made in [begins, ends); none without any."""
    if not lake.exists(PREDICTION_OUTCOMES):
        return None
    rows = lake.scan(PREDICTION_OUTCOMES).filter(
        pl.col("role") == "champion",
        pl.col("model_version") == version,
        pl.col("feature_timestamp") >= begins,
        pl.col("correct").is_not_null(),
    )
    if ends is not None:
        rows = rows.filter(pl.col("feature_timestamp") < ends)
    figures: dict[str, Any] = (
        rows.select(
            outcomes=pl.len(),
            accuracy=pl.col("correct").mean(),
            log_loss=pl.col("log_loss").mean(),
            pnl_usd=pl.col("pnl_usd").sum(),
        )
        .collect()
        .row(0, named=True)
    )
    return Live(version, **figures) if figures["outcomes"] else None


def newest_served(lake: Lake, version: str) -> datetime | None:
    """Feature instant of the newest prediction of ``version`` in the lake; none without any."""
    if not lake.exists(SERVED_PREDICTIONS):
        return None
    of_version = lake.scan(SERVED_PREDICTIONS).filter(pl.col("model_version") == version)
    newest: datetime | None = of_version.select(pl.col("feature_timestamp").max()).collect().item()
    return newest
