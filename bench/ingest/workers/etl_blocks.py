"""Blocks and transactions by ethereum-etl, run by its own Python: URL LAST FOLDER.

Batch size and workers are those that were fastest on two cores.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ethereumetl.cli import cli


def main(url: str, last: str, folder: str) -> None:
    arguments = [
        *("export_blocks_and_transactions", "--provider-uri", url),
        *("--start-block", "1", "--end-block", last, "--batch-size", "100", "--max-workers", "4"),
        *("--blocks-output", f"{folder}/blocks.csv"),
        *("--transactions-output", f"{folder}/transactions.csv"),
    ]
    began = time.perf_counter()
    cli.main(arguments, standalone_mode=False)
    seconds = time.perf_counter() - began
    with Path(folder, "blocks.csv").open() as rows:
        blocks = sum(1 for _ in rows) - 1
    print(json.dumps({"seconds": seconds, "blocks": blocks}))


if __name__ == "__main__":
    main(*sys.argv[1:])
