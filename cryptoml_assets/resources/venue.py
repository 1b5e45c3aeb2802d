"""The exchange that bars come from, as the settings name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptoml_serving.contract.settings import World

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from cryptoml_assets.prices.exchange import Exchange
    from cryptoml_assets.settings import Settings


def connect_venue(configured: Settings) -> AbstractAsyncContextManager[Exchange]:
    """The venue of ``configured``, open for the length of an ``async with`` block.

    Live venues are asked at the pace ccxt knows for them or the settings name, others only where
    the settings name one; and all no sooner than their refusals ask for.

    Raises:
        SettingsError: on entry, when ccxt has no such exchange.
    """
    from cryptoml_assets.prices.exchange import open_exchange  # noqa: PLC0415  (loads ccxt)

    return open_exchange(
        configured.venue,
        address=configured.venue_address,
        longest_wait=configured.request_timeout,
        delays=configured.retry_delays,
        own_pace=configured.world is World.LIVE or configured.venue_rate_limit > 0,
        rate_limit=configured.venue_rate_limit,
        local_clock=configured.clock,
    )
