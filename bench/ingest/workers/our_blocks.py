"""Our ingestion of the blocks of a day into a fresh lake, receipts not read: URL LAKE."""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import date, timedelta

import numpy as np  # noqa: F401 - polars imports it with its first frame
import polars as pl

from cryptoml_assets.onchain.ingest import ingest_blocks
from cryptoml_assets.onchain.node import open_node
from cryptoml_assets.resources.lake import Lake

_DAY = date(2024, 1, 1)


def main(url: str, folder: str) -> None:
    lake = Lake(folder)
    began = time.perf_counter()
    with open_node(
        url, work="bench", source="simulated", timeout=timedelta(seconds=60), retry_delays=()
    ) as node:
        ingest_blocks(node, lake, [_DAY], chain_id=1, receipts=False)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = lake.scan("onchain_blocks").filter(pl.col("number") > 0).collect()
    said = {
        "seconds": seconds,
        "blocks": rows.height,
        "transactions": rows["transaction_count"].sum(),
        "peak_mib": peak,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
