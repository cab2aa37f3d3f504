"""Kill a command at a seeded moment, run it again to the end, and hold its artifacts to those of an unbroken run.

For any test: `assert_same_bytes(lambda home: [...command...], tmp_path, seed)`. Times, run ids and dates may differ;
bytes may not.
"""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MAY_DIFFER = ("created", "wall_s", "cpu_s", "peak_rss_mb", "measured", "mlflow_run_id", "prefect_run_id", "sha256")
TICK_S = 0.005


@dataclass(frozen=True)
class Kill:
    """What became of one attempt to kill."""

    landed: bool  # False: the command had ended before
    after_s: float
    files: int


def hashes(home: Path) -> dict[str, str]:
    """sha256 of every file below artifacts/; a record counts without what may differ. Leftovers count, too."""
    out = {}
    for path in sorted((home / "artifacts").rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "record.json":
                record = {k: v for k, v in json.loads(data).items() if k not in MAY_DIFFER}
                data = json.dumps(record, sort_keys=True).encode()
            out[path.relative_to(home).as_posix()] = hashlib.sha256(data).hexdigest()
    return out


def start(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """The command in a process group of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(command), start_new_session=True, env={**os.environ, **(env or {})}, **quiet)


def finish(command: Sequence[str], timeout_s: float = 600, env: Mapping[str, str] | None = None) -> float:
    """Run to the end, which has to be a good one; returns the seconds it took."""
    begun = time.monotonic()
    process = start(command, env)
    try:
        _, errors = process.communicate(timeout=timeout_s)
    finally:
        end_group(process)
    assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}: {errors.decode()[-2000:]}"
    return time.monotonic() - begun


def kill(
    command: Sequence[str],
    home: Path,
    after_s: float | None = None,
    when_files: int | None = None,
    when: Callable[[], bool] = lambda: False,
    env: Mapping[str, str] | None = None,
) -> Kill:
    """SIGKILL to the whole group after some seconds, once artifacts/ holds that many files, or once `when` holds."""
    begun = time.monotonic()
    process = start(command, env)
    try:
        while process.poll() is None:
            late = after_s is not None and time.monotonic() - begun >= after_s
            if late or (when_files is not None and count(home) >= when_files) or when():
                break
            time.sleep(TICK_S)
        landed = process.poll() is None
    finally:
        end_group(process)
    return Kill(landed, time.monotonic() - begun, count(home))


def count(home: Path) -> int:
    """Files below artifacts/, half-written ones too."""
    return sum(len(files) for _, _, files in os.walk(home / "artifacts"))


def end_group(process: subprocess.Popen) -> None:
    """SIGKILL to whatever is left of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr:
        process.stderr.close()


def assert_same_bytes(
    command: Callable[[Path], Sequence[str]],
    folder: Path,
    seed: int,
    kills: int = 1,
    env: Mapping[str, str] | None = None,
    unbroken: tuple[Path, float] | None = None,
) -> list[Kill]:
    """Kill `kills` times at seeded moments, run to the end, compare with an unbroken run; returns the kills.

    Give `unbroken` (home and seconds of a run that is done) to share it between seeds. Even kills fall by time, odd
    ones by number of files, so that both slow steps and quick ones are hit.
    """
    chance = random.Random(seed)
    whole, took_s = unbroken or unbroken_run(command, folder, env)
    wanted, home = hashes(whole), folder / f"killed-{seed}"
    done = []
    for i in range(kills):
        share = chance.random()
        by_files = (seed + i) % 2 == 1
        moment = {"when_files": 1 + int(share * len(wanted))} if by_files else {"after_s": share * took_s}
        done.append(kill(command(home), home, env=env, **moment))
    finish(command(home), env=env)
    found = hashes(home)
    odd = sorted(p for p in wanted.keys() | found.keys() if wanted.get(p) != found.get(p))
    assert not odd, f"seed {seed}, {done}: differs from the unbroken run: {odd[:10]}"
    return done


def unbroken_run(
    command: Callable[[Path], Sequence[str]], folder: Path, env: Mapping[str, str] | None = None
) -> tuple[Path, float]:
    """Home and seconds of a run that nothing disturbs."""
    home = folder / "unbroken"
    return home, finish(command(home), env=env)
