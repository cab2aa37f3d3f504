"""One workspace with a Prefect server, a worker and an MLflow server for all tests here, started by `iv up`.

`servers` is everything that a test needs: the REST calls the dashboard makes, deployed flows, the runs' ends.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# A handful of tiny videos, a few steps: seconds.
SMALL = {
    "run": "demo",
    "data": {"synthetic": {"train_clips": 8, "val_clips": 4, "test_clips": 4}},
    "train": {
        "threads": 1,
        "s2": {"batch_size": 4, "phases": [{"name": "words", "steps": 2, "warmup_steps": 0}]},
        "clip": {"batch_size": 4, "phases": [{"name": "pooler", "steps": 2, "warmup_steps": 0, "trainable": "clip"}]},
    },
    "eval": {"k": 2, "bootstrap": 100, "latency_queries": 10},
}


def pytest_collection_modifyitems(items):
    """Everything here is marked e2e."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


@dataclass
class Servers:
    """A workspace with everything running."""

    home: Path
    prefect_port: int
    mlflow_port: int
    more: dict = field(default_factory=dict)  # environment of every `iv`
    _me: str = field(default_factory=lambda: str(uuid.uuid4()))
    _token: str = ""

    @property
    def env(self):
        """The environment of a shell that talks to these servers."""
        ours = {"PREFECT_API_URL": f"http://127.0.0.1:{self.prefect_port}/api", "IV_HOME": str(self.home)}
        ours |= {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow_port}", "PYTHONPATH": str(ROOT)}
        ours |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "IV_"))}
        return {**clean, **ours, **self.more}

    def iv(self, *args, timeout=300):
        """`iv ARGS --home ...`; its finished process."""
        command = [sys.executable, "-m", "flows.cli", *args, "--home", str(self.home)]
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=timeout)

    def up(self):
        """Start what does not run; what `iv up` says."""
        ports = ["--prefect-port", str(self.prefect_port), "--mlflow-port", str(self.mlflow_port)]
        done = self.iv("up", *ports, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self):
        """`prefect --no-prompt deploy --all`, from the folder of prefect.yaml."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, method, path, body=None, base=None, **headers):
        """Status and body of a call; of Prefect's API unless `base` is given."""
        data = None if body is None else json.dumps(body).encode()
        headers |= {"content-type": "application/json"}
        request = urllib.request.Request((base or self.env["PREFECT_API_URL"]) + path, data, headers, method=method)
        for wait_s in (0.5, 1, 2, 4, 8, None):  # 503: SQLite is busy; Prefect's own client tries again, too
            try:
                with urllib.request.urlopen(request, timeout=120) as reply:
                    text = reply.read()
                    return reply.status, json.loads(text) if text else None
            except urllib.error.HTTPError as e:
                if e.code != 503 or wait_s is None:
                    return e.code, json.loads(e.read() or b"null")
                time.sleep(wait_s)
        raise AssertionError("not reached")

    def prefect(self, method, path, body=None):
        """A call as the dashboard makes it: with the CSRF token it asked for before."""
        if not self._token:
            self._token = self.ask("GET", f"/csrf-token?client={self._me}")[1]["token"]
        keys = {"Prefect-Csrf-Token": self._token, "Prefect-Csrf-Client": self._me}
        return self.ask(method, path, body, **keys)

    def deployment(self, name):
        """The deployment FLOW/NAME."""
        return self.prefect("GET", f"/deployments/name/{name}")[1]

    def trigger(self, name, config, **body):
        """Status and answer of starting a deployment FLOW/NAME with this config."""
        parameters = {"config": config}
        call = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "enforce_parameter_schema": True, **body}
        return self.prefect("POST", f"/deployments/{self.deployment(name)['id']}/create_flow_run", call)

    def run(self, run_id):
        """A flow run."""
        return self.prefect("GET", f"/flow_runs/{run_id}")[1]

    def wait(self, run_id, wanted=ENDED, timeout_s=600.0):
        """The flow run once it is in one of the states (type or name)."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            run = self.run(run_id)
            if run["state"]["type"] in wanted or run["state"]["name"] in wanted:
                return run
            time.sleep(0.3)
        raise AssertionError(f"run {run['name']} is {run['state']['name']} after {timeout_s} s\n{self.log()}")

    def log(self):
        """The last words of the worker."""
        return "\n".join((self.home / "logs" / "worker.log").read_text(errors="replace").splitlines()[-40:])

    def artifacts(self, run_id):
        """key -> data of the Prefect artifacts of a flow run."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}}
        return {a["key"]: a["data"] for a in self.prefect("POST", "/artifacts/filter", body)[1]}

    def ending(self, run_id, says=""):
        """Why a run ended badly, as its page says; the hook that writes it runs after the state is set."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "artifacts": {"key": {"any_": ["ending"]}}}
        until = time.monotonic() + 120
        while True:
            found = "\n".join(a["data"] for a in self.prefect("POST", "/artifacts/filter", body)[1])
            if found and says in found:
                return found
            assert time.monotonic() < until, self.log()
            time.sleep(0.5)

    def tasks(self, run_id, count):
        """(name, state name) of `count` task runs of a flow run, in their order; the server hears of them late."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        until = time.monotonic() + 120
        while True:
            found = self.prefect("POST", "/task_runs/filter", body)[1]
            if len(found) >= count and all(t["state"]["type"] in ENDED for t in found):
                return [(t["name"].rpartition("-")[0], t["state"]["name"]) for t in found]
            assert time.monotonic() < until, [(t["name"], t["state"]["name"]) for t in found]
            time.sleep(0.5)

    def mlflow_runs(self, filter=""):
        """The MLflow runs, as its server tells them: dicts of name, status, tags, params, metrics, inputs."""
        base = self.env["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow"
        experiments = self.ask("GET", "/experiments/search?max_results=100", base=base)[1]["experiments"]
        ids = [e["experiment_id"] for e in experiments]
        body = {"experiment_ids": ids, "filter": filter, "max_results": 1000}
        return [_run(r) for r in self.ask("POST", "/runs/search", body, base=base)[1].get("runs", [])]


def _run(r):
    pairs = {name: {x["key"]: x["value"] for x in r["data"].get(name, [])} for name in ("tags", "params", "metrics")}
    digests = {x["dataset"]["name"]: x["dataset"]["digest"] for x in r.get("inputs", {}).get("dataset_inputs", [])}
    info = r["info"]
    return {"id": info["run_id"], "name": info["run_name"], "status": info["status"], **pairs, "digests": digests}


def free_port():
    """A port of loopback that nobody listens on just now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Started once, with all deployments; everything is killed in the end."""
    found = Servers(tmp_path_factory.mktemp("e2e") / "workspace", free_port(), free_port())
    try:
        found.up()
        found.deploy()
        yield found
    finally:
        found.iv("down")
