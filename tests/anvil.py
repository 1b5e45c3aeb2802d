"""A real Ethereum node for tests: anvil, on a free loopback port, with a chain made to order."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.sandbox_server import free_port

CHAIN_ID = 31337
_TOOLS = Path(__file__).parents[1] / ".tools"


def find_anvil() -> str:
    """Path of the program; the test is skipped where there is none."""
    fetched = sorted(_TOOLS.glob("anvil-*/node_modules/@foundry-rs/anvil-*/bin/anvil"))
    found = str(fetched[-1]) if fetched else shutil.which("anvil")
    if found is None:
        pytest.skip("anvil is not installed: scripts/anvil")
    return found


@dataclass(frozen=True)
class Anvil:
    """A running node without blocks but the genesis, which mines when told to."""

    url: str
    session: requests.Session

    def call(self, method: str, *params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = self.session.post(self.url, json=request, timeout=30).json()
        assert "result" in answer, answer
        return answer["result"]

    @property
    def head(self) -> int:
        return int(self.call("eth_blockNumber"), 16)

    def block(self, number: int, *, full: bool = False) -> dict[str, Any]:
        return self.call("eth_getBlockByNumber", hex(number), full)

    def mine(self, count: int, seconds: int) -> None:
        """Mine ``count`` blocks ``seconds`` apart, with a payment in the first of them."""
        first, second = self.call("eth_accounts")[:2]
        self.call("eth_sendTransaction", {"from": first, "to": second, "value": hex(self.head)})
        self.call("anvil_mine", hex(count), hex(seconds))

    def reorganise(self, depth: int) -> None:
        """Replace the newest ``depth`` blocks by as many others."""
        payment = {"to": self.call("eth_accounts")[2], "value": hex(7)}
        payment["from"] = self.call("eth_accounts")[3]
        self.call("anvil_reorg", depth, [[payment, 0]])


@contextlib.contextmanager
def anvil(genesis: int) -> Iterator[Anvil]:
    """Serve a chain that begins at ``genesis``, in seconds since 1970, while the block runs."""
    port = free_port()
    command = [find_anvil(), "--port", str(port), "--no-mining", "--silent"]
    node = subprocess.Popen([*command, "--timestamp", str(genesis)])
    try:
        with requests.Session() as session:
            session.trust_env = False
            running = Anvil(f"http://127.0.0.1:{port}", session)
            _wait_for(running, node)
            yield running
    finally:
        node.kill()
        node.wait()


def _wait_for(running: Anvil, node: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(requests.ConnectionError):
            running.call("eth_chainId")
            return
        if node.poll() is not None or time.monotonic() > deadline:
            message = "anvil did not start"
            raise RuntimeError(message)
        time.sleep(0.02)
