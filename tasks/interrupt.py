"""A command that is stopped (Ctrl-C, SIGTERM, a closed terminal) ends at once, with a line and no process left.

Steps write aside and rename, so nothing half-written is seen; a phase that trains saves its state first
(`ivcore.train.stop`). Prefect is not asked to end the run in its own way: its server got the Ctrl-C too, and a client
waits a minute for it. The next command marks the run as stopped.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SAVE_S, END_S = 30, 1  # for states to be saved; for killed processes to be gone
MARK = "IV_COMMAND"  # in the environment of what a command starts: a child whose parent is gone is still its own
SAID = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the end of its terminal"}


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Inside, those signals end this process and all that it started."""
    before = {number: signal.signal(number, _end) for number in SAID}
    os.environ[MARK] = str(os.getpid())  # inherited
    try:
        yield
    finally:
        os.environ.pop(MARK, None)
        for number, listener in before.items():
            signal.signal(number, listener)


def renew() -> None:
    """Listen again: Prefect takes SIGTERM for itself when a flow begins."""
    is_command = os.environ.get(MARK) == str(os.getpid())
    if is_command and threading.current_thread() is threading.main_thread():
        for number in SAID:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    for one in SAID:
        signal.signal(one, signal.SIG_IGN)  # impatient fingers
    if "ivcore.train.stop" in sys.modules:
        sys.modules["ivcore.train.stop"].stop_threads(SAVE_S)
    _end_children()
    said = SAID[signal.Signals(number)]
    line = f"\niv: stopped by {said}; what is finished is kept, and the same command goes on from there\n"
    os.write(2, line.encode())
    os._exit(128 + number)


def _end_children() -> None:
    """SIGKILL: nothing that they write is seen before it is whole. A pool may be starting one just now."""
    import psutil

    while started := [p for p in psutil.process_iter(["environ"]) if _is_ours(p)]:
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, END_S)


def _is_ours(process: Any) -> bool:
    own = str(os.getpid())
    return process.pid != os.getpid() and (process.info["environ"] or {}).get(MARK) == own
