"""Ranks as processes of their own: what they find comes back, and they end with whoever started them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ivcore import steps
from ivcore.errors import UserError
from tests import kill

ROOT = Path(kill.__file__).parents[1]


def step_of(chain, phase, **train):
    """A clip phase on the chain's features, trained in another way."""
    c = chain.config
    values = {"ranks": 2, **train}
    stage = c.train.clip.model_copy(update={"batch_size": values.pop("batch_size", 16)})
    settings = c.train.model_copy(update={"clip": stage, **values})
    return steps.fit_clip(chain.store, c.model, settings, phase, chain.manifest, chain.features, chain.last)


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_two_ranks_write_the_artifact_and_leave_what_is_frozen_alone(chain, how):
    phase = chain.config.train.clip.phases[1].model_copy(update={"steps": 12, "name": how})
    assert step_of(chain, phase).key == step_of(chain, phase, ranks=1).key  # in the recipe there are no ranks
    sent = []
    made = steps.run(
        step_of(chain, phase, parallel=how), chain.store, lambda figures, step: sent.append((step, figures))
    )
    record = made.record()
    assert record["measured"]["ranks"] == 2 and record["facts"]["digest_before"] == record["facts"]["digest_after"]
    assert [step for step, _ in sent] == [10, 12] and sent[0][1]["speed/videos_per_s"] > 0
    shutil.rmtree(made.path)
    alone = steps.run(step_of(chain, phase, ranks=1), chain.store)
    facts = {"vision_digest", "train_gflop"}  # the last bits of what was trained; counts of arithmetic in another order
    same = [{k: v for k, v in r["facts"].items() if k not in facts} for r in (record, alone.record())]
    assert same[0] == same[1]


def test_an_error_of_a_rank_is_the_error_of_the_step(chain):
    phase = chain.config.train.clip.phases[1].model_copy(update={"name": "odd"})
    with pytest.raises(UserError, match=r"15 clips cannot be divided by train\.ranks 2"):
        chain.run(step_of(chain, phase, batch_size=15))


def ranks_of(home):
    """Processes that work for this workspace as ranks."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"ivcore.train.worker" in words and any(str(home).encode() in w for w in words):
                found.append(int(place.name))
    return found


def begun(home, command):
    """The command, once its ranks have saved a state."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not list((home / "cache" / "training").glob("*/step-*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    return process


def gone(home, seconds=60):
    until = time.monotonic() + seconds
    while ranks_of(home) and time.monotonic() < until:
        time.sleep(0.02)
    return not ranks_of(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ranks_end_with_the_one_that_asked_and_go_on_alone(chain, tmp_path, number):
    home = tmp_path / "ws"
    shutil.copytree(chain.store.home, home)
    command = [sys.executable, "-m", "tests.ivcore.train.train_phase", str(home), "clip", "400", "train.ranks=2"]
    process = begun(home, command)
    assert len(ranks_of(home)) >= 2
    os.kill(process.pid, number)
    assert process.wait(100) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert gone(home)
    last = max(int(p.name[5:]) for p in (home / "cache" / "training").glob("*/step-*"))
    assert 0 < last < 400


def test_a_second_machine_joins_from_the_command_line(chain):
    phase = chain.config.train.clip.phases[1].model_copy(update={"steps": 12, "name": "two_machines"})
    command = [sys.executable, "-m", "flows.cli", "join", "--node", "1", "--once", "--home", str(chain.store.home)]
    other = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        meet = f"127.0.0.1:{free.getsockname()[1]}"
    made = steps.run(step_of(chain, phase, nodes=2, meet=meet), chain.store)
    words = other.communicate(timeout=100)[1]
    assert other.returncode == 0, words
    assert made.record()["measured"]["ranks"] == 2 and "machine 1 takes part" in words
    assert not list((chain.store.home / "run" / "calls").iterdir())
    shutil.rmtree(made.path)
    here = steps.run(step_of(chain, phase), chain.store)
    assert (here.path / "model.safetensors").read_bytes() == (made.path / "model.safetensors").read_bytes()
