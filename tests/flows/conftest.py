"""A workspace where flows run for real, under Prefect and MLflow, with made-up step bodies."""

import importlib.util
from pathlib import Path

import pytest

from tasks import runtime

ROOT = Path(__file__).parents[2]


def _stubs():
    spec = importlib.util.spec_from_file_location("iv_stubs", ROOT / "tests" / "tasks" / "stubs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace and Prefect's test server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in runtime.QUIET | {runtime.TRACKING: "", "PREFECT_HOME": "", "MPLCONFIGDIR": ""}:
            patch.setenv(name, "x")  # so that undo takes away what prepare sets
            patch.delenv(name)
        patch.setattr(runtime, "_ours", None)
        home = runtime.prepare(tmp_path_factory.mktemp("flows") / "ws")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
            yield home


@pytest.fixture(scope="module")
def home(workspace):
    """The workspace with stub steps."""
    with pytest.MonkeyPatch.context() as patch:
        _stubs().install(patch)
        yield workspace
