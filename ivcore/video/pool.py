"""Work on untrusted files in processes that can be killed: a file that hangs or crashes a decoder costs only itself.

A hung decoder ignores signal handlers and thread time-outs, so each task runs in a worker process with a deadline; at
the deadline the worker is killed and another takes its place (pebble does both). Limits of the system bound memory and
CPU of a worker, and one that has done much or grown large is replaced.
"""

import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from ivcore.errors import WorkError
from ivcore.video import shared_memory

# Imported once, in the fork server: a new worker then costs 8 ms, without this module 150.
PRELOAD = ["ivcore.video.decode_file", "ivcore.video.pool", "torch"]
LONGEST_TEMP = 70  # bytes; the kernel takes 107 of a socket's path, of which Python's own names are some 32
AHEAD = 16  # tasks a worker that are handed out before the oldest is back: bounds what waits in memory
MEMORY_BYTES = 4 << 30  # a worker may map this much more than it began with; 8 frames of 8K need 2 GB
RECYCLE_BYTES = 1 << 30  # a worker that keeps more than this resident makes room for a new one
RECYCLE_TASKS = 1000
GROWN, NO_MEMORY = 75, 76  # exit codes of workers
PAGE = os.sysconf("SC_PAGE_SIZE")

_begun, _told = 0, 0.0  # tasks this worker has begun, CPU seconds it has told of


@dataclass(frozen=True)
class Lost:
    """What is left of a task that did not come back: `reason` timeout, crashed, out_of_memory or failed."""

    reason: str
    detail: str


@dataclass
class _Job:
    task: Any
    future: ProcessFuture[Any]
    slot: int
    last: bool = False  # it is not tried another time


def num_workers(asked: int) -> int:
    """Worker processes for `asked`; 0 means one a core this process may use."""
    return asked or len(os.sched_getaffinity(0))


def context() -> multiprocessing.context.BaseContext:
    """How workers are started: forked off a server that has one thread and the decoders imported.

    The server listens in the folder for temporary files. Where its path is too long for a socket each starts alone.
    """
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TEMP:
        return multiprocessing.get_context("spawn")
    out = multiprocessing.get_context("forkserver")
    out.set_forkserver_preload(PRELOAD)
    return out


def run(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    workers: int,
    deadline_s: float | Callable[[Any], float],
    again: Callable[[Any], Any] = lambda task: None,
    spent: Callable[[float], None] = lambda cpu_s: None,
    array_bytes: int = 0,
) -> Generator[Any, None, None]:
    """`function(task)` of every task in the order of the tasks, or a Lost in its place.

    Args:
        function: a module's function; it and the tasks are pickled.
        workers: processes, at least 1.
        deadline_s: seconds a task may take, counted from when a worker takes it; or a function of the task.
        again: what to try, once, in place of a task that was lost; None: nothing.
        spent: is told what CPU seconds a worker took since its last result, or since it began.
        array_bytes: what the arrays of a result may take to come back through shared memory; larger ones are pickled.

    Raises:
        WorkError: workers were killed from outside.
    """
    pool: Any = ProcessPool(workers, max_tasks=RECYCLE_TASKS, context=context(), initializer=_begin)
    waiting: deque[_Job] = deque()
    ahead = AHEAD * workers
    memory = shared_memory.Slots(ahead, array_bytes)  # one a task that is out

    def schedule(task: Any, slot: int) -> ProcessFuture[Any]:
        seconds = deadline_s(task) if callable(deadline_s) else deadline_s
        args = (function, task, seconds, memory.slot(slot))
        future: ProcessFuture[Any] = pool.schedule(_guarded, args=args, timeout=seconds)
        return future

    def outcome(job: _Job) -> Any:
        while True:
            try:
                parcel, took = job.future.result()
                spent(took)
                return memory.take(job.slot, parcel)
            except BrokenProcessPool:
                raise WorkError("decoder processes were killed from outside (is memory short?); run again") from None
            except ProcessExpired as e:
                if e.exitcode == GROWN:  # it had not begun
                    job.future = schedule(job.task, job.slot)
                    continue
                lost = Lost("out_of_memory", f"its worker wanted more than {MEMORY_BYTES >> 20} MB")
                if e.exitcode != NO_MEMORY:
                    lost = Lost("crashed", f"its worker ended with exit code {e.exitcode}")
            except TimeoutError as e:
                lost = Lost("timeout", f"not done after {e.args[1]:g} s; its worker was killed")
            except Exception as e:
                lost = Lost("failed", f"{type(e).__name__}: {e}"[:300])
            other = None if job.last else again(job.task)
            if other is None:
                return lost
            job.task, job.future, job.last = other, schedule(other, job.slot), True

    try:
        for num, task in enumerate(tasks):
            slot = num % ahead  # what was there before has been read: no more than `ahead` are out
            waiting.append(_Job(task, schedule(task, slot), slot))
            if len(waiting) >= ahead:  # half of them at once: waking up for each costs more than its work
                wait([waiting[ahead // 2 - 1].future])
                for _ in range(ahead // 2):
                    yield outcome(waiting.popleft())
        while waiting:
            yield outcome(waiting.popleft())
    finally:
        pool.stop()  # when all is done nothing runs any more; when the caller left early nobody wants the rest
        pool.join()
        memory.close()


def alone() -> None:
    """One thread a worker: the workers are the parallelism."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_caller, daemon=True).start()


def _begin() -> None:
    """A worker begins: alone, no core file, and no more memory than it needs."""
    alone()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _pages(0) * PAGE + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _guarded(
    function: Callable[[Any], Any], task: Any, deadline_s: float, slot: shared_memory.Slot
) -> tuple[shared_memory.Parcel, float]:
    """The result and the CPU seconds since the last one, in a worker."""
    global _begun, _told
    if _begun and _pages(1) * PAGE > RECYCLE_BYTES:
        time.sleep(0.05)  # until it is known whose task this was
        os._exit(GROWN)
    _begun += 1
    before = cpu_s()
    # Beside the deadline: it also ends a worker that spins when nobody is left to look at the clock.
    resource.setrlimit(resource.RLIMIT_CPU, (int(before + 2 * deadline_s) + 5, resource.RLIM_INFINITY))
    try:
        parcel = shared_memory.put(function(task), slot)
    except MemoryError:
        os._exit(NO_MEMORY)
    now = cpu_s()
    took, _told = now - _told, now
    return parcel, took


def cpu_s() -> float:
    """CPU seconds of this process. While its CPU is limited, time.process_time is behind by up to a tick, 4 ms."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _pages(field: int) -> int:
    """Pages this process maps (0) or keeps resident (1)."""
    return int(Path("/proc/self/statm").read_text().split()[field])


def _end_with_caller() -> None:
    """End this worker when the process that asked for it is gone: nobody would kill it at its deadline any more.

    Not by the parent's pid: that is the fork server's, and workers keep the fork server alive.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
