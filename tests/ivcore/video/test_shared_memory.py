"""Results through shared memory: equal to what was sent, in any order of coming and going."""

import os

import numpy as np

from ivcore.video import pool
from ivcore.video.shared_memory import Slots, _mapped, put


def counted(size: int) -> tuple[int, np.ndarray, np.ndarray]:
    return size, np.full(size, size % 251, np.uint8), np.arange(3.0)


def test_results_come_back_whole_and_stay() -> None:
    sizes = [1000 + n for n in range(70)]  # more than there are slots
    got = list(pool.run(counted, sizes, workers=2, deadline_s=20, array_bytes=1040))
    for size, (name, large, small) in zip(sizes, got):  # those of 1017 bytes and more do not fit, and come the long way
        assert name == size and np.array_equal(large, counted(size)[1]) and small.tolist() == [0, 1, 2]


def test_a_slot_can_be_filled_again_and_a_large_result_comes_whole() -> None:
    _mapped.cache_clear()  # a worker is never parent, and knows one file
    before = len(os.listdir("/proc/self/fd"))
    slots = Slots(num=3, size=100)
    first = put({"a": np.arange(100, dtype=np.uint8), "b": "x"}, slots.slot(1))
    assert first.lengths == (100,) and len(first.pickled) < 400
    taken = slots.take(1, first)
    put(np.zeros(100, np.uint8), slots.slot(1))
    put(np.zeros(100, np.uint8), slots.slot(2))
    assert taken["b"] == "x" and np.array_equal(taken["a"], np.arange(100))
    taken["a"][0] = 7  # it may be written to
    large = put(np.ones(101, np.uint8), slots.slot(0))
    assert large.lengths == () and slots.take(0, large).sum() == 101
    slots.close()
    _mapped.cache_clear()
    assert len(os.listdir("/proc/self/fd")) == before
