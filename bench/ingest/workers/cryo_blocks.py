"""Blocks and transactions by cryo, run by its own Python: URL LAST FOLDER [COLUMN ...].

The columns named are left out.
"""

from __future__ import annotations

import json
import os
import sys
import time

import cryo


def main(url: str, last: int, folder: str, *without: str) -> None:
    began = time.perf_counter()
    cryo.freeze(
        ["blocks", "transactions"],
        rpc=url,
        blocks=[f"1:{last + 1}"],
        exclude_columns=list(without),
        output_dir=folder,
        verbose=False,
    )
    print(json.dumps({"seconds": time.perf_counter() - began, "blocks": last}), flush=True)
    # Its own threads crash the interpreter now and then on its way out.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
