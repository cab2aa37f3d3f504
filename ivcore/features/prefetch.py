"""Batches made ready while the step before them runs: read, augmented, tokenised and on the device."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
AHEAD = 1  # items made ready before they are asked for


def prefetch(items: Iterable[In], make: Callable[[In], Out], ahead: int = AHEAD) -> Generator[tuple[In, Out]]:
    """Each item with what `make` gives for it, in order; a thread is `ahead` of the consumer.

    What the thread raises is raised where its item is due. When the consumer stops early (close, an exception), the
    thread ends with the item it is at.
    """
    ready: queue.Queue[tuple[In | None, Out | None, BaseException | None]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(*entry: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item, make(item), None):
                    return
            put(None, None, None)
        except BaseException as error:  # it belongs to the consumer
            put(None, None, error)

    thread = threading.Thread(target=work, name="iv-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, made, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item, made  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
