"""Blocks with full transactions: ours against web3.py, ethereum-etl, cryo and the node's limit."""

from __future__ import annotations

import importlib.metadata
import shutil
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl

from bench.ingest.peers import MissingPeerError, pins, ready, worker
from bench.ingest.servers import anvil
from bench.report import Claim, measure

_SLIM_CRYO = "cryo, no receipts"
_TARGETS = {"web3": 10.0, "ethereum-etl": 2.0, "cryo": 1.5, _SLIM_CRYO: 1.5}
#: Columns for which cryo reads receipts, as nobody else here does.
_OF_RECEIPTS = ("gas_used", "success")
#: Seconds a side took to bring all blocks of a node's chain into a folder.
Side = Callable[[str, int, Path], float]


def block_claims(blocks: int, transactions: int, runs: int, *, signed: bool) -> list[Claim]:
    """Our blocks per second against each peer's, from one anvil node.

    A peer that cannot be had here is left out, and why is printed. ``signed`` chains are for
    reference and have no target: anvil's recovery of the senders bounds every side there.

    Raises:
        AssertionError: a side did not deliver every block and transaction.
    """
    chain = f"{blocks} blocks of {transactions} transactions{', signed' if signed else ''}"
    sides = _sides(transactions)
    print(f"{chain}: building the chain")
    with anvil(blocks, transactions, signed=signed) as url, tempfile.TemporaryDirectory() as folder:
        spent = measure(
            {name: partial(_run, side, url, blocks, Path(folder)) for name, side in sides.items()},
            runs,
        )
    for name, seconds in spent.items():
        print(f"  {name:18} {blocks / statistics.median(seconds):8.0f} blocks/s")
    return [
        Claim.of_pairs(
            f"{chain}: {_version(name)}",
            spent["ours"],
            spent[name],
            None if signed else target,
            work=blocks,
            unit="blocks/s",
        )
        for name, target in _TARGETS.items()
        if name in spent
    ]


def _sides(transactions: int) -> dict[str, Side]:
    """Every side that can run here; ours stands in the middle of each round."""
    theirs: dict[str, Side] = {
        "cryo": partial(_cryo, transactions, ()),
        _SLIM_CRYO: partial(_cryo, transactions, _OF_RECEIPTS),
        "ethereum-etl": _ethereum_etl,
    }
    for name in tuple(theirs):
        try:
            ready(_peer(name))
        except MissingPeerError as error:
            print(f"  skipped: {error}")
            del theirs[name]
    return {"web3": _web3, **theirs, "ours": partial(_ours, transactions), "node, undecoded": _raw}


def _run(side: Side, url: str, blocks: int, folder: Path) -> float:
    """Run a side with an empty folder of its own."""
    shutil.rmtree(folder / "side", ignore_errors=True)
    (folder / "side").mkdir()
    return side(url, blocks, folder / "side")


def _ours(transactions: int, url: str, blocks: int, folder: Path) -> float:
    said = worker("our_blocks", url, folder).said
    assert said["blocks"] == blocks, said
    assert said["transactions"] == blocks * transactions, said
    return float(said["seconds"])


def _web3(url: str, blocks: int, _: Path) -> float:
    return float(worker("web3_loop", url, blocks).said["seconds"])


def _raw(url: str, blocks: int, _: Path) -> float:
    return float(worker("raw_batches", url, blocks).said["seconds"])


def _cryo(
    transactions: int, without: tuple[str, ...], url: str, blocks: int, folder: Path
) -> float:
    """With the columns it delivers by itself, less those named."""
    python = ready("cryo") / "python"
    said = worker("cryo_blocks", url, blocks, folder, *without, python=python).said
    for dataset, expected in (("blocks", blocks), ("transactions", blocks * transactions)):
        files = str(folder / f"*__{dataset}__*.parquet")
        found = pl.scan_parquet(files).select(pl.len()).collect().item()
        assert found == expected, f"cryo: {found} {dataset}"
    return float(said["seconds"])


def _ethereum_etl(url: str, blocks: int, folder: Path) -> float:
    python = ready("ethereum-etl") / "python"
    said = worker("etl_blocks", url, blocks, folder, python=python).said
    assert said["blocks"] == blocks, said
    return float(said["seconds"])


def _version(name: str) -> str:
    if name == "web3":
        return f"a loop of web3=={importlib.metadata.version('web3')}"
    columns = " without the columns of receipts" if name == _SLIM_CRYO else ""
    return pins(_peer(name)) + columns


def _peer(name: str) -> str:
    """The environment that a side needs."""
    return name.split(",", maxsplit=1)[0]
