"""The node's own limit: batches of blocks with full transactions, not decoded: URL LAST."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import urllib3

_BATCH = 100
_AT_ONCE = 4


def main(url: str, last: int) -> None:
    pool = urllib3.PoolManager(maxsize=_AT_ONCE)

    def ask(numbers: range) -> int:
        calls = [
            {
                "jsonrpc": "2.0",
                "id": number,
                "method": "eth_getBlockByNumber",
                "params": [hex(number), True],
            }
            for number in numbers
        ]
        return len(pool.request("POST", url, json=calls).data)

    batches = [range(n, min(n + _BATCH, last + 1)) for n in range(1, last + 1, _BATCH)]
    began = time.perf_counter()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        size = sum(threads.map(ask, batches))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "blocks": last, "bytes": size}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
