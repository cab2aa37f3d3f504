"""The flow itself, killed with everything it started and run again: the long form of the kill tests."""

import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests import kill

CLIPS = ["data.synthetic.train_clips=48", "data.synthetic.val_clips=8", "data.synthetic.test_clips=8"]
PHASES = ["s2.phases.words", "s2.phases.bindings", "s2.phases.matching", "clip.phases.text", "clip.phases.pooler"]
STEPS = [f"train.{phase}.{field}" for phase in PHASES for field in ("steps=8", "warmup_steps=2")]
SMALL = [*CLIPS, *STEPS, "train.s2.batch_size=16", "train.clip.batch_size=16", "train.threads=1", "eval.k=4"]
ORDER = ("s2", "clip", "scores")
ROOT = Path(kill.__file__).parents[1]


def command(home, step="decode"):
    sets = [part for value in SMALL for part in ("--set", value)]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from flows.cli import main; main()"
    return [sys.executable, "-c", code, step, "demo", "--home", str(home), *sets]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return kill.unbroken_run(command, tmp_path_factory.mktemp("unbroken"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return kill.unbroken_run(lambda home: command(home, "score"), tmp_path_factory.mktemp("scored"))[0]


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_killed_flow_goes_on_to_the_same_bytes(unbroken, tmp_path, seed):
    kill.assert_same_bytes(command, tmp_path, seed, kills=2, unbroken=unbroken)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", ORDER)
def test_killed_while_it_trains_or_scores(scored, tmp_path, kind, seed):
    """What came before the kind is there already; the kill falls some time after its first artifact was begun."""
    home = tmp_path / "ws"
    shutil.copytree(scored, home)
    for later in ORDER[ORDER.index(kind) :]:
        shutil.rmtree(home / "artifacts" / later)
    wait_s, begun = random.Random(seed).random() * 0.6, []

    def working():
        if not begun and any((home / "artifacts" / kind).glob(".*.tmp")):
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() - begun[0] >= wait_s

    assert kill.kill(command(home, "score"), home, when=working).landed and begun
    assert kill.hashes(home) != kill.hashes(scored)
    kill.finish(command(home, "score"))
    assert kill.hashes(home) == kill.hashes(scored)
