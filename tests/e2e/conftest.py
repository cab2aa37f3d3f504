"""A Prefect server and a worker of our deployments on a free port, in a workspace of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks import runtime

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect"]


@dataclass
class Services:
    """Where the server answers and where the flows work."""

    api: str
    home: Path
    env: dict[str, str]

    def run(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Start a flow run by the REST API, as a page or a script elsewhere would; its id."""
        found = httpx.get(f"{self.api}/deployments/name/{deployment}").raise_for_status().json()
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        made = httpx.post(f"{self.api}/deployments/{found['id']}/create_flow_run", json=body)
        return str(made.raise_for_status().json()["id"])

    def state(self, flow_run: str) -> dict[str, Any]:
        """The flow run as the server knows it, its state among the rest."""
        out: dict[str, Any] = httpx.get(f"{self.api}/flow_runs/{flow_run}").raise_for_status().json()
        return out

    def ended(self, flow_run: str, within_s: float = 600) -> dict[str, Any]:
        """Its final state."""
        ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait(lambda: self.state(flow_run)["state_type"] in ends, within_s, f"flow run {flow_run}")
        out: dict[str, Any] = self.state(flow_run)["state"]
        return out


def wait(done: Callable[[], bool], within_s: float, what: str) -> None:
    """Ask twice a second until it is so."""
    end = time.monotonic() + within_s
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within_s:g} s")
        time.sleep(0.5)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("e2e") / "ws"
    (home / "prefect").mkdir(parents=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(home / "prefect"), "PREFECT_API_URL": api, "IV_HOME": str(home), "PYTHONPATH": str(ROOT)}
    outside = {k: v for k, v in os.environ.items() if k != runtime.TRACKING}
    found = Services(api, home, {**outside, **runtime.QUIET, **own})
    started = []

    def start(*command: str) -> None:
        log = (home / f"{command[0]}.log").open("wb")
        process = subprocess.Popen(
            [*PREFECT, *command], env=found.env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        started.append(process)

    def answers() -> bool:
        try:
            return httpx.get(f"{api}/health").is_success
        except httpx.TransportError:
            return False

    try:
        start("server", "start", "--host", "127.0.0.1", "--port", str(port))
        wait(answers, 120, "the Prefect server")
        for command in (["work-pool", "create", "iv", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
            done = subprocess.run([*PREFECT, *command], env=found.env, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        start("worker", "start", "--pool", "iv")
        yield found
    finally:
        for process in reversed(started):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(home / "prefect", ignore_errors=True)
