"""What a user can get wrong, through the command line: one line, the right exit status, nothing half-written.

The flow is a stand-in that makes the first two steps without Prefect; what it meets is real.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

from flows.cli import main
from ivcore import steps
from ivcore.datasets.shapes.drawing import encode
from ivcore.errors import WorkError
from ivcore.store.artifacts import Store
from ivcore.store.catalog import QUESTIONS, query
from tasks import runtime, tracking

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


def _two_steps(config, home):
    store = Store(Path(home))
    manifest = steps.run(steps.ingest(store, config.data), store)
    steps.run(steps.decode(store, config.data, config.frames, manifest), store)
    return []


@pytest.fixture()
def iv(tmp_path, monkeypatch):
    """Runs `iv fit-s2` on a folder of three videos; keyword `rows` are the lines of the csv below its header."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for n, name in enumerate("abc"):
        encode(folder / f"{name}.mp4", np.full((6, 32, 32, 3), 60 * n, np.uint8), 5)
    flow = ModuleType("flows.single")
    flow.single = lambda config, step, home: _two_steps(config, home)
    monkeypatch.setitem(sys.modules, "flows.single", flow)
    monkeypatch.setattr(runtime, "prepare", lambda home: Path(home))
    home = tmp_path / "ws"
    home.mkdir()

    def run(text="path,caption\na.mp4,one\nb.mp4,two\n", *sets):
        (tmp_path / "captions.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        data = {"dataset": "folder", "root": folder, "annotations": tmp_path / "captions.csv"}
        sets = (*(f"data.{name}={value}" for name, value in data.items()), "frames.workers=1", *sets)
        given = [part for value in sets for part in ("--set", value)]
        return CliRunner().invoke(main, ["fit-s2", "demo", "--json", "--home", str(home), *given])

    run.home, run.folder = home, folder
    return run


@pytest.mark.parametrize(
    "text, says",
    [
        ("path,caption\n", "captions.csv has no rows"),
        ("", "captions.csv has no rows"),
        ("file,caption\na.mp4,x\n", "row 1 has no path, only file, caption"),
        ("path,caption\n,x\n,y\n", "row 1 has no path"),
        ("path,caption\na.mp4,one, two\n", "row 1 has more fields than the header"),
        ('path,caption\na.mp4,"x\n', "look for a quote"),
        (b"path,caption\na.mp4,caf\xe9\n", "is not UTF-8 at byte 22"),
        ("path,caption,language\na.mp4,x,fr\n", "language = 'fr' is unknown"),
        ("path,caption,start_s,end_s\na.mp4,x,3,1\n", "end_s = 1 is not after start_s = 3"),
        ("path,caption\n/etc/passwd,x\n", "leaves data.root"),
    ],
)
def test_a_wrong_caption_file(iv, text, says):
    done = iv(text)
    assert done.exit_code == 2 and done.stdout == "" and says in done.stderr and done.stderr.count("\n") == 1
    assert not list(Store(iv.home).all())
    assert iv().exit_code == 0  # after the cure it goes on


@pytest.mark.parametrize(
    "value, says",
    [
        ("data.root=/nowhere", "data.root = '/nowhere' is no folder"),
        ("data.rot=x", "data.rot = 'x': no such field"),
        ("train.clip.lr=fast", "train.clip.lr = 'fast'"),
        ("eval.k=2.5", "eval.k = 2.5"),
        ("train.s2.phases.nope.steps=3", "'nope'"),
        ("data=3", "data = 3"),
    ],
)
def test_a_wrong_value(iv, value, says):
    done = iv("path,caption\na.mp4,one\n", value)
    assert done.exit_code == 2 and done.stdout == "" and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("config", [".", "./none.toml", "nope"])
def test_a_config_that_is_none(config):
    done = CliRunner().invoke(main, ["run", config if config != "." else "./"])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1


def test_a_video_that_is_none_is_a_row_and_the_catalog_says_why(iv):
    (iv.folder / "b.mp4").write_text("I am a text")
    done = iv("path,caption\na.mp4,one\nb.mp4,two\nc.mp4,three\ngone.mp4,four\n")
    assert done.exit_code == 0
    columns, rows = query(iv.home, QUESTIONS["Which videos failed, and why"])
    assert columns == ["path", "error", "detail"]
    assert [row[:2] for row in rows] == [("b.mp4", "not_a_video"), ("gone.mp4", "missing")]
    assert [row[2] for row in rows] == ["it is a text, which begins with 'I am a text'", "no such file"]


def test_nothing_but_a_video_that_is_none_is_one_line_and_1(iv):
    (iv.folder / "a.mp4").write_text("I am a text")
    done = iv("path,caption\na.mp4,one\n")
    assert done.exit_code == 1 and done.stdout == ""
    assert "1 not_a_video" in done.stderr and "a.mp4" in done.stderr and "Traceback" not in done.stderr
    assert not list((iv.home / "artifacts").rglob(".*.tmp"))


def test_a_full_disk_is_said_before_the_start_and_in_the_middle(iv, monkeypatch):
    free = iter([0, 10**9, 0])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, next(free)))
    done = iv()
    assert done.exit_code == 1 and "is full (0 MB free); make room" in done.stderr and done.stderr.count("\n") == 1

    def fills(config, step, home):
        raise sqlite3.OperationalError("database or disk is full\n(Background on this error at: ...)")

    monkeypatch.setattr(sys.modules["flows.single"], "single", fills)
    done = iv()
    assert done.exit_code == 1 and "is full (0 MB free); make room" in done.stderr and done.stderr.count("\n") == 1


WRITE = """
import resource, signal, sys
from pathlib import Path
from ivcore.steps import Step, run
from ivcore.store.artifacts import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
store = Store(Path(sys.argv[1]))
def make(draft, log):
    (draft.path / "small").write_bytes(b"x")
    (draft.path / "large").write_bytes(b"x" * 100_000)
run(Step("ingest", "manifest", {}, {}, make), store)
"""


def test_a_write_that_the_system_refuses_leaves_nothing_and_the_next_run_goes_on(tmp_path):
    for limit, code in (("50000", 1), ("-1", 0)):
        done = subprocess.run([sys.executable, "-c", WRITE, tmp_path, limit], cwd=ROOT, capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert len(list((tmp_path / "artifacts" / "manifest").iterdir())) == 1 - code


def test_a_disk_that_may_only_be_read(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(WorkError, match=r"ws cannot be made \(Read-only file system\); give --home"):
            runtime.prepare(tmp_path / "ws")
    monkeypatch.setattr(runtime.os, "access", lambda *args: False)
    with pytest.raises(WorkError, match="ws cannot be written; give --home"):
        runtime.prepare(tmp_path / "ws")


def test_tracking_that_did_not_answer_once_is_not_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "client", lambda uri: pytest.fail("asked again"))
    step = steps.Step("ingest", "manifest", {}, {}, lambda draft, log: None)
    with tracking.stage_run(tmp_path, step, None, "main", 0, {}) as run:
        run.log({"rows": 1.0}, 0)
    assert run.run_id is None
