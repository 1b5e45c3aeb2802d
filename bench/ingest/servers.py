"""The servers that both sides talk to: the sandbox world and an anvil node."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from cryptoml_assets.operations.processes import free_port

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
_BLOCK_SECONDS = 12
_SENDERS = tuple(f"0x{0xA11CE << 64 | index:040x}" for index in range(10))
_ETHER = 10**18
_START_SECONDS = 60.0


@contextmanager
def sandbox(**settings: str) -> Iterator[str]:
    """A sandbox world in a process of its own; its address. ``settings`` lack the prefix."""
    port = free_port(HOST)
    world = {f"CRYPTOML_SANDBOX_{name.upper()}": value for name, value in settings.items()}
    now = world.pop("CRYPTOML_SANDBOX_NOW")
    plain = {key: value for key, value in os.environ.items() if not key.startswith("CRYPTOML_")}
    variables = {**plain, **world, "CRYPTOML_NOW": now, "CRYPTOML_SANDBOX_PORT": str(port)}
    with _running([sys.executable, "-m", "cryptoml_sandbox"], variables):
        url = f"http://{HOST}:{port}"
        _await(f"{url}/healthz")
        yield url


@contextmanager
def anvil(blocks: int, transactions: int, *, signed: bool) -> Iterator[str]:
    """An anvil node whose chain has ``blocks`` blocks of ``transactions`` plain transfers.

    With ``signed``, senders are accounts that sign. anvil stores no sender of such a transaction
    but recovers it from the signature whenever it is asked, about 0.2 ms each, which no client can
    make up for. Without, the senders are impersonated and their addresses stored.
    """
    found = subprocess.run([ROOT / "scripts" / "anvil"], check=True, capture_output=True, text=True)
    port = free_port(HOST)
    command = [
        *(found.stdout.strip(), "--host", HOST, "--port", str(port), "--silent"),
        *("--no-mining", "--timestamp", "1704067200", "--chain-id", "1"),
    ]
    with _running(command, os.environ):
        url = f"http://{HOST}:{port}"
        _await(url)
        _build_chain(url, blocks, transactions, signed=signed)
        yield url


def _build_chain(url: str, blocks: int, transactions: int, *, signed: bool) -> None:
    session = requests.Session()

    def ask(*calls: tuple[str, list[object]]) -> list[object]:
        batch = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": params}
            for index, (method, params) in enumerate(calls)
        ]
        answers = session.post(url, json=batch, timeout=60).json()
        assert not any("error" in answer for answer in answers), answers
        return [answer["result"] for answer in answers]

    ask(("anvil_setBlockTimestampInterval", [_BLOCK_SECONDS]))
    senders = _SENDERS
    if signed:
        senders = tuple(map(str, ask(("eth_accounts", []))[0]))
    else:
        ask(*(("anvil_setBalance", [each, hex(10**6 * _ETHER)]) for each in senders))
        ask(*(("anvil_impersonateAccount", [each]) for each in senders))
    sent = 0
    for _ in range(blocks):
        calls: list[tuple[str, list[object]]] = []
        for _ in range(transactions):
            calls.append(("eth_sendTransaction", [_transfer(senders, sent)]))
            sent += 1
        ask(*calls)
        ask(("evm_mine", []))  # one call apart: anvil answers the calls of a batch in any order


def _transfer(senders: tuple[str, ...], index: int) -> dict[str, str]:
    return {
        "from": senders[index % len(senders)],
        "to": senders[(7 * index + 3) % len(senders)],
        "value": hex(10**15 + index),
        "nonce": hex(index // len(senders)),
        "gas": hex(21_000),
        "maxFeePerGas": hex(10**11),
        "maxPriorityFeePerGas": hex(10**9),
    }


@contextmanager
def _running(command: list[str], variables: Mapping[str, str]) -> Iterator[None]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, env=dict(variables), stdout=said, stderr=said)
        try:
            yield
        except BaseException:  # interrupted too: what the server said last is in a file that goes
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace")[-2000:])
            raise
        finally:
            process.terminate()
            process.wait()


def _await(url: str) -> None:
    """Wait until something answers at ``url``, whatever it says."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - a loopback address
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
