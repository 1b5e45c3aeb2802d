"""A simulated Ethereum chain: every block a pure function of a seed, a genesis and the time.

Block ``n`` carries the timestamp ``genesis + n * block_seconds``. Gas use follows a demand that
wanders, has a time of day and answers to price; the base fee follows gas use by the rule of
EIP-1559. All arithmetic is on integers, so the chain is the same to the byte on every machine.
Hashes are BLAKE2b over parent hash and content: unique and chained, though no Ethereum node would
accept them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from struct import Struct

from cryptoml_sandbox.chain_content import TRANSFER_GAS, Content, Header

GAS_LIMIT = 30_000_000
#: Largest mean of transactions a block can hold when it draws half as many again.
MOST_TRANSACTIONS = GAS_LIMIT // TRANSFER_GAS * 2 // 3
#: Blocks between two reorganisations that a set reorg depth causes.
REORG_EVERY = 64
GENESIS_PARENT = bytes(32)

_TARGET = GAS_LIMIT // 2
_BASE_FEE_CHANGE_DENOMINATOR = 8  # EIP-1559
_INITIAL_BASE_FEE = 20_000_000_000
_ANCHOR_FEE = 20_000_000_000
_DEMAND_MEMORY = 128  # blocks after which about a third of a shock to demand is left
_DEMAND_FLOOR, _DEMAND_CEILING = -800, 2_000  # permille of the anchor fee
_SEASON = 150  # permille by which demand swings over the day
_BUSIEST_SECOND = 15 * 3600
_DAY = 86_400
_WORDS = Struct("<16I")


class ReorgTooDeepError(ValueError):
    """A reorganisation asked for would rewrite the genesis or finalized blocks."""


@dataclass(frozen=True)
class ChainParameters:
    """What determines the whole chain.

    ``transactions_per_block`` is the mean count of transactions. ``finalized_lag`` and ``safe_lag``
    are the ages at which blocks get those tags. With a ``reorg_depth``, each time the head reaches
    a multiple of ``REORG_EVERY`` that many blocks before it are replaced; what they are replaced
    with is the chain of depth 0, so settled history is the same whatever the depth.
    """

    seed: int
    genesis: datetime
    block_seconds: int
    transactions_per_block: int
    chain_id: int = 1
    finalized_lag: timedelta = timedelta(minutes=15)
    safe_lag: timedelta = timedelta(minutes=7)
    reorg_depth: int = 0

    def __post_init__(self) -> None:
        """Refuse what no chain can be.

        Raises:
            ValueError: naming the parameter and what is accepted.
        """
        if self.block_seconds < 1:
            message = f"block_seconds={self.block_seconds}: a block takes at least one second"
            raise ValueError(message)
        if not 0 <= self.transactions_per_block <= MOST_TRANSACTIONS:
            message = (
                f"transactions_per_block={self.transactions_per_block}: "
                f"between 0 and {MOST_TRANSACTIONS} fit the gas limit"
            )
            raise ValueError(message)
        deepest = min(self.finalized_lag // timedelta(seconds=self.block_seconds), REORG_EVERY - 1)
        if not 0 <= self.reorg_depth <= deepest:
            message = (
                f"reorg_depth={self.reorg_depth}: between 0 and {deepest} blocks of "
                f"{self.block_seconds} s are younger than finality"
            )
            raise ValueError(message)


def next_base_fee(base_fee: int, gas_used: int, gas_limit: int = GAS_LIMIT) -> int:
    """Base fee in wei of the block after one with ``base_fee`` and ``gas_used`` (EIP-1559)."""
    target = gas_limit // 2
    change = base_fee * abs(gas_used - target) // target // _BASE_FEE_CHANGE_DENOMINATOR
    if gas_used > target:
        return base_fee + max(change, 1)
    return base_fee - change


class _Headers:
    """The header chain as columns, extended block by block and cut back by a reorganisation."""

    def __init__(self) -> None:
        self.hashes = bytearray()
        self.gas_used = array("q")
        self.base_fee = array("q")
        self.counts = array("i")
        self.demand = array("i")

    def __len__(self) -> int:
        return len(self.counts)

    def cut(self, length: int) -> None:
        """Forget every block from number ``length`` on."""
        del self.hashes[32 * length :]
        for column in (self.gas_used, self.base_fee, self.counts, self.demand):
            del column[length:]

    def hash(self, number: int) -> bytes:
        """Hash of a generated block; the genesis has a parent of zeros."""
        return bytes(self.hashes[32 * number : 32 * number + 32]) if number >= 0 else GENESIS_PARENT


class Chain:
    """The chain as a node sees it at an instant.

    Blocks are generated on first use and kept as compact columns. The order of questions never
    changes an answer.
    """

    def __init__(self, parameters: ChainParameters) -> None:
        self.parameters = parameters
        self._genesis = int(parameters.genesis.timestamp())
        self._key = blake2b(f"chain {parameters.seed}".encode(), digest_size=32).digest()
        self.content = Content(self._key)
        self._headers = _Headers()
        self._numbers: dict[bytes, int] = {}
        self._indexed = 0
        self._salts: dict[int, int] = {}
        self._epoch = 0
        self._held_back: tuple[int, int] | None = None

    def head(self, now: datetime) -> int:
        """Number of the newest block at ``now``; the genesis block is always there."""
        number = self._number_at(now)
        if self._held_back is not None and number <= self._held_back[0]:
            return min(number, self._held_back[1])
        return number

    def safe(self, now: datetime) -> int:
        """Number of the newest block tagged safe at ``now``."""
        return min(self.head(now), self._number_at(now - self.parameters.safe_lag))

    def finalized(self, now: datetime) -> int:
        """Number of the newest finalized block at ``now``."""
        return min(self.head(now), self._number_at(now - self.parameters.finalized_lag))

    def timestamp(self, number: int) -> int:
        """Seconds since 1970 at which block ``number`` was made."""
        return self._genesis + number * self.parameters.block_seconds

    def _number_at(self, instant: datetime) -> int:
        seconds = int(instant.astimezone(UTC).timestamp()) - self._genesis
        return max(0, seconds // self.parameters.block_seconds)

    def header(self, number: int, now: datetime) -> Header | None:
        """Block ``number`` as seen at ``now``; none where the chain has not reached it."""
        head = self.head(now)
        if not 0 <= number <= head:
            return None
        self._settle(head)
        self._extend(number)
        columns = self._headers
        words = self._words(number)
        return Header(
            number=number,
            hash=columns.hash(number),
            parent_hash=columns.hash(number - 1),
            timestamp=self.timestamp(number),
            gas_used=columns.gas_used[number],
            base_fee=columns.base_fee[number],
            transaction_count=columns.counts[number],
            miner=self.content.miner(words[5]),
        )

    def number_of(self, block_hash: bytes, now: datetime) -> int | None:
        """Number of the block with that hash; none where it is not part of the chain at ``now``."""
        head = self.head(now)
        self._settle(head)
        self._extend(head)
        for number in range(self._indexed, head + 1):
            self._numbers[self._headers.hash(number)] = number
        self._indexed = max(self._indexed, head + 1)
        number = self._numbers.get(block_hash, -1)
        return number if 0 <= number <= head and self._headers.hash(number) == block_hash else None

    def reorganise(
        self, depth: int, now: datetime, *, past_finality: bool = False, shorter: int = 0
    ) -> int:
        """Replace the newest ``depth`` blocks; returns the number of the first one replaced.

        Args:
            depth: blocks replaced.
            now: instant at which it happens.
            past_finality: whether finalized blocks may be among them.
            shorter: blocks by which the new chain is shorter, until the next block is due.

        Raises:
            ReorgTooDeepError: beyond the genesis, finalized blocks where not asked for, or a chain
                that would lose as many blocks as it replaces.
        """
        head = self.head(now)
        first = head - depth + 1
        if depth < 1 or first < 1:
            message = f"depth={depth}: between 1 and {head} blocks can be replaced"
            raise ReorgTooDeepError(message)
        if not 0 <= shorter < depth:
            message = f"shorter={shorter}: between 0 and {depth - 1} with depth={depth}"
            raise ReorgTooDeepError(message)
        finalized = self.finalized(now)
        if first <= finalized and not past_finality:
            message = (
                f"depth={depth} would replace finalized blocks; "
                f"at most {head - finalized}, or set past_finality"
            )
            raise ReorgTooDeepError(message)
        self._settle(head)
        for number in range(first, head + 1):
            # Salts 0 and 1 are the settled and the provisional block of a set reorg depth.
            self._salts[number] = max(self._salts.get(number, 1), 1) + 1
        self._forget(first)
        if shorter:
            self._held_back = (self._number_at(now), head - shorter)
        return first

    def _settle(self, head: int) -> None:
        """Switch the blocks before each reorganisation point the head has reached or left."""
        epoch = head // REORG_EVERY
        if epoch != self._epoch:
            if self.parameters.reorg_depth:
                first_point = (min(epoch, self._epoch) + 1) * REORG_EVERY
                self._forget(first_point - self.parameters.reorg_depth)
            self._epoch = epoch

    def _salt(self, number: int) -> int:
        if number in self._salts:
            return self._salts[number]
        first_replaced = REORG_EVERY - self.parameters.reorg_depth
        unsettled = number // REORG_EVERY == self._epoch
        return int(unsettled and number % REORG_EVERY >= first_replaced)

    def _forget(self, first: int) -> None:
        self._headers.cut(first)
        self._indexed = min(self._indexed, first)

    def _words(self, number: int) -> tuple[int, ...]:
        """Sixteen random 32-bit words that belong to a block and its salt."""
        content = number.to_bytes(8) + self._salt(number).to_bytes(4)
        return _WORDS.unpack(blake2b(content, key=self._key).digest())

    def _extend(self, last: int) -> None:
        """Generate headers up to number ``last``."""
        columns = self._headers
        number = len(columns)
        parent = columns.hash(number - 1)
        base_fee, demand = _INITIAL_BASE_FEE, 0
        if number:
            base_fee = next_base_fee(columns.base_fee[-1], columns.gas_used[-1])
            demand = columns.demand[-1]
        while number <= last:
            words = self._words(number)
            demand = _next_demand(demand, words[0])
            count = self._count(words[1])
            gas_used = self._gas(number, words, demand, base_fee) if count else 0
            gas_used = max(gas_used, count * TRANSFER_GAS)
            parent = blake2b(
                b"%b%d %d %d %d" % (parent, number, gas_used, base_fee, words[2]), digest_size=32
            ).digest()
            columns.hashes += parent
            columns.gas_used.append(gas_used)
            columns.base_fee.append(base_fee)
            columns.counts.append(count)
            columns.demand.append(demand)
            base_fee = next_base_fee(base_fee, gas_used)
            number += 1

    def _count(self, word: int) -> int:
        mean = self.parameters.transactions_per_block
        least = mean // 2
        return least + word % (2 * (mean - least) + 1)

    def _gas(self, number: int, words: tuple[int, ...], demand: int, base_fee: int) -> int:
        """Gas used: about the target where the base fee is what demand would pay."""
        since_peak = abs((self.timestamp(number) - _BUSIEST_SECOND) % _DAY - _DAY // 2)
        season = _SEASON * (4 * since_peak - _DAY) // _DAY
        willing = _ANCHOR_FEE * (1000 + demand) * (1000 + season) // 1_000_000
        gap = (willing - base_fee) * 1000 // willing
        noise = (words[3] % 200 + words[4] % 200) - 200
        permille = min(max(500 + gap // 2 + noise, 20), 1000)
        return GAS_LIMIT * permille // 1000 - words[2] % 10_000


def _next_demand(demand: int, word: int) -> int:
    """One step of demand's mean-reverting walk, in permille of the anchor fee."""
    shock = (word & 127) + (word >> 8 & 127) - 127
    drawn_back = demand - (demand // _DEMAND_MEMORY if demand > 0 else -(-demand // _DEMAND_MEMORY))
    return min(max(drawn_back + shock // 2, _DEMAND_FLOOR), _DEMAND_CEILING)
