"""A lake with every table that metrics and the quality report come from, made by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from cryptoml_assets.deployment import verdicts
from cryptoml_assets.monitoring import performance, quality
from cryptoml_assets.resources.lake import Lake
from tests.deployment_world import MODEL, decided, decision

NOW = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)
FEATURES = ("rsi", "sma_gap_5")
SYMBOLS = ("BTC/USDT", "ETH/USDT")


def performance_row(window: str = "24h", **other: Any) -> dict[str, Any]:
    row = {
        "model_name": MODEL,
        "model_version": "1",
        "role": "champion",
        "symbol": "all",
        "time_window": window,
        "window_start": NOW - timedelta(days=1),
        "window_end": NOW,
        "predictions": 100,
        "accuracy": 0.54,
        "log_loss": 0.69,
        "mse": 1e-5,
        "crps": 1e-3,
        "coverage": 0.9,
        "pnl_usd": 10.0,
        "promised_accuracy": 0.55,
        "promised_log_loss": 0.69,
        "promised_coverage": 0.9,
        "below_promise": False,
        "p_value": 0.5,
        "source": "simulated",
    }
    return row | other


def write_performance(lake: Lake, *rows: dict[str, Any]) -> None:
    lake.overwrite("model_performance", pl.DataFrame(rows, schema=performance.SCHEMA))


def write_drift(lake: Lake, table: str, names: tuple[str, ...], worst: float) -> None:
    """Index `worst` for the first name, nothing for the last symbol of the last name."""
    rows = [
        {
            "feature": name,
            "symbol": symbol,
            "psi": worst / (place + 1) if (name, symbol) != (names[-1], SYMBOLS[-1]) else None,
            "drifted": place == 0 and worst > 0.25,
            "window_end": NOW,
        }
        for place, name in enumerate(names)
        for symbol in SYMBOLS
    ]
    lake.overwrite(table, pl.DataFrame(rows, schema_overrides={"psi": pl.Float64}))


def write_outcomes(lake: Lake) -> None:
    days = (date(2024, 2, 28), date(2024, 2, 29))
    rows = [
        {"role": "champion", "symbol": symbol, "pnl_usd": pnl, "date": day}
        for day in days
        for symbol, pnl in zip(SYMBOLS, (1.5, -0.5), strict=True)
    ]
    lake.replace_days("prediction_outcomes", pl.DataFrame(rows), days)


def write_verdicts(lake: Lake) -> None:
    for version, failed in (("1", ()), ("2", ("coverage", "significance")), ("3", ("coverage",))):
        criteria = [{"name": n, "passed": n not in failed} for n in ("coverage", "significance")]
        row = dict.fromkeys(verdicts.SCHEMA) | {
            "judged_at": NOW,
            "model_name": MODEL,
            "model_version": version,
            "approved": not failed,
            "criteria": json.dumps(criteria),
        }
        lake.append(verdicts.TABLE, pl.DataFrame([row], schema=verdicts.SCHEMA))


def write_quality(lake: Lake) -> None:
    rule = quality.Rule("drift", "share that drifted", "at most", 0.1, 0.2)
    unknown = quality.Rule("mse", "squared error", "at most", 0.1, 0.2)
    report = quality.judge({"drift": quality.Figure(0.15)}, (rule, unknown), NOW, "simulated")
    lake.overwrite("quality_report", quality.table(report))


def fill(lake: Lake) -> None:
    """Every table, with a champion and a shadow."""
    write_performance(lake, *(performance_row(window) for window in performance.WINDOWS))
    write_outcomes(lake)
    write_drift(lake, "feature_drift", FEATURES, 0.3)
    write_drift(lake, "prediction_drift", ("expected_return", "probability_up"), 0.1)
    write_verdicts(lake)
    write_quality(lake)
    decided(lake, decision(1), decision(2, role="shadow"))
