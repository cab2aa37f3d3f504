"""Two runs and one slot: a step that asks for its turn is alone, one that does not is not."""

import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ivcore.config import TrainConfig
from ivcore.steps import Step
from tasks import gpu_limit
from tasks.step import Where, execute

calls = itertools.count()  # the workspace is that of all these tests


@contextlib.contextmanager
def slots(number):
    """Inside, the limit has so many."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(gpu_limit.LIMIT, GlobalConcurrencyLimitUpdate(limit=number))
        yield client
        client.update_global_concurrency_limit(gpu_limit.LIMIT, GlobalConcurrencyLimitUpdate(limit=1))


@pytest.fixture
def together(home):
    """Runs two steps at once in two flow runs; whether both were at work at the same time."""
    from prefect import flow

    def run(how, wait_s=60, ranks=1):
        met, names, call = threading.Barrier(2), [], next(calls)

        def make(draft, log):
            try:
                met.wait(wait_s)
                names.append("met")
            except threading.BrokenBarrierError:
                met.reset()
                names.append("alone")
            draft.count(1)

        @flow(name="turns", persist_result=False)
        def one(number):
            step = Step("fit_s2", "s2", {"call": call, "number": number}, {}, make)
            execute(Where(str(home)), step, train=TrainConfig(device="cpu", take_turns=how, ranks=ranks))

        with ThreadPoolExecutor(2) as both:
            list(both.map(one, (1, 2)))
        assert len(names) == 2
        return names == ["met", "met"]

    return run


def test_a_slot_is_for_one_run_at_a_time(home, together):
    assert together("always")  # there is no such limit yet, so nothing waits
    gpu_limit.make_limit()
    gpu_limit.make_limit()  # again: it stays
    assert together("never") and together("cuda")  # not asked for: on a CPU, cuda asks for nothing
    assert not together("always", wait_s=2)  # as long as one waits for the other, that one has no slot


def test_ranks_take_a_slot_each(home, together):
    gpu_limit.make_limit()
    with slots(2):
        assert together("always")
        assert not together("always", wait_s=2, ranks=2)
        assert not together("always", wait_s=2, ranks=8)  # more than there are: all of them


def test_steps_at_once_have_cards_of_their_own(home):
    with gpu_limit.card(home, 2) as first, gpu_limit.card(home, 2) as second, gpu_limit.card(home, 2) as third:
        assert (first, second, third) == (0, 1, 0)
    with gpu_limit.card(home, 2) as number:
        assert number == 0


def test_the_number_of_slots_is_the_users(home):
    gpu_limit.make_limit()
    with slots(3) as client:
        gpu_limit.make_limit()
        assert client.read_global_concurrency_limit_by_name(gpu_limit.LIMIT).limit == 3
