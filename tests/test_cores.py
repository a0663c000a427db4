"""Work in threads: results in the items' order, no more items begun than is said, errors in their turn."""

import random
import threading
import time
from collections.abc import Iterator

import pytest

from multimodal.machine.cores import map_in_threads


def test_results_come_in_the_order_of_the_items_whatever_each_takes() -> None:
    moments = random.Random(0)

    def square(number: int) -> int:
        time.sleep(moments.uniform(0, 0.003))
        return number**2

    assert list(map_in_threads(square, range(200), num_threads=8, ahead=16)) == [number**2 for number in range(200)]


@pytest.mark.parametrize("ahead", [1, 5])
def test_no_more_items_are_taken_than_ahead_before_a_result_is_handed_on(ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    for handed_on, _ in enumerate(map_in_threads(str, items(), num_threads=3, ahead=ahead)):
        assert taken <= handed_on + ahead


def test_an_error_comes_in_its_turn_and_what_waits_behind_it_is_left() -> None:
    begun, go = [], threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise KeyError(number)
        if number > 2:
            go.wait(0.2)
        return number

    results = map_in_threads(work, range(50), num_threads=1, ahead=40)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)
    assert len(begun) < 10


def test_begin_runs_in_each_thread() -> None:
    local = threading.local()

    def begin() -> None:
        local.begun = True

    assert all(map_in_threads(lambda _: local.begun, range(20), num_threads=4, begin=begin))
