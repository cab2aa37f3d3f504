"""Work on untrusted files in processes that can be killed: a file that hangs or crashes a decoder costs only itself.

A hung decoder ignores signal handlers and thread time-outs, so each task runs in a worker process with a deadline; at
the deadline the worker is killed and another takes its place (pebble does both).
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

PRELOAD = ["ivcore.data.decode_file"]  # imported once in the fork server, so that a new worker costs milliseconds
AHEAD = 16  # tasks a worker that are handed out before the oldest is back: bounds what waits in memory


@dataclass(frozen=True)
class Lost:
    """What is left of a task that did not come back: `reason` timeout or crashed, or the exception it raised."""

    reason: str
    detail: str


def num_workers(asked: int) -> int:
    """Worker processes for `asked`; 0 means one a core this process may use."""
    return asked or len(os.sched_getaffinity(0))


def context() -> multiprocessing.context.BaseContext:
    """How workers are started: forked off a server that has one thread and the decoders imported."""
    out = multiprocessing.get_context("forkserver")
    out.set_forkserver_preload(PRELOAD)
    return out


def run(function: Callable[[Any], Any], tasks: Iterable[Any], workers: int, deadline_s: float) -> Iterator[Any]:
    """`function(task)` of every task in the order of the tasks, or a Lost in its place.

    Args:
        function: a module's function; it and the tasks are pickled.
        workers: processes, at least 1.
        deadline_s: seconds a task may take, counted from when a worker takes it.
    """
    pool = ProcessPool(max_workers=workers, context=context(), initializer=alone)
    waiting: deque[ProcessFuture] = deque()
    try:
        for task in tasks:
            waiting.append(pool.schedule(function, args=(task,), timeout=deadline_s))
            if len(waiting) >= AHEAD * workers:
                yield _outcome(waiting.popleft(), deadline_s)
        while waiting:
            yield _outcome(waiting.popleft(), deadline_s)
    finally:
        pool.stop()  # when all is done nothing runs any more; when the caller left early nobody wants the rest
        pool.join()


def alone() -> None:
    """One thread a worker: the workers are the parallelism."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End this worker when the process that asked for it is gone: nobody would kill it at its deadline any more.

    Not by the parent's pid: that is the fork server's, and workers keep the fork server alive.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcome(future: ProcessFuture, deadline_s: float) -> Any:
    try:
        return future.result()
    except TimeoutError:
        return Lost("timeout", f"not done after {deadline_s:g} s; its worker was killed")
    except ProcessExpired as e:
        return Lost("crashed", f"its worker ended with exit code {e.exitcode}")
    except Exception as e:
        return Lost("failed", f"{type(e).__name__}: {e}"[:300])
