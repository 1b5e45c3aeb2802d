"""The valuation ratios of networks, recomputed from what they are made of."""

from __future__ import annotations

import polars as pl

from cryptoml_assets.onchain.network_metrics import KEY

#: Largest share of the reported figure by which the recomputed one may differ from it.
TOLERANCE = 0.01


def market_cap() -> pl.Expr:
    """Market capitalisation in USD: closing price times current supply.

    Coin Metrics' ``CapMrktCurUSD = PriceUSD x SplyCur``.
    """
    return pl.col("price_usd") * pl.col("supply")


def nvt_ratio() -> pl.Expr:
    """Network value to transactions: market cap over the adjusted transfer value of the day.

    Coin Metrics' ``NVTAdj = CapMrktCurUSD / TxTfrValAdjUSD``, after Willy Woo (2017). Null where
    nothing was transferred.
    """
    return _over("adjusted_transfer_usd")


def mvrv_ratio() -> pl.Expr:
    """Market value to realised value: market cap over realised cap.

    Coin Metrics' ``CapMVRVCur = CapMrktCurUSD / CapRealUSD``, after Mahmudov and Puell (2018). The
    realised cap values each unit at the price of the day it last moved. Null where none is known.
    """
    return _over("realised_cap_usd")


def compared(metrics: pl.DataFrame) -> pl.DataFrame:
    """Each reported figure that can be recomputed, next to the recomputed one.

    Args:
        metrics: rows of ``network_metrics``.

    Returns:
        A row per asset, day and ``figure`` (``market_cap_usd``, ``nvt_ratio``, ``mvrv_ratio``) for
        which the row holds all that is needed: ``reported``, ``recomputed`` and their
        ``difference`` as a share of the reported one.
    """
    figures = {
        "market_cap_usd": market_cap(),
        "nvt_ratio": nvt_ratio(),
        "mvrv_ratio": mvrv_ratio(),
    }
    pairs = pl.concat(
        metrics.select(*KEY, figure=pl.lit(name), reported=pl.col(name), recomputed=recomputed)
        for name, recomputed in figures.items()
    )
    apart = (pl.col("recomputed") - pl.col("reported")).abs()
    # Two zeros agree, though the one is no share of the other.
    share = pl.when(apart == 0).then(0.0).otherwise(apart / pl.col("reported").abs())
    return pairs.drop_nulls().with_columns(difference=share).sort(*KEY, "figure")


def disagreeing(metrics: pl.DataFrame, tolerance: float = TOLERANCE) -> pl.DataFrame:
    """Those of :func:`compared` that differ by more than ``tolerance``, the worst first."""
    return (
        compared(metrics)
        .filter(pl.col("difference") > tolerance)
        .sort("difference", descending=True, maintain_order=True)
    )


def _over(divisor: str) -> pl.Expr:
    """Market cap over ``divisor``, null where that is not above zero."""
    return pl.when(pl.col(divisor) > 0).then(market_cap() / pl.col(divisor))
