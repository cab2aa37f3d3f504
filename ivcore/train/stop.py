"""SIGTERM while a phase trains: the step in hand is finished and its state saved before the process ends."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT = 128 + signal.SIGTERM  # what a shell shows of a process that SIGTERM ended


@contextmanager
def until_sigterm(also: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """An event that SIGTERM sets, calling `also`; on leaving the signal goes to whom it went before, if it came.

    Outside the main thread nobody can listen to signals: the event is never set.

    Raises:
        SystemExit: if the signal came; or what its former listener raises.
    """
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()
        also()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked.is_set():
        if before not in (signal.SIG_DFL, signal.SIG_IGN, None):
            signal.raise_signal(signal.SIGTERM)  # Prefect listens: it ends the flow run as cancelled or crashed
        raise SystemExit(EXIT)
