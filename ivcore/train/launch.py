"""Several ranks: torchrun as a process of its own, whose progress comes back line by line.

The processes end with the one that asked: torchrun gets SIGTERM when its parent is gone, a rank is killed when torchrun
is. `python -m ivcore.train.launch PARENT NODE JOB` is that process, on machine NODE of those that train together.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ivcore
from ivcore.errors import UserError, WorkError
from ivcore.store.log import Log
from ivcore.train.job import Job
from ivcore.train.rendezvous import call
from ivcore.train.stop import until_stopped

PR_SET_PDEATHSIG = 1
STOP_S = 60  # for the ranks to save their state


def train(job: Job, out: Path, log: Log) -> dict[str, Any]:
    """Train the phase on `train.ranks` processes, of this machine or of several; returns what rank 0 found.

    Raises:
        UserError, WorkError: as a rank raised it, or when one ended without a word.
        SystemExit: after SIGTERM; the ranks have saved their state then.
    """
    job.place.mkdir(parents=True, exist_ok=True)
    file, words = job.place / "job.json", job.place / "ranks.log"
    file.write_text(json.dumps({"out": str(out), "job": job.model_dump(mode="json")}, indent=1))
    found: dict[str, Any] = {}
    with words.open("w") as errors, call(job.home, file) if job.train.nodes > 1 else nullcontext():
        process = start(0, file, stdout=subprocess.PIPE, stderr=errors)
        try:
            with until_stopped(process.terminate) as stop:
                assert process.stdout is not None
                for line in process.stdout:
                    _receive(line, log, found)
                status = process.wait()
        finally:
            _end(process)
    if "error" in found and not stop.is_set():
        raise (UserError if found["kind"] == "UserError" else WorkError)(found["error"])
    if status or "result" not in found:
        raise WorkError(f"phase {job.phase.name}: a rank ended with {status} and said nothing; its last words: {words}")
    result: dict[str, Any] = found["result"]
    return result


def start(node: int, file: Path, **options: Any) -> subprocess.Popen[str]:
    """This machine's torchrun for the job of the file."""
    command = [sys.executable, "-m", "ivcore.train.launch", str(os.getpid()), str(node), str(file)]
    root = str(Path(ivcore.__file__).parents[1])
    env = {**os.environ, "PYTHONFAULTHANDLER": "1"}  # a crash in native code says where in ranks.log
    env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(command, env=env, text=True, **options)


def send(**line: Any) -> None:
    """A line to the process that asked; one write, so that lines of several ranks do not mix."""
    os.write(sys.stdout.fileno(), (json.dumps(line) + "\n").encode())


def _receive(line: str, log: Log, found: dict[str, Any]) -> None:
    try:
        said = json.loads(line)
    except ValueError:  # a library's word
        return
    if "figures" in said:
        log(said["figures"], said["step"])
    elif "error" not in found:  # the first one counts
        found.update(said)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def die_with(parent: int, number: int) -> None:
    """Have this process sent the signal when its parent ends (Linux); at once if it has already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def main(parent: int, node: int, file: str) -> None:
    """Be torchrun."""
    die_with(parent, signal.SIGTERM)
    from torch.distributed.run import main as torchrun

    train = json.loads(Path(file).read_text())["job"]["train"]
    nodes, (host, _, port) = train["nodes"], train["meet"].rpartition(":")
    # A rank's number is fixed by its machine, so that rank 0 is the one whose words are heard.
    place = ["--nnodes", str(nodes), "--node-rank", str(node), "--master-addr", host, "--master-port", port]
    each = ["--nproc-per-node", str(train["ranks"] // nodes)]
    torchrun([*(place if nodes > 1 else ["--standalone"]), *each, "-m", "ivcore.train.worker", str(os.getpid()), file])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
