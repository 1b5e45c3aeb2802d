"""How many tokens may turn out to be none, so that looking at them costs nobody else much.

Anybody can make tokens up, and to verify one takes tenths of a millisecond. Each address has a rate
of its own, so whoever floods the service is held up alone; the rate of all together only keeps many
addresses from taking the whole processor.
"""

from __future__ import annotations

import threading
import time
from ipaddress import IPv6Address, ip_address
from typing import Final

from cryptoml_serving.security.errors import TooManyError
from cryptoml_serving.security.rates import Bucket

#: Tokens of one address that may turn out to be none, in a second.
MOST_OF_ONE: Final = 100.0
#: The same of all addresses: looking at the longest of them takes a third of a worker's time.
MOST_OF_ALL: Final = 1000.0
#: Addresses remembered; past it the oldest begins anew.
_MOST_ADDRESSES = 10_000
#: Bits of an IPv6 address that say who it is: the others each machine chooses as it likes.
_NETWORK_BITS = 64


class Refusals:
    """Counts tokens that were none, by the address that they came from."""

    def __init__(self) -> None:
        """Nothing was refused yet."""
        self._all = Bucket(MOST_OF_ALL)
        self._by_sender: dict[str, Bucket] = {}
        #: Held while a sender is remembered or forgotten.
        self._writing = threading.Lock()

    def __len__(self) -> int:
        """How many senders are remembered."""
        return len(self._by_sender)

    def require_room(self, address: str) -> None:
        """Tell whether one more token from there may be looked at.

        Args:
            address: of the caller, as the server tells it; empty where it tells none.

        Raises:
            TooManyError: too many of late were none, from there or from everywhere.
        """
        now = time.monotonic()
        bucket = self._by_sender.get(_sender(address))
        if bucket is not None and (wait := bucket.wait(now)):
            message = "too many tokens that are not valid came from this address: not looked at"
            raise TooManyError(message, wait)
        if wait := self._all.wait(now):
            message = "too many tokens that are not valid were sent: this one was not looked at"
            raise TooManyError(message, wait)

    def count(self, address: str) -> None:
        """Remember that a token from there was none."""
        sender, now = _sender(address), time.monotonic()
        with self._writing:
            bucket = self._by_sender.get(sender)
            if bucket is None:
                if len(self._by_sender) >= _MOST_ADDRESSES:
                    del self._by_sender[next(iter(self._by_sender))]
                bucket = self._by_sender[sender] = Bucket(MOST_OF_ONE)
            bucket.take(now)
            self._all.take(now)


def _sender(address: str) -> str:
    """What is counted as one: an IPv4 address, or the network of an IPv6 one."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{int(found) >> _NETWORK_BITS:x}::/{_NETWORK_BITS}"
