"""Decoders that break, for workers of the pool: what a file does to its worker stands in its name."""

import os
import signal
import time

from ivcore.video.decode_file import Decoded, Task, decode_file


def decode_or_break(task: Task) -> Decoded:
    """`decode_file`, save that hang_X, crash_X, grow_X and raise_X do so while the decoder is X or X is always."""
    what, _, when = task.path.stem.partition("_")
    if when in (task.decoder, "always"):
        broken(what)
    return decode_file(task)


def broken(what: str) -> None:
    if what == "hang":
        time.sleep(1000)
    if what == "spin":
        while True:
            pass
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "grow":
        bytearray(8 << 30)
    if what == "raise":
        raise KeyError("what nobody thought of")


def grown(megabytes: int) -> int:
    """Keep that much in memory for ever; the worker's process id."""
    kept.append(b"x" * (megabytes << 20))
    return os.getpid()


kept: list[bytes] = []
