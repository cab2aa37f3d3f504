"""The loop as a GPU runs it, on the CPU: batches made ahead, figures read a step late, texts padded, no waiting."""

import dataclasses
import math
import os
import signal
import threading

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from ivcore.errors import WorkError
from ivcore.features.prefetch import prefetch
from ivcore.train.loop import Loop
from ivcore.train.optimizer import adamw
from ivcore.train.state import States, model_and_optimiser
from tests.ivcore.train import made_up

READS = ("_local_scalar_dense", "nonzero", "bincount", "is_nonzero", "masked_select", "unique")


def quiet(figures, step):
    pass


def loop_of(kind, on_device, steps=6, phase=None, **train):
    """A loop of the made-up clips; the plain one with the fused optimiser, too, whose sums are its own."""
    plain = made_up.loop(kind, made_up.phase(kind, steps=steps, **(phase or {})), **train)
    found = Loop(plain.encoder, plain.source, plain.train, plain.stage, plain.phase, on_device=on_device)
    found.optimiser = adamw(found.model, found.stage, found.phase, fused=True)
    return found


def threads():
    return [t for t in threading.enumerate() if t.name == "iv-prefetch"]


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_ahead_and_late_are_the_same_bytes(kind, tmp_path):
    plain, ahead = (loop_of(kind, on_device) for on_device in (False, True))
    for number, loop in enumerate((plain, ahead)):
        loop.run(made_up.batches(6), quiet, tmp_path / str(number))
    assert ahead.totals.curves == plain.totals.curves and ahead.totals.figures == plain.totals.figures
    ours, theirs = (model_and_optimiser(loop.named, loop.optimiser) for loop in (ahead, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not threads()


def test_a_state_saved_in_between_goes_on_to_the_same_bytes(tmp_path):
    whole, first = (loop_of("s2", True, save_every_steps=2) for _ in range(2))
    whole.run(made_up.batches(6), quiet, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def broken(batches):
        yield from (batch for batch, _ in zip(batches, range(5)))
        raise Stopped

    with pytest.raises(Stopped):
        first.run(broken(made_up.batches(6)), quiet, tmp_path / "parts")
    again = loop_of("s2", True, save_every_steps=2)
    assert again.run(made_up.batches(6), quiet, tmp_path / "parts") in (2, 4)
    ours, theirs = (model_and_optimiser(loop.named, loop.optimiser) for loop in (again, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    clock = {"seconds": 0.0, "cpu_s": 0.0}  # all else that was counted is the same, the last step before the state too
    assert dataclasses.replace(again.totals, **clock) == dataclasses.replace(whole.totals, **clock)
    assert not threads()


def test_sigterm_ends_the_thread_and_keeps_what_was_trained(tmp_path):
    def told(batches):
        for number, batch in enumerate(batches):
            if number == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    first, whole = loop_of("s2", True, 40), loop_of("s2", True, 40)
    with pytest.raises(SystemExit):
        first.run(told(made_up.batches(40)), quiet, tmp_path / "parts")
    assert not threads() and 0 < first.totals.step < 40
    again = loop_of("s2", True, 40)
    assert again.run(made_up.batches(40), quiet, tmp_path / "parts") == first.totals.step
    whole.run(made_up.batches(40), quiet, tmp_path / "whole")
    ours, theirs = (model_and_optimiser(loop.named, loop.optimiser) for loop in (again, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def poisoned(bad_step, monkeypatch, **train):
    loop = loop_of("clip", True, **train)
    inputs = loop.backward.inputs

    def poison(batch, draws, *asked):
        found = inputs(batch, draws, *asked)
        if draws.step + 1 == bad_step:
            found.video.fill_(float("nan"))
        return found

    monkeypatch.setattr(loop.backward, "inputs", poison)
    return loop


@pytest.mark.parametrize("bad_step", [3, 6])
def test_a_step_that_is_no_number_changes_nothing_and_is_counted(bad_step, tmp_path, monkeypatch):
    loop = poisoned(bad_step, monkeypatch, on_nan="skip")
    loop.run(made_up.batches(6), quiet, tmp_path)
    assert (loop.totals.step, loop.totals.skips) == (6, 1)
    assert all(torch.isfinite(t).all() for t in model_and_optimiser(loop.named, loop.optimiser).values())
    counts = {float(state["step"]) for state in loop.optimiser.state.values()}
    assert counts == {5.0}  # the optimiser did not count it either
    assert all(math.isfinite(value) for value in loop.totals.figures.values())


@pytest.mark.parametrize("bad_step", [3, 6])
def test_a_step_that_is_no_number_stops_under_its_own_name(bad_step, tmp_path, monkeypatch):
    loop = poisoned(bad_step, monkeypatch)
    with pytest.raises(WorkError, match=rf"step {bad_step}: .*nan.*bad-step-{bad_step}\.json"):
        loop.run(made_up.batches(6), quiet, tmp_path)
    assert not threads()


def losses(loop, packed):
    loop.backward.objective.packed = packed
    batch = next(made_up.batches(1))
    names, values = loop.backward(batch, loop.totals)
    return dict(zip(names, values.tolist())), {n: p.grad for n, p in loop.named.items() if p.grad is not None}


def test_padded_texts_give_the_losses_and_gradients_of_packed_ones():
    found = []
    for packed in (True, False):
        loop = made_up.loop("s2", made_up.phase("s2"), dropout=0.0)
        found.append(losses(loop, packed))
    (ours, gradients), (theirs, others) = found
    assert theirs == pytest.approx(ours, rel=1e-5) and set(ours) == {"vtc", "vtm", "mlm"}
    assert all(torch.allclose(gradients[n], others[n], atol=1e-5) for n in gradients)


class Counted(TorchDispatchMode):
    """Operator calls, and those that read from the device."""

    def __init__(self):
        super().__init__()
        self.calls, self.reads = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.calls += 1
        if name in READS or (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.reads.append(name)
        return func(*args, **(kwargs or {}))


def step_counted(kind, tmp_path, extra=None):
    """One step on the device with its batch made ahead, after two that settled what is made once."""
    own = {"even_negatives": 0.3} if kind == "s2" else {"trainable": "clip"}
    loop = loop_of(kind, True, phase=own)
    loop.backward.objective.packed = False
    batches = list(made_up.batches(3))
    states = States(tmp_path, 1)
    for number, batch in enumerate(batches):
        ready = [loop.backward.inputs(batch, draws) for draws in loop.backward.draws(batch, number)]
        if kind == "clip":  # as in a phase whose text tower stands still
            ready = [dataclasses.replace(ready[0], text=torch.randn(16, 96))]
        with Counted() as counted:
            loop._step(batch, ready, states, tmp_path)
            if extra:
                extra(loop)
    return counted


@pytest.mark.parametrize(("kind", "calls"), [("s2", 3600), ("clip", 560)])
def test_a_step_reads_nothing_from_the_device_and_calls_little(kind, calls, tmp_path):
    found = step_counted(kind, tmp_path)
    assert found.reads == []
    assert found.calls <= calls


def test_attention_is_asked_for_few_shapes_however_long_the_texts(tmp_path):
    shapes = {}
    for packed in (True, False):
        loop = loop_of("s2", True, phase={"token_drop": 0.5}, steps=8)
        loop.backward.objective.packed = packed
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            loop.run(made_up.batches(8), quiet, tmp_path / str(packed))
        events = seen.key_averages(group_by_input_shape=True)
        shapes[packed] = {str(e.input_shapes) for e in events if e.key == "aten::scaled_dot_product_attention"}
    assert len(shapes[False]) <= 6 and len(shapes[True]) > 20


def test_the_count_sees_a_read_that_is_put_into_the_step(tmp_path):
    found = step_counted("s2", tmp_path, extra=lambda loop: loop.model.temp.item())
    assert found.reads == ["_local_scalar_dense"]


def test_items_come_in_order_with_what_was_made_of_them():
    assert list(prefetch(range(5), lambda n: n * n)) == [(n, n * n) for n in range(5)]
    assert not threads()


def test_an_error_comes_with_the_item_it_belongs_to():
    def make(n):
        if n == 2:
            raise ValueError("item 2")
        return n

    seen = []
    with pytest.raises(ValueError, match="item 2"):
        seen.extend(item for item, _ in prefetch(range(5), make))
    found = prefetch(range(5), make)
    assert [next(found), next(found)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="item 2"):
        next(found)
    assert not threads()


def test_a_consumer_that_stops_leaves_no_thread():
    found = prefetch(range(1000), lambda n: n)
    assert next(found) == (0, 0)
    found.close()
    assert not threads()
