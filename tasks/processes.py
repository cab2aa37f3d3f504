"""Processes of this machine: started to outlive us, told apart, found by their environment, stopped."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks import runtime

STOP_S = 20.0  # from the polite signal to the other one
TICK_S = 0.2


def start(home: Path, name: str, command: list[str], env: Mapping[str, str]) -> dict[str, Any]:
    """Start a process that outlives us, its words in logs/NAME.log."""
    with (home / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=dict(env),
            cwd=home,  # nothing may depend on where somebody stood
            preexec_fn=_default_signals,
        )
    return {"pid": process.pid, "began": runtime.began(process.pid)}


def _default_signals() -> None:
    """A script in the background ignores Ctrl-C, and what it starts would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def with_setting(name: str, value: str) -> list[int]:
    """Every process of this user that has it in its environment, as does what it starts."""
    mark, found = f"{name}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def stop(pid: int) -> None:
    """SIGTERM to the process, SIGKILL to its group after a while."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + STOP_S
    while time.monotonic() < until and runtime.began(pid) is not None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(TICK_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
