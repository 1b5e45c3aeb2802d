"""Tables of the lake that serving reads and others write, as those others write them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from cryptoml_serving.contract.approval import read_signed

INSTANT = pa.timestamp("us", tz="UTC")


def write_history(lake: str, approvals: list[bytes]) -> None:
    """The table of decisions, as these signed documents say."""
    rows = []
    for number, each in enumerate(approvals):
        signed = read_signed(each)
        rows.append(
            {
                "sequence": number,
                "record": signed.record_json,
                "signature": signed.signature,
                "key_id": signed.key_id,
            }
        )
    write_deltalake(f"{lake}/deployments", pa.Table.from_pylist(rows), mode="overwrite")


def write_drift(lake: str, at: datetime, psi: dict[tuple[str, str], float | None]) -> None:
    """The report on inputs: feature and symbol to index; above 0.25 is drift."""
    rows = [
        {
            "feature": feature,
            "symbol": symbol,
            "psi": value,
            "threshold": 0.25,
            "adjusted_p_value": None if value is None else 0.01,
            "drifted": None if value is None else value > 0.25,
            "window_start": at,
            "window_end": at,
            "model_version": "1",
        }
        for (feature, symbol), value in psi.items()
    ]
    schema = pa.schema(
        [
            ("feature", pa.string()),
            ("symbol", pa.string()),
            ("psi", pa.float64()),
            ("threshold", pa.float64()),
            ("adjusted_p_value", pa.float64()),
            ("drifted", pa.bool_()),
            ("window_start", INSTANT),
            ("window_end", INSTANT),
            ("model_version", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    write_deltalake(f"{lake}/feature_drift", table, mode="overwrite")


def write_outcomes(lake: str, outcomes: list[dict[str, Any]]) -> None:
    """What came of predictions: id, feature instant, instant and return of each."""
    rows = [
        {
            **each,
            "covered": True,
            "correct": each["realised_return"] > 0,
            "date": each["feature_timestamp"].date(),
        }
        for each in outcomes
    ]
    schema = pa.schema(
        [
            ("prediction_id", pa.string()),
            ("feature_timestamp", INSTANT),
            ("outcome_at", INSTANT),
            ("realised_return", pa.float64()),
            ("covered", pa.bool_()),
            ("correct", pa.bool_()),
            ("date", pa.date32()),
        ]
    )
    write_deltalake(
        f"{lake}/prediction_outcomes",
        pa.Table.from_pylist(rows, schema=schema),
        mode="append",
        partition_by=["date"],
    )
