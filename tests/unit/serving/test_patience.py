from __future__ import annotations

import asyncio
import time

import pytest

from cryptoml_serving.api.patience import Patience


async def _soon(value: int) -> int:
    await asyncio.sleep(0.01)
    return value


def test_what_comes_in_time_is_passed_on() -> None:
    patience = Patience(5.0)

    async def main() -> list[int]:
        return await asyncio.gather(*(patience.wait(_soon(number)) for number in range(20)))

    assert asyncio.run(main()) == list(range(20))
    # Loops come and go; each has a timer of its own.
    assert asyncio.run(main()) == list(range(20))


def test_what_does_not_come_is_given_up_soon_after_its_time_and_nothing_else_is() -> None:
    patience = Patience(0.2)

    async def never() -> float:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await patience.wait(asyncio.Event().wait())
        await asyncio.sleep(0.05)  # the task goes on, and is not cancelled again
        return time.monotonic() - began

    async def main() -> None:
        waited, told = await asyncio.gather(never(), patience.wait(_soon(7)))
        assert 0.2 <= waited < 1.0
        assert told == 7

    asyncio.run(main())
    asyncio.run(main())


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    patience = Patience(5.0)

    async def main() -> None:
        task = asyncio.create_task(patience.wait(asyncio.Event().wait()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
