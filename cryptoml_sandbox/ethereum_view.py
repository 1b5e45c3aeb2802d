"""A chain at an instant, and the JSON-RPC methods that ask about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptoml_sandbox.chain import Chain, next_base_fee
from cryptoml_sandbox.ethereum_receipts import receipt_objects
from cryptoml_sandbox.ethereum_wire import (
    HASH_BYTES,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LIMIT_EXCEEDED,
    METHOD_NOT_FOUND,
    RpcError,
    block_object,
    failure,
    fixed_bytes,
    log_filter,
    pending_object,
    quantity,
    transfer_logs,
)

if TYPE_CHECKING:
    from cryptoml_sandbox.chain_content import Header
    from cryptoml_sandbox.faults import FaultSchedule

#: Blocks one ``eth_getLogs`` may span.
LOG_RANGE = 2_000

_TAGS = ("earliest", "finalized", "safe", "latest", "pending")
_HASH_TEXT = 2 + 2 * HASH_BYTES


@dataclass(frozen=True)
class View:
    """A chain at an instant, as one request sees it."""

    chain: Chain
    now: datetime
    schedule: FaultSchedule

    @property
    def head(self) -> int:
        """Number of the newest block."""
        return self.chain.head(self.now)

    def answer(self, call: Any) -> dict[str, Any] | None:
        """Answer one call; none to a notification."""
        if not isinstance(call, dict) or not isinstance(call.get("method"), str):
            return failure(None, RpcError(INVALID_REQUEST, "a call is an object with a method"))
        call_id = call.get("id")
        if isinstance(call_id, dict | list | bool):
            return failure(None, RpcError(INVALID_REQUEST, "an id is a string, a number or null"))
        try:
            result = self._call(call["method"], call.get("params") or [])
        except RpcError as error:
            return None if "id" not in call else failure(call_id, error)
        return {"jsonrpc": "2.0", "id": call_id, "result": result} if "id" in call else None

    def _call(self, method: str, params: Any) -> Any:
        known = METHODS.get(method)
        if method in self.schedule.faults.lacks:
            self.schedule.count("lacks")
            known = None
        if known is None:
            message = f"the method {method} does not exist/is not available"
            raise RpcError(METHOD_NOT_FOUND, message)
        function, least, most = known
        if not isinstance(params, list) or not least <= len(params) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise RpcError(INVALID_PARAMS, f"{method} takes a list of {wanted} parameters")
        return function(self, *params)

    def chain_id(self) -> str:
        """Answer ``eth_chainId``."""
        return hex(self.chain.parameters.chain_id)

    def net_version(self) -> str:
        """Answer ``net_version``, the chain id in decimal."""
        return str(self.chain.parameters.chain_id)

    def client_version(self) -> str:
        """Answer ``web3_clientVersion``."""
        return "cryptoml-sandbox/1.0.0"

    def syncing(self) -> bool | dict[str, str]:
        """Answer ``eth_syncing``: how far a node that is behind has come, else false."""
        behind = self.schedule.faults.node_behind
        if not behind:
            return False
        head = self.head
        return {
            "startingBlock": "0x0",
            "currentBlock": hex(head),
            "highestBlock": hex(head + behind),
        }

    def block_number(self) -> str:
        """Answer ``eth_blockNumber``."""
        return hex(self.head)

    def block_by_number(self, block: Any, full: Any = False) -> dict[str, Any] | None:
        """Answer ``eth_getBlockByNumber``; null where the chain has no such block."""
        if block == "pending":
            return self._pending()
        return self._block(self.chain.header(self._number(block), self.now), full)

    def block_by_hash(self, block_hash: Any, full: Any = False) -> dict[str, Any] | None:
        """Answer ``eth_getBlockByHash``; null where no block of the chain has that hash."""
        number = self.chain.number_of(fixed_bytes(block_hash, HASH_BYTES), self.now)
        return self._block(None if number is None else self.chain.header(number, self.now), full)

    def block_receipts(self, block: Any) -> list[dict[str, Any]] | None:
        """Answer ``eth_getBlockReceipts``, by number, tag or hash; null without such a block."""
        if block == "pending":
            return None
        if isinstance(block, str) and len(block) == _HASH_TEXT:
            number = self.chain.number_of(fixed_bytes(block, HASH_BYTES), self.now)
        else:
            number = self._number(block)
        header = None if number is None else self.chain.header(number, self.now)
        if header is None:
            return None
        return receipt_objects(header, self.chain.content.transactions(header))

    def logs(self, wanted: Any) -> list[dict[str, Any]]:
        """Answer ``eth_getLogs``: token transfers of a block or a bounded range of blocks."""
        if not isinstance(wanted, dict):
            raise RpcError(INVALID_PARAMS, "eth_getLogs takes one filter object")
        matches = log_filter(wanted)
        return [
            log
            for header in self._log_blocks(wanted)
            for log in transfer_logs(header, self.chain.content.transactions(header))
            if matches(log)
        ]

    def _log_blocks(self, wanted: dict[str, Any]) -> Iterator[Header]:
        if "blockHash" in wanted:
            if "fromBlock" in wanted or "toBlock" in wanted:
                raise RpcError(INVALID_PARAMS, "blockHash excludes fromBlock and toBlock")
            number = self.chain.number_of(fixed_bytes(wanted["blockHash"], HASH_BYTES), self.now)
            if number is None:
                raise RpcError(INVALID_PARAMS, "unknown block")
            first = last = number
        else:
            first = self._number(wanted.get("fromBlock") or "latest")
            last = min(self._number(wanted.get("toBlock") or "latest"), self.head)
        if first > last and "toBlock" in wanted:
            raise RpcError(INVALID_PARAMS, "invalid block range: fromBlock is after toBlock")
        if last - first >= LOG_RANGE:
            message = f"block range too large: {last - first + 1} blocks, at most {LOG_RANGE}"
            raise RpcError(LIMIT_EXCEEDED, message)
        for number in range(first, last + 1):
            header = self.chain.header(number, self.now)
            if header is not None:
                yield header

    def _number(self, block: Any) -> int:
        match block:
            case "earliest":
                return 0
            case "finalized":
                return self.chain.finalized(self.now)
            case "safe":
                return self.chain.safe(self.now)
            case "latest" | "pending":
                return self.head
            case str():
                return quantity(block)
        message = f"a block is a 0x… number or one of {', '.join(_TAGS)}"
        raise RpcError(INVALID_PARAMS, message)

    def _block(self, header: Header | None, full: Any) -> dict[str, Any] | None:
        if not isinstance(full, bool):
            raise RpcError(INVALID_PARAMS, "the second parameter is true or false")
        if header is None:
            return None
        content = self.chain.content
        block = block_object(
            header,
            content.transactions(header),
            content.withdrawals(header),
            chain_id=self.chain.parameters.chain_id if full else None,
        )
        return self._as_far_as_kept(block)

    def _as_far_as_kept(self, block: dict[str, Any]) -> dict[str, Any]:
        lacking = [name for name in self.schedule.faults.lacks if name in block]
        if lacking:
            self.schedule.count("lacks")
        for name in lacking:
            del block[name]
        return block

    def _pending(self) -> dict[str, Any] | None:
        head = self.chain.header(self.head, self.now)
        if head is None:
            return None
        base_fee = next_base_fee(head.base_fee, head.gas_used)
        pending = pending_object(head, self.chain.timestamp(head.number + 1), base_fee)
        return self._as_far_as_kept(pending)


#: By name: what answers a method, and the least and the most parameters it takes.
METHODS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "eth_chainId": (View.chain_id, 0, 0),
    "eth_blockNumber": (View.block_number, 0, 0),
    "eth_getBlockByNumber": (View.block_by_number, 1, 2),
    "eth_getBlockByHash": (View.block_by_hash, 1, 2),
    "eth_getBlockReceipts": (View.block_receipts, 1, 1),
    "eth_getLogs": (View.logs, 1, 1),
    "eth_syncing": (View.syncing, 0, 0),
    "net_version": (View.net_version, 0, 0),
    "web3_clientVersion": (View.client_version, 0, 0),
}
