"""A machine that lends its processes to phases another machine trains: `iv join`."""

import logging
import sys
from pathlib import Path

from ivcore.errors import WorkError
from ivcore.train.launch import start
from ivcore.train.rendezvous import calls
from ivcore.train.stop import until_stopped

log_line = logging.getLogger("iv.train")
LOOK_S = 1.0  # between two looks for a call


def join(home: Path, node: int, once: bool = False) -> int:
    """Take part in every phase that calls, as machine `node`, until SIGTERM; `once`: in one. Returns how many.

    Raises:
        WorkError: the one phase failed here.
    """
    answered: set[str] = set()
    with until_stopped() as stop:
        while not stop.wait(LOOK_S):
            for name, job in calls(home).items():
                if name not in answered and not stop.is_set():
                    answered.add(name)
                    log_line.info("machine %d takes part: %s", node, job)
                    process = start(node, job, stdout=sys.stderr)
                    with until_stopped(process.terminate):
                        status = process.wait()
                    if once and status:
                        raise WorkError(f"{job} ended with {status} on machine {node}; its words are above")
                    if once:
                        return len(answered)
    return len(answered)
