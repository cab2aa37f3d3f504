"""Worker processes that hang, crash, grow or are left alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ivcore.video import pool
from tests.ivcore.video import breaking


def test_a_hung_task_costs_only_itself() -> None:
    began = time.monotonic()
    got = list(pool.run(time.sleep, [0.0, 60.0, 0.0, 0.0], workers=1, deadline_s=0.5))
    assert [g if g is None else g.reason for g in got] == [None, "timeout", None, None]
    assert time.monotonic() - began < 30


def test_a_worker_that_grew_is_replaced_and_no_task_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = list(pool.run(breaking.grown, [1, 1100, 1, 1], workers=1, deadline_s=20))
    assert outcomes[0] == outcomes[1] != outcomes[2] == outcomes[3]
    monkeypatch.setattr(pool, "RECYCLE_TASKS", 2)
    outcomes = list(pool.run(breaking.grown, [1] * 5, workers=1, deadline_s=20))
    assert len(set(outcomes)) == 3 and outcomes[0] == outcomes[1] != outcomes[2]


def test_cpu_of_the_workers_is_told() -> None:
    told: list[float] = []
    list(pool.run(sum, [range(3_000_000), range(10)], workers=1, deadline_s=20, spent=told.append))
    assert len(told) == 2 and told[0] > 0.01 > told[1]


def test_a_crash_costs_only_itself() -> None:
    got = list(pool.run(os._exit, [7], workers=1, deadline_s=20))
    assert [(g.reason, g.detail[-1]) for g in got] == [("crashed", "7")]
    assert [g.reason for g in pool.run(breaking.broken, ["spin"], workers=1, deadline_s=0.3)] == ["timeout"]
    got = list(pool.run(abs, [-1, "x", -3], workers=1, deadline_s=20))
    assert got[0] == 1 and got[1].reason == "failed" and "TypeError" in got[1].detail and got[2] == 3


def test_a_caller_who_leaves_early_leaves_no_worker(tmp_path: Path) -> None:
    outcomes = pool.run(time.sleep, [0.0, 60.0, 60.0], workers=1, deadline_s=100)
    next(outcomes)
    began = time.monotonic()
    outcomes.close()
    assert time.monotonic() - began < 20


SLEEPER = """
import time
from ivcore.video import pool

if __name__ == "__main__":
    for done in pool.run(time.sleep, [0.0, 300.0, 300.0], workers=1, deadline_s=1000):
        print(done, flush=True)
"""


def test_workers_end_with_a_killed_caller(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    env = {**os.environ, "PYTHONPATH": str(Path(pool.__file__).parents[2])}
    caller = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env)
    assert caller.stdout.readline() == "None\n"
    server_and_tracker = children(caller.pid)
    workers = [pid for parent in server_and_tracker for pid in children(parent)]
    assert workers
    caller.kill()
    caller.wait()
    caller.stdout.close()
    until = time.monotonic() + 10
    while any(running(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)


def children(parent: int) -> list[int]:
    threads = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for thread in threads for pid in thread.read_text().split()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["x" * 70, "x" * 200, "é" * 40])
def test_a_long_folder_for_temporary_files_stops_no_worker(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    code = "from ivcore.video import pool; print(list(pool.run(abs, [-1, -2], workers=1, deadline_s=60)))"
    env = {**os.environ, "TMPDIR": str(tmp_path / name)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
    assert done.stdout == "[1, 2]\n", done.stderr
