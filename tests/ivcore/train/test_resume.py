"""An interrupted phase goes on from its state and ends as if nothing had been."""

import os
import random
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from ivcore.store.artifacts import Store
from ivcore.train.loop import Loop
from ivcore.train.state import model_and_optimiser
from tests import kill
from tests.ivcore.train import made_up

ROOT = Path(kill.__file__).parents[1]
STEPS = 30  # of the phase that is killed


class Crash(Exception):
    pass


def run(kind, place, until=None, **train):
    """The loop over 12 steps, or until a crash; what it ends with."""
    loop = made_up.loop(kind, made_up.phase(kind, steps=12, loss_every=2), **train)
    step = loop._step

    def watched(*args):
        if loop.totals.step == until:
            raise Crash
        step(*args)

    loop._step = watched
    loop.run(made_up.batches(12), lambda figures, step: None, place)
    return loop


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_crash_and_resume_ends_with_the_same_bytes(kind, tmp_path):
    whole = run(kind, tmp_path / "whole")
    with pytest.raises(Crash):
        run(kind, tmp_path / "place", until=8, save_every_steps=3)
    assert 3 <= int(sorted((tmp_path / "place").iterdir())[-1].name[5:]) <= 8
    torch.manual_seed(99)  # whatever was drawn before plays no part
    again = run(kind, tmp_path / "place", save_every_steps=5)
    mine, theirs = (model_and_optimiser(x.named, x.optimiser) for x in (again, whole))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)
    states = [{**asdict(x.totals), "seconds": 0, "cpu_s": 0} for x in (again, whole)]
    assert states[0] == states[1] and states[0]["step"] == 12


@pytest.fixture(scope="module")
def trained(chain, tmp_path_factory):
    """A workspace with a long phase of each kind, unbroken."""
    home = tmp_path_factory.mktemp("trained") / "ws"
    shutil.copytree(chain.store.home, home)
    for kind in ("s2", "clip"):
        kill.finish(command(home, kind))
    return home


def command(home, kind):
    return [sys.executable, "-m", "tests.ivcore.train.train_phase", str(home), kind, str(STEPS)]


def record(home, kind):
    """The record of the long phase, and its folder."""
    found = [a for a in Store(home).all() if a.kind == kind and a.record()["facts"]["phase"] == "long"]
    assert len(found) == 1
    return found[0].record(), found[0].path


def unfinished(home):
    return sorted((home / "cache" / "training").glob("*/step-*"))


def check_killed(trained, home, kind, seed):
    """Killed once a seeded step is saved, and again later; the third run ends with the bytes of the unbroken one."""
    chance = random.Random(seed)
    shutil.copytree(trained, home)
    shutil.rmtree(record(home, kind)[1])
    first, last = 0, STEPS - 10  # a state waits while another is written, so the last steps may go by unseen
    for _ in range(2 if seed % 2 else 1):
        first = chance.randint(first + 1, max(first + 1, last - 1))
        if first > last:
            break

        def reached(step=first):
            return any(int(p.name[5:]) >= step for p in unfinished(home))

        assert kill.kill(command(home, kind), home, when=reached).landed
        first = int(unfinished(home)[-1].name[5:])
    kill.finish(command(home, kind))
    assert kill.hashes(home) == kill.hashes(trained)
    made = record(home, kind)[0]
    assert made["measured"]["resumed_from"] >= first > 0
    assert made["cpu_s"] > made["measured"]["cpu_s_before"] > 0  # the cost of the steps before the kill is counted
    assert not unfinished(home)


@pytest.mark.parametrize(("kind", "seed"), [("s2", 1), ("clip", 2)])
def test_killed_and_run_again_ends_with_the_same_bytes(trained, tmp_path, kind, seed):
    check_killed(trained, tmp_path / "ws", kind, seed)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3, 13))
@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_ten_kills_of_each(trained, tmp_path, kind, seed):
    check_killed(trained, tmp_path / "ws", kind, seed)


def test_sigterm_saves_and_exits(tmp_path):
    def term(figures, step):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    loop = made_up.loop("clip", made_up.phase("clip", steps=15))
    with pytest.raises(SystemExit) as stopped:
        loop.run(made_up.batches(15), term, tmp_path)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.jsonl", "step-000010"]


def test_sigterm_in_the_step_of_an_early_stop_leaves_the_phase_ended(tmp_path):
    """The look after step 6 ends the phase; the state that is saved then says so to the run that goes on from it."""
    stage = {"validate_every": 2, "patience": 2, "keep": "best"}

    def ended(place, term):
        made = made_up.loop("clip", made_up.phase("clip", steps=12), stage)
        looks = iter([30.0, 20.0, 10.0, 99.0, 99.0, 99.0])

        def look(encoder):
            if term and loop.totals.step == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return next(looks)

        parts = (getattr(made, name) for name in ("encoder", "source", "train", "stage", "phase", "ranks"))
        loop = Loop(*parts, look)
        loop.run(made_up.batches(12), lambda figures, step: None, place)
        return loop

    whole = ended(tmp_path / "whole", term=False)
    with pytest.raises(SystemExit):
        ended(tmp_path / "place", term=True)
    again = ended(tmp_path / "place", term=False)
    assert whole.totals.step == again.totals.step == 6
    assert all(torch.equal(again.named[n], whole.named[n]) for n in whole.named)


def test_sigterm_goes_on_to_whoever_listened_before(tmp_path):
    def listener(number, frame):
        raise Crash

    before = signal.signal(signal.SIGTERM, listener)
    try:
        loop = made_up.loop("clip", made_up.phase("clip", steps=15))
        with pytest.raises(Crash):
            loop.run(made_up.batches(15), lambda figures, step: os.kill(os.getpid(), signal.SIGTERM), tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.jsonl", "step-000010"]
    finally:
        signal.signal(signal.SIGTERM, before)
