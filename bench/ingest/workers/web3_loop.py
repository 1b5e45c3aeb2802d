"""Blocks with full transactions by a web3.py loop: URL LAST."""

from __future__ import annotations

import json
import sys
import time

from web3 import HTTPProvider, Web3


def main(url: str, last: int) -> None:
    web3 = Web3(HTTPProvider(url))
    began = time.perf_counter()
    blocks = [web3.eth.get_block(number, full_transactions=True) for number in range(1, last + 1)]
    seconds = time.perf_counter() - began
    transactions = sum(len(block["transactions"]) for block in blocks)
    print(json.dumps({"seconds": seconds, "blocks": len(blocks), "transactions": transactions}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
