"""The ingestion of both rooms as the assets run it, in small steps, here or in a child."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from unittest import mock

from cryptoml_assets.onchain import ingest as chain
from cryptoml_assets.onchain.node import open_node
from cryptoml_assets.prices import ingest
from cryptoml_assets.prices.exchange import Exchange
from cryptoml_assets.resources.lake import Lake

if TYPE_CHECKING:
    from datetime import date

    from cryptoml_assets.onchain.node import ChainNode
    from cryptoml_assets.settings import Settings


#: Reading the authorities' certificates takes longer than most runs here, none of which uses them.
_TLS = ssl.create_default_context()


class Job(Protocol):
    """One run of an ingestion."""

    def run(self) -> None: ...


@dataclass(frozen=True)
class PriceJob:
    """Bars of ``days`` into a lake, by pages and chunks so small that a run has many of them."""

    configured: Settings
    days: tuple[date, ...]
    page_bars: int = 1000
    chunk_bars: int = 150_000

    def run(self) -> None:
        with (
            mock.patch("ssl.create_default_context", return_value=_TLS),
            mock.patch.object(Exchange, "page_bars", self.page_bars),
            mock.patch.object(ingest, "_CHUNK_BARS", self.chunk_bars),
        ):
            ingest.run_ingest(self.configured, Lake(self.configured.lake_uri), self.days)


@dataclass(frozen=True)
class ChainJob:
    """Blocks of ``days`` into a lake, by batches and chunks so small that there are many."""

    configured: Settings
    days: tuple[date, ...]
    batch: int = 1000
    chunk: int = 20_000
    window: int = 31

    def run(self) -> None:
        configured = self.configured
        with (
            mock.patch.multiple(chain, _CHUNK=self.chunk, _WINDOW=self.window),
            open_node(
                configured.chain_address,
                work="onchain_blocks",
                source="simulated",
                timeout=configured.request_timeout,
                retry_delays=configured.retry_delays,
            ) as node,
        ):
            chain.ingest_blocks(
                _SmallBatches(node, self.batch),
                Lake(configured.lake_uri),
                self.days,
                chain_id=configured.chain_id,
                receipts=configured.block_receipts,
            )


@dataclass(frozen=True)
class _SmallBatches:
    """A node that is asked little at a time."""

    node: ChainNode
    batch: int

    @property
    def room(self) -> int:
        return min(self.batch, self.node.room)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)
