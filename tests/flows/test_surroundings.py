"""What lies around a command: files of the working folder, names of the caller's, what a light command imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivcore.errors import UserError
from tasks import redirects, runtime

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "prefect", "mlflow")
ROW = {
    **{"arm": "main", "model": "clip", "size": "tiny", "head": "sim", "k": None, "frames": 4, "dtype": "float32"},
    **{"device": "cpu", "machine": "m", "max_text_len": 32, "language": "en", "text_class": "short"},
    **{"direction": "t2v", "dataset": "demo", "r1": 50.0, "r1_ci95": [40.0, 60.0], "chance": 1.0, "families": 20},
}


def python(code, *args, cwd=ROOT, path=ROOT):
    env = {n: v for n, v in os.environ.items() if n != runtime.TRACKING} | {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=cwd, env=env, timeout=120
    )


@pytest.mark.parametrize("args", [["--help"], ["sql"], ["advise"], ["search", " "], ["datasets"]])
def test_a_light_command_imports_nothing_heavy(args, tmp_path):
    (tmp_path / "reports" / "latest").mkdir(parents=True)
    (tmp_path / "reports" / "latest" / "report.json").write_text(json.dumps({"rows": [ROW]}))
    code = "import atexit, sys; from flows.cli import main\n"
    code += f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))\nmain()"
    home = [] if args[0].startswith("-") else ["--home", str(tmp_path)]
    done = python(code, *args, *home)
    assert done.stdout.splitlines()[-1] == "[]" and "Traceback" not in done.stderr, done


@pytest.mark.parametrize(
    "file, text",
    [
        (".env", "PREFECT_API_URL=http://elsewhere.example/api\n"),
        (".env", "A=1\nexport prefect_server_database_connection_url = 'x'\n"),
        ("prefect.toml", '[api]\nurl = "http://elsewhere.example/api"\n'),
        ("pyproject.toml", '[tool.prefect.server.database]\nconnection_url = "postgresql://me:secret@x/y"\n'),
        ("prefect.toml", "[api\n"),
    ],
)
def test_a_file_of_the_folder_that_would_send_a_run_elsewhere_is_named(file, text, tmp_path, monkeypatch):
    for name in redirects.REDIRECTS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=f"{tmp_path / file} ") as said:
        redirects.refuse(tmp_path)
    assert "secret" not in str(said.value)


def test_a_file_that_sends_nothing_elsewhere_or_was_asked_for_is_let_be(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("# PREFECT_API_URL=x\nPREFECT_LOGGING_LEVEL=DEBUG\nPREFECT_API_URL=\n")
    (tmp_path / "pyproject.toml").write_text('[tool.prefect]\nx = 1\n[api]\nurl = "y"\n')
    assert list(redirects.found(tmp_path)) == []
    redirects.refuse(tmp_path)
    (tmp_path / "prefect.toml").write_text('api.url = "http://here.example/api"\n')
    assert list(redirects.found(tmp_path)) == [(tmp_path / "prefect.toml", "PREFECT_API_URL")]
    monkeypatch.setenv("PREFECT_API_URL", "http://here.example/api")
    redirects.refuse(tmp_path)


@pytest.mark.parametrize("name", ["tasks.py", "tasks/__init__.py"])
@pytest.mark.parametrize("text", ["", "from nowhere_at_all import task\n"])
def test_a_file_that_shadows_a_package_is_named(name, text, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    (file.parent / "runtime.py").write_text("")
    code = "import sys; sys.path[1:1] = sys.argv.pop(1).split(':'); from flows.cli import main; main()"
    done = python(code, f"{tmp_path}:{ROOT}", "sql", cwd=tmp_path, path=tmp_path)
    assert done.stderr.startswith(f"iv: {file} stands before") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%3Fb", "a b", "é中"])
def test_a_database_lies_where_its_workspace_is(name, tmp_path):
    from sqlalchemy import create_engine, text

    file = tmp_path / name / "x.db"
    file.parent.mkdir()
    with create_engine(runtime.sqlite(file)).begin() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    assert file.stat().st_size and [p.name for p in tmp_path.iterdir()] == [name]


def test_mlflow_makes_no_folder_for_an_address_with_a_question_mark(tmp_path):
    code = "import sys; from tasks import runtime, tracking\nhome = runtime.prepare(sys.argv[1])\n"
    code += "assert tracking.open_parent(home, 'n', {'run': 'x'}, {})"
    (tmp_path / "here").mkdir()
    done = python(code, str(tmp_path / "a?b"), cwd=tmp_path / "here")
    assert done.returncode == 0 and not list((tmp_path / "here").iterdir()), done.stderr
    assert (tmp_path / "a?b" / "mlflow" / "mlflow.db").stat().st_size
