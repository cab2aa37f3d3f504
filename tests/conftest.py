"""One thread in every test and in the processes tests start: sums on a CPU depend on the number in their last bit."""

import os
import sys

import pytest

NO_CUDA = "needs CUDA"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("IV_REMOTE", None)  # tests share with nobody


@pytest.fixture(autouse=True)
def one_thread():
    """Undo what an earlier test of this process set."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Without CUDA the tests marked gpu are skipped."""
    waiting = [item for item in items if item.get_closest_marker("gpu")]
    if waiting:
        import torch

        for item in waiting if not torch.cuda.is_available() else []:
            item.add_marker(pytest.mark.skip(reason=NO_CUDA))


def pytest_terminal_summary(terminalreporter):
    """Name what was not run for lack of CUDA: a skip that nobody reads is a test that nobody has."""
    skipped = terminalreporter.stats.get("skipped", [])
    names = [r.nodeid for r in skipped if isinstance(r.longrepr, tuple) and NO_CUDA in r.longrepr[2]]
    if names:
        terminalreporter.write_line(f"not run, no CUDA here ({len(names)}):")
        for name in sorted(names):
            terminalreporter.write_line(f"  {name}")
