"""The flow itself, killed with everything it started and run again: the long form of the kill tests."""

import sys
from pathlib import Path

import pytest

from tests import kill

SMALL = ["data.synthetic.train_clips=48", "data.synthetic.val_clips=8", "data.synthetic.test_clips=8"]
ROOT = Path(kill.__file__).parents[1]


def command(home):
    sets = [part for value in SMALL for part in ("--set", value)]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from flows.cli import main; main()"
    return [sys.executable, "-c", code, "decode", "demo", "--home", str(home), *sets]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return kill.unbroken_run(command, tmp_path_factory.mktemp("unbroken"))


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_killed_flow_goes_on_to_the_same_bytes(unbroken, tmp_path, seed):
    kill.check(command, tmp_path, seed, kills=2, unbroken=unbroken)
