import sys
from pathlib import Path

import pytest

from tests import kill

SCRIPT = """
import sys, time
from pathlib import Path
from ivcore.steps import Step, run
from ivcore.store.artifacts import Store

def make(draft, log):
    for i in range(12):
        (draft.path / f"part-{i}.bin").write_bytes(bytes([i]) * 4096)
        time.sleep(0.01)
    draft.count(12)

store = Store(Path(sys.argv[1]))
first = run(Step("ingest", "manifest", {"n": 12}, {}, make), store)
run(Step("decode", "frames", {"n": 12}, {"manifest": first}, make), store)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    script = tmp_path_factory.mktemp("kill") / "script.py"
    script.write_text(SCRIPT)
    root = Path(kill.__file__).parents[1]
    return lambda home: [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); "
                         f"sys.argv = ['x', {str(home)!r}]; exec(open({str(script)!r}).read())"]  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    return kill.unbroken_run(command, tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_and_run_again_gives_the_same_bytes(command, unbroken, tmp_path, seed):
    done = kill.assert_same_bytes(command, tmp_path, seed, kills=2, unbroken=unbroken)
    assert any(k.landed for k in done)


def test_the_harness_sees_a_difference(command, unbroken, tmp_path):
    home, _ = unbroken
    wanted = kill.hashes(home)
    assert len(wanted) == 26
    kill.finish(command(tmp_path))
    part = next((tmp_path / "artifacts").rglob("part-3.bin"))
    part.write_bytes(b"x")
    assert kill.hashes(tmp_path) != wanted


def test_a_killed_step_leaves_nothing_that_is_found(command, tmp_path):
    from ivcore.store.artifacts import Store

    gone = kill.kill(command(tmp_path), tmp_path, when_files=4)
    assert gone.landed and gone.files
    assert list(Store(tmp_path).all()) == []
