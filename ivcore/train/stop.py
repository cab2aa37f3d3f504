"""A stop that is asked for while a phase trains: the step in hand is finished and its state saved first."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # a scheduler's, and Ctrl-C
_threads: set[threading.Event] = set()  # of phases that train outside the main thread


@contextmanager
def until_stopped(also: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """An event that a signal sets, calling `also`; on leaving the signal goes to whom it went before, if it came.

    Outside the main thread nobody can listen to signals: there `stop_threads` sets the event.

    Raises:
        SystemExit: if the signal came; or what its former listener raises.
    """
    asked, came = threading.Event(), list[signal.Signals]()

    def note(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        asked.set()
        also()

    if threading.current_thread() is not threading.main_thread():
        _threads.add(asked)
        try:
            yield asked
        finally:
            _threads.discard(asked)
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, listener in before.items():
            signal.signal(number, listener)
    if came:
        if before[came[0]] not in (signal.SIG_DFL, signal.SIG_IGN, None):
            signal.raise_signal(came[0])  # Prefect listens: it ends the flow run as cancelled or crashed
        raise SystemExit(128 + came[0])  # what a shell shows of a process that a signal ended


def stop_threads(seconds: float) -> None:
    """Ask the phases that train in other threads to save their state, and wait for them at most so long."""
    until = time.monotonic() + seconds
    for asked in tuple(_threads):
        asked.set()
    while _threads and time.monotonic() < until:
        time.sleep(0.01)
