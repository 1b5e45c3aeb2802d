"""Who is told of snapshots: the newest at once, never a queue, and nobody after the end."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoml_serving.runtime import announcer as module
from cryptoml_serving.runtime.announcer import Announcer
from cryptoml_serving.runtime.errors import TooManySubscribersError

SOON = 5.0


def snapshot(role: str = "champion") -> Any:
    return SimpleNamespace(model=SimpleNamespace(placement=SimpleNamespace(role=role)))


def announcing(*listeners: Any) -> Announcer:
    """One of a service that answers from what was published last."""
    published: list[Any] = []
    return Announcer(published.append, *listeners, answers=lambda: published[-1])


def run(coroutine: Any) -> None:
    # In a thread: where Chromium is driven in this process, its main thread has a loop already.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, asyncio.wait_for(coroutine, 30)).result()


def test_a_new_subscriber_gets_the_last_snapshot_at_once() -> None:
    async def play() -> None:
        announcer, last = announcing(), snapshot()
        announcer.publish(snapshot())
        announcer.publish(last)
        told = await anext(announcer.subscribe(SOON))
        assert told is not None
        assert (told.number, told.snapshot) == (2, last)

    run(play())


def test_a_slow_subscriber_holds_one_snapshot_the_newest() -> None:
    async def play() -> None:
        announcer = announcing()
        told = announcer.subscribe(SOON)
        announcer.publish(snapshot())
        first = await anext(told)
        # From another thread, as the refresher does.
        publisher = threading.Thread(
            target=lambda: [announcer.publish(snapshot()) for _ in range(1000)]
        )
        publisher.start()
        publisher.join()
        await asyncio.sleep(0)
        newest = await anext(told)
        assert first is not None
        assert newest is not None
        assert (first.number, newest.number) == (1, 1001)
        announcer.close()
        assert await anext(told, "ended") == "ended"

    run(play())


def test_silence_yields_heartbeats() -> None:
    async def play() -> None:
        announcer = announcing()
        told = announcer.subscribe(0.01)
        assert [await anext(told), await anext(told)] == [None, None]
        announcer.publish(snapshot())
        assert await anext(told) is not None

    run(play())


def test_closing_ends_those_who_wait_and_those_who_come() -> None:
    async def play() -> None:
        announcer = announcing()
        waiting = [asyncio.ensure_future(anext(announcer.subscribe(SOON), "ended")) for _ in "abc"]
        await asyncio.sleep(0.01)
        assert announcer.subscribers == 3
        announcer.close()
        assert await asyncio.gather(*waiting) == ["ended"] * 3
        assert announcer.subscribers == 0
        announcer.publish(snapshot())
        assert await anext(announcer.subscribe(SOON), "ended") == "ended"

    run(play())


def test_who_goes_away_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SUBSCRIBERS", 2)

    async def play() -> None:
        announcer = announcing()
        announcer.publish(snapshot())
        held = [announcer.subscribe(SOON) for _ in range(2)]
        for each in held:
            await anext(each)
        with pytest.raises(TooManySubscribersError, match="2 listen"):
            announcer.require_room()
        with pytest.raises(TooManySubscribersError, match="2 listen"):
            await anext(announcer.subscribe(SOON))
        await held[0].aclose()
        announcer.require_room()
        assert await anext(announcer.subscribe(SOON)) is not None

    run(play())


def test_one_caller_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_ONE", 2)

    async def play() -> None:
        announcer = announcing()
        announcer.publish(snapshot())
        held = [announcer.subscribe(SOON, "desk") for _ in range(2)]
        for each in held:
            await anext(each)
        with pytest.raises(TooManySubscribersError, match="desk listens for snapshots 2 times"):
            announcer.require_room("desk")
        with pytest.raises(TooManySubscribersError):
            await anext(announcer.subscribe(SOON, "desk"))
        others = [announcer.subscribe(SOON, each) for each in ("other", "", "", "")]
        for each in others:
            await anext(each)
        await held[0].aclose()
        announcer.require_room("desk")

    run(play())


def test_what_is_answered_from_no_more_is_told_to_nobody() -> None:
    async def play() -> None:
        answering: list[Any] = [None]
        announcer = Announcer(answers=lambda: answering[0])
        withdrawn, successor = snapshot(), snapshot()
        early = announcer.subscribe(0.05)
        waiting = asyncio.ensure_future(anext(early))
        await asyncio.sleep(0)
        answering[0] = withdrawn
        announcer.publish(withdrawn)
        # It was withdrawn after it had been put in the slot, and before it was taken.
        answering[0] = None
        assert await waiting is None
        late = announcer.subscribe(0.05)
        assert await anext(late) is None
        answering[0] = successor
        announcer.publish(successor)
        for each in (early, late):
            told = await anext(each)
            assert told is not None
            assert told.snapshot is successor

    run(play())


def test_challengers_are_for_listeners_alone() -> None:
    async def play() -> None:
        heard: list[Any] = []
        announcer = announcing(heard.append)
        shadow = snapshot("shadow")
        announcer.publish(shadow)
        assert heard == [shadow]
        assert await anext(announcer.subscribe(0.01)) is None

    run(play())


def test_a_subscriber_whose_loop_ended_is_forgotten() -> None:
    announcer = announcing()
    told = announcer.subscribe(SOON)
    announcer.publish(snapshot())

    def play() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(anext(told))
        loop.close()

    thread = threading.Thread(target=play)
    thread.start()
    thread.join()
    assert announcer.subscribers == 1
    announcer.publish(snapshot())
    assert announcer.subscribers == 0
