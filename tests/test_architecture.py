"""Which way imports point, seen from fresh processes: what lint cannot see."""

import subprocess
import sys

from tests import architecture
from tests.architecture import ROOT

HEAVY = ("torch", "prefect", "mlflow", "transformers", "pandas", "pyarrow", "duckdb", "numpy")


def _fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_room_imports_the_rooms_below_it_and_no_file_is_in_a_ring():
    graph = architecture.imports()
    assert architecture.upwards(graph) == []
    assert architecture.rings(graph) == []


def test_an_import_upwards_and_a_ring_are_seen_inside_functions_too(tmp_path):
    for path, code in {
        "ivcore/__init__.py": "",
        "ivcore/video/__init__.py": "",
        "ivcore/video/pool.py": "def late():\n    from ivcore.train import loop",
        "ivcore/train/__init__.py": "",
        "ivcore/train/loop.py": "import ivcore.video.pool",
        "ivcore/attic.py": "from ivcore.video import pool",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(code)
    graph = architecture.imports(tmp_path)
    assert ("ivcore.video.pool", "ivcore.train.loop") in architecture.upwards(graph)
    assert ("ivcore.attic", "ivcore.video.pool") in architecture.upwards(graph)  # no room of that name
    assert architecture.rings(graph) == [["ivcore.train.loop", "ivcore.video.pool"]]


def test_ivcore_brings_neither_prefect_nor_mlflow():
    code = """
import importlib, pkgutil, sys, ivcore
for m in pkgutil.walk_packages(ivcore.__path__, "ivcore."):
    if not m.name.endswith("__main__"):
        importlib.import_module(m.name)
print(sorted({m.split(".")[0] for m in sys.modules} & {"prefect", "mlflow", "flows", "tasks"}))
"""
    assert _fresh(code).strip() == "[]"


def test_iv_help_loads_nothing_heavy():
    code = f"""
import sys
from click.testing import CliRunner
from flows.cli import main
out = CliRunner().invoke(main, ["--help"])
assert out.exit_code == 0, out.output
print(sorted({{m.split(".")[0] for m in sys.modules}} & set({HEAVY!r})))
"""
    assert _fresh(code).strip() == "[]"


def test_tasks_runtime_comes_before_prefect_and_mlflow():
    code = "import sys, tasks.runtime; print(sorted({m.split('.')[0] for m in sys.modules} & {'prefect', 'mlflow'}))"
    assert _fresh(code).strip() == "[]"


def test_only_tracking_names_mlflow():
    named = []
    for folder in ("flows", "tasks", "ivcore"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = (line.strip() for line in path.read_text().splitlines())
            if any(line.startswith(("import mlflow", "from mlflow")) for line in lines):
                named.append(path.relative_to(ROOT).as_posix())
    assert named == ["tasks/tracking.py"]
