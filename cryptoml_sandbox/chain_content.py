"""What is inside a simulated block: transactions and withdrawals, drawn from its hash."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b, shake_256
from itertools import pairwise

TRANSFER_GAS = 21_000
ADDRESS_POOL = 5_000
TOKENS = 12
MINERS = 16

_TRANSACTION_BYTES = 128
_WITHDRAWALS = 2


@dataclass(frozen=True)
class Header:
    """One block without its transactions. Fees in wei, ``timestamp`` in seconds since 1970."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    gas_used: int
    base_fee: int
    transaction_count: int
    miner: bytes


@dataclass(frozen=True)
class Transaction:
    """One type-2 transaction. A token transfer has no value and names ``token_receiver``."""

    index: int
    hash: bytes
    sender: bytes
    receiver: bytes
    value: int
    gas: int
    priority_fee: int
    nonce: int
    token_receiver: bytes | None
    token_amount: int
    r: bytes
    s: bytes


@dataclass(frozen=True)
class Withdrawal:
    """One validator's withdrawal, ``amount`` in gwei."""

    index: int
    validator: int
    address: bytes
    amount: int


class Content:
    """Draws what blocks hold, from a pool of addresses that belongs to ``key``."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._addresses = [self._address("account", i) for i in range(ADDRESS_POOL)]
        self._tokens = [self._address("token", i) for i in range(TOKENS)]
        self._miners = [self._address("miner", i) for i in range(MINERS)]

    def miner(self, word: int) -> bytes:
        """The address that gets a block's fees, by a random word."""
        return self._miners[word % MINERS]

    def transactions(self, header: Header) -> list[Transaction]:
        """The transactions of a block, in order."""
        count = header.transaction_count
        if not count:
            return []
        entropy = shake_256(header.hash + b"transactions").digest(_TRANSACTION_BYTES * count)
        spare = header.gas_used - TRANSFER_GAS * count
        pieces = [
            entropy[i : i + _TRANSACTION_BYTES] for i in range(0, len(entropy), _TRANSACTION_BYTES)
        ]
        weights = [1 + int.from_bytes(piece[124:126]) for piece in pieces]
        total = sum(weights)
        edges = [0]
        for weight in weights:
            edges.append(edges[-1] + weight)
        shares = [
            TRANSFER_GAS + spare * high // total - spare * low // total
            for low, high in pairwise(edges)
        ]
        return [
            self._transaction(header.number, index, piece, gas)
            for index, (piece, gas) in enumerate(zip(pieces, shares, strict=True))
        ]

    def withdrawals(self, header: Header) -> list[Withdrawal]:
        """The validators' withdrawals of a block."""
        entropy = shake_256(header.hash + b"withdrawals").digest(8 * _WITHDRAWALS)
        first = header.number * _WITHDRAWALS
        return [
            Withdrawal(
                index=first + i,
                validator=(first + i) % 1_000_000,
                address=self._pick(int.from_bytes(entropy[8 * i : 8 * i + 4])),
                amount=16_000_000 + int.from_bytes(entropy[8 * i + 4 : 8 * i + 8]) % 4_000_000,
            )
            for i in range(_WITHDRAWALS)
        ]

    def _transaction(self, number: int, index: int, piece: bytes, gas: int) -> Transaction:
        """Read one transaction out of 128 random bytes."""
        is_token = piece[126] % 4 == 0
        mantissa, exponent = int.from_bytes(piece[112:114]), min(piece[114] % 16, 11)
        amount = mantissa << (32 + 2 * exponent)
        receiver = self._pick(int.from_bytes(piece[100:104]))
        return Transaction(
            index=index,
            hash=piece[:32],
            sender=self._pick(int.from_bytes(piece[96:100])),
            receiver=self._tokens[piece[127] % TOKENS] if is_token else receiver,
            value=0 if is_token else amount,
            gas=gas,
            priority_fee=10_000_000 + int.from_bytes(piece[116:120]) % 2_000_000_000,
            nonce=number << 11 | index,
            token_receiver=receiver if is_token else None,
            token_amount=amount if is_token else 0,
            r=piece[32:64],
            s=piece[64:96],
        )

    def _pick(self, word: int) -> bytes:
        """An address by a random word; the first of the pool are picked far more often."""
        return self._addresses[word * word * ADDRESS_POOL >> 64]

    def _address(self, kind: str, index: int) -> bytes:
        return blake2b(f"{kind} {index}".encode(), key=self._key, digest_size=20).digest()
