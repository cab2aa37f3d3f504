"""The most memory that this process held during a stretch of its work; stretches may lie within each other.

Linux keeps one such figure a process, VmHWM, and lets us begin it anew. Each time it is begun anew, or asked for, the
stretches that are under way take it in. Where the system does not let us, the figure is that of the whole process.
"""

import contextlib
import re
import threading
import weakref
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_lock = threading.Lock()
_under_way: "weakref.WeakSet[Peak]" = weakref.WeakSet()


class Peak:
    """A stretch that begins now and lasts as long as somebody holds it."""

    def __init__(self) -> None:
        with _lock:
            self._most = 0
            _take_in()
            with contextlib.suppress(OSError):
                CLEAR.write_text("5")
            _under_way.add(self)

    def bytes(self) -> int:
        """The most so far; 0 where there is no /proc."""
        with _lock:
            _take_in()
            return self._most


def _take_in() -> None:
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
        for stretch in _under_way:
            stretch._most = max(stretch._most, int(found[1]) * 1024 if found else 0)
