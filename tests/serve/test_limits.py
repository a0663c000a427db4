"""Limits: a bounded number of requests waits, each for a bounded time, and a long one holds nobody up."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from multimodal.search.pausing import may_pause
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter
from multimodal.serve.app import make_app
from multimodal.serve.desk import Kept, Settings
from multimodal.serve.limits import LEAST_TURN_S, Busy, Lane, Places, TooLong, Turns

LONG_S = 300.0


def until(is_so: Callable[[], bool]) -> None:
    """What a long search does: many calls of the engine, with a pause before each."""
    while not is_so():
        may_pause()
        time.sleep(LEAST_TURN_S / 4)


def test_one_thread_has_the_turn_at_a_time_and_everyone_gets_it() -> None:
    turns, inside, seen = Turns(), [], []

    def work(number: int) -> None:
        for _ in range(5):
            inside.append(number)
            assert len(inside) == 1
            time.sleep(0.001)
            inside.remove(number)
            may_pause()
        seen.append(number)

    threads = [threading.Thread(target=turns.run, args=(lambda n=n: work(n), time.monotonic() + LONG_S, LONG_S)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(8))


def test_a_short_query_is_answered_while_a_long_one_runs() -> None:
    async def both() -> None:
        lane, is_answered, has_begun = Lane("queries", 4, 4, LONG_S, Turns()), threading.Event(), threading.Event()

        def long() -> str:
            has_begun.set()
            until(is_answered.is_set)
            return "long"

        begun = asyncio.create_task(lane.run(long))
        await asyncio.to_thread(has_begun.wait)
        assert await lane.run(lambda: "short") == "short"  # would wait for ever if the long one did not let it go first
        is_answered.set()
        assert await begun == "long"

    asyncio.run(both())


def test_what_takes_too_long_is_stopped_and_those_behind_it_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        lane = Lane("queries", 4, 4, 0.2, Turns())
        ended = threading.Event()

        def endless() -> None:
            try:
                while True:
                    time.sleep(4 * LEAST_TURN_S)  # the client has its reply before the next pause
                    may_pause()
            finally:
                ended.set()

        with pytest.raises(TooLong):
            await lane.run(endless)
        assert await asyncio.to_thread(ended.wait, LONG_S), "the thread itself has ended too"
        patient = Lane("queries", 4, 4, LONG_S, lane.turns)
        assert await patient.run(lambda: "next") == "next"

    asyncio.run(ask())
    gc.collect()
    assert not caplog.records, "nothing is printed of it: its client was told"


def test_too_many_at_once_are_refused_and_later_ones_are_not() -> None:
    async def ask() -> None:
        lane, go = Lane("queries", 1, 2, LONG_S), threading.Event()
        begun = [asyncio.create_task(lane.run(go.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy) as refused:
            await lane.run(go.wait)
        assert refused.value.status == 429 and 1 <= int(refused.value.headers["Retry-After"]) <= 30
        go.set()
        assert all(await asyncio.gather(*begun))
        assert await lane.run(lambda: True) and lane.num_at_once == 0 and lane.num_refused == 1

    asyncio.run(ask())


def test_what_would_wait_for_too_long_is_refused_at_once() -> None:
    async def ask() -> None:
        lane, go = Lane("queries", 1, 1000, 20.0, Turns()), threading.Event()
        for _ in range(20):  # the mean of late is more than a fiftieth of a second then
            await lane.run(lambda: time.sleep(0.05))
        begun = []
        with pytest.raises(Busy):
            for _ in range(1000):
                begun.append(lane.begin(go.wait))
        assert 0 < len(begun) < 1000
        go.set()
        for one in begun:
            one.result()

    asyncio.run(ask())


def test_places_are_given_back() -> None:
    places = Places(1)
    for _ in range(3):
        with places.taken(), pytest.raises(Busy), places.taken():
            pass
    assert places.num_taken == 0


def test_replies_are_kept_within_their_bytes_and_the_oldest_goes_first() -> None:
    kept = Kept(100)
    for number in range(4):
        kept.put(number, bytes(30))
        kept.get(0)
    assert [kept.get(number) is not None for number in range(4)] == [True, False, True, True]
    kept.put("large", bytes(101))
    assert all(kept.get(key) is None for key in (0, 1, 2, 3, "large"))


def test_a_server_that_is_busy_says_so(photo_store) -> None:
    """Over HTTP: the one place is taken, so 429 with Retry-After; the page says it too. A query that takes too long is 503."""
    app = make_app(Store(photo_store), settings=Settings(limit_s=0.3, max_waiting=0))
    lane, go, has_begun = app.state.desk.queries, threading.Event(), threading.Event()
    lane.max_at_once = 1

    def hold() -> None:
        has_begun.set()
        go.wait()

    with TestClient(app) as client:
        held = lane.begin(hold)
        assert has_begun.wait(LONG_S)
        reply = client.get("/api/search", params={"q": "beach"})
        assert reply.status_code == 429 and int(reply.headers["retry-after"]) >= 1 and "Ask again" in reply.json()["error"]
        assert client.get("/", params={"q": "beach"}).status_code == 429
        assert client.get("/thumbnails/3").status_code == 200, "files do not wait for queries"
        lane.max_at_once = 2
        late = client.get("/api/search", params={"q": "beach"})
        assert late.status_code == 503 and "0.3 s" in late.json()["error"]
        go.set()
        held.result()
        assert client.get("/api/search", params={"q": "dog"}).status_code == 200
        lines = client.get("/metrics").text.splitlines()
        assert "multimodal_refused_total 2" in lines and "multimodal_too_long_total 1" in lines


def test_a_long_query_ends_however_many_short_ones_come() -> None:
    """Short ones come without end, each as soon as the one before is answered; the long one still gets its turns."""
    turns, is_done = Turns(), threading.Event()
    left = iter(range(3))

    def long() -> None:
        for _ in left:
            time.sleep(1.1 * LEAST_TURN_S)
            may_pause()
        is_done.set()

    def short() -> None:
        while not is_done.is_set():
            turns.run(lambda: time.sleep(0.001), time.monotonic() + LONG_S, LONG_S)

    threads = [threading.Thread(target=short) for _ in range(4)]
    for thread in threads:
        thread.start()
    turns.run(long, time.monotonic() + LONG_S, LONG_S)
    for thread in threads:
        thread.join()
    assert is_done.is_set()


def test_a_new_generation_has_the_text_space_of_the_one_before(photo_store, tmp_path) -> None:
    """A tower takes longer to load than a query may take, so no commit makes a query load it again."""
    before = Store(shutil.copytree(photo_store, tmp_path / "S"))
    space = before.query_space
    with StoreWriter(before.path) as writer:
        writer.delete([3])
    after = Store(before.path, before=before)
    assert len(after) == len(before) - 1 and after.query_space is space
