"""One thread in every test and in the processes tests start: sums on a CPU depend on the number in their last bit."""

import os
import sys

import pytest

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def one_thread():
    """Undo what an earlier test of this process set."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
