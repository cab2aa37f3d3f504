"""Which way imports point, seen from fresh processes: what lint cannot see."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "prefect", "mlflow", "transformers", "pandas", "pyarrow", "duckdb", "numpy")


def _fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
