"""The servers of a workspace: Prefect's, a worker of the pool `iv`, MLflow's. `iv up` starts what is not there yet.

Each is a process in a session of its own that carries the workspace in its environment, and so does everything it
starts: `down` finds by that whatever is left, also what lost its parent. Data, logs and the list of what runs
(run/up.json) are in the workspace. Everything listens on loopback; what a web page could do from there is refused.
"""

import contextlib
import json
import os
import shlex
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivcore.errors import UserError, WorkError
from ivcore.store.durable import put
from tasks import database, processes, runtime

POOL = "iv"
MARK = "IV_UP"  # in the environment of everything we start: the workspace
READY_S = 180.0  # a loaded machine takes its time
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """What `up` was asked for."""

    home: Path
    prefect_port: int = 4200
    mlflow_port: int = 5000
    limit: int = 2
    database: str | None = field(default=None, repr=False)  # with a password; see tasks/database.py

    @property
    def prefect_url(self) -> str:
        """Where the dashboard is."""
        return f"http://{LOOPBACK}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """Where the experiments are."""
        return f"http://{LOOPBACK}:{self.mlflow_port}"


def up(plan: Plan) -> dict[str, Any]:
    """Start what does not run yet, wait until it answers; what runs then, by name.

    Raises:
        UserError: a port is taken.
        WorkError: a server did not come up; with the last words of its log.
    """
    from tasks import gpu_limit, reaper

    running = runtime.running(plan.home)
    _same_ports(plan, running)
    for name, port in (("prefect", plan.prefect_port), ("mlflow", plan.mlflow_port)):
        if name not in running:
            _need_port(name, port)
    for name in ("logs", "run"):
        (plan.home / name).mkdir(exist_ok=True)
    database.need_the_same(plan.home, plan.database)
    env = environment(plan)
    _write_exports(plan)
    secret = _with_database(plan, running)
    for name, url, health in (
        ("prefect", plan.prefect_url, "/api/health"),
        ("mlflow", plan.mlflow_url, "/health"),
    ):  # one after the other: both at once starve each other on a small machine
        if name not in running:
            running[name] = {**processes.start(plan.home, name, _command(name, plan), env | secret), "url": url}
            _note(plan.home, running)
            _wait(plan.home, name, running[name], url + health)
    database.note(plan.home, plan.database)
    if "worker" not in running:
        with _environ(env):
            gpu_limit.make_limit()
            _make_pool()
            reaper.reap()  # what died with the worker before; no other start may do it while a worker is about
        running["worker"] = processes.start(plan.home, "worker", _command("worker", plan), env)
        _note(plan.home, running)
    return running


def _make_pool() -> None:
    """The worker would make it, too, but later than the first one who deploys looks for it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=ProcessWorker.get_default_base_job_template())
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(pool)


def shown_database(plan: Plan) -> str:
    """Where both servers keep their data, without the password."""
    return database.shown(database.parsed(plan.database)) if plan.database else f"SQLite in {plan.home}"


def down(home: Path) -> list[str]:
    """Stop the worker, then the servers, then whatever is left of what they started; the names of what was stopped."""
    running = runtime.running(home)
    stopped: list[str] = []
    for name in ("worker", "mlflow", "prefect"):
        if name in running:
            processes.stop(running[name]["pid"])
            stopped.append(name)
    until = time.monotonic() + processes.STOP_S
    while (left := marked(home)) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(processes.TICK_S)
    runtime.listed(home).unlink(missing_ok=True)
    return stopped


def environment(plan: Plan) -> dict[str, str]:
    """What servers and worker, and so every run, find in their environment. What the user has set stays."""
    origins = ",".join(f"http://{name}:{plan.prefect_port}" for name in (LOOPBACK, "localhost"))
    login = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    source = str(Path(__file__).parents[1])
    ours = {
        "PREFECT_API_URL": f"{plan.prefect_url}/api",
        runtime.TRACKING: plan.mlflow_url,
        "IV_HOME": str(plan.home),
        MARK: str(plan.home),
        "PREFECT_HOME": str(plan.home / "prefect"),
        "PYTHONPATH": os.pathsep.join(x for x in (source, os.environ.get("PYTHONPATH", "")) if x),
        **({"PREFECT_API_AUTH_STRING": login} if login else {}),
    }
    wishes = {
        # Prefect answers every web page otherwise: any site open in a browser here could start flows.
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origins,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_LOGGING_LEVEL": "INFO",  # of the runs: the dashboard shows their progress
        "PREFECT_LOGGING_EXTRA_LOGGERS": "iv",
    }
    # `prepare` has set the quiet level for this process; the runs are to speak.
    given = {k: v for k, v in os.environ.items() if runtime.QUIET.get(k) != v and k != database.SETTING}
    return {**runtime.QUIET, **wishes, **given, **ours}


def exports(plan: Plan) -> str:
    """Lines for a shell that is to talk to these servers; `prefect` and `mlflow` are then those of this Python."""
    names = ("PREFECT_API_URL", runtime.TRACKING, "IV_HOME", "PREFECT_API_AUTH_STRING")
    env = environment(plan)
    lines = [f"export {name}={shlex.quote(env[name])}" for name in names if name in env]
    return "\n".join([*lines, f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"])


def _write_exports(plan: Plan) -> None:
    """run/env.sh, for this user alone: it may hold a login."""
    path = plan.home / "run" / "env.sh"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        f.write(exports(plan) + "\n")


def _with_database(plan: Plan, running: Mapping[str, Any]) -> dict[str, str]:
    """What tells the servers that start now where their data are: nothing of SQLite, which _command names."""
    if plan.database is None or {"prefect", "mlflow"} <= running.keys():
        return {}
    database.make_schemas(plan.database)
    return database.environment(plan.database)


def marked(home: Path) -> list[int]:
    """Every process but this one that was started by the servers of this workspace."""
    return [pid for pid in processes.with_setting(MARK, str(home)) if pid != os.getpid()]


def _command(name: str, plan: Plan) -> list[str]:
    """The command line of a server, run by this Python."""
    data = plan.home / "mlflow"
    mlflow = ["server", "--host", LOOPBACK, "--port", str(plan.mlflow_port), "--workers", "1"]
    mlflow += ["--artifacts-destination", str(data / "artifacts")]
    if plan.database is None:  # else it is in the environment: a command line can be read by everybody
        mlflow += ["--backend-store-uri", runtime.sqlite(data / "mlflow.db")]
    commands = {
        "prefect": ["prefect", "server", "start", "--host", LOOPBACK, "--port", str(plan.prefect_port)],
        "mlflow": ["mlflow", *mlflow],
        "worker": ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", str(plan.limit)],
    }
    return [sys.executable, "-m", *commands[name]]


def _wait(home: Path, name: str, entry: Mapping[str, Any], url: str) -> None:
    """Until the server answers; WorkError with its last words when it ends first or takes too long."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if answers(url):
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(entry["pid"], os.WNOHANG)
        if runtime.began(entry["pid"]) is None:
            break
        time.sleep(processes.TICK_S)
    log = home / "logs" / f"{name}.log"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raise WorkError(f"{name} did not come up; {log} ends with: {' | '.join(lines[-3:])[:600]}")


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Something says 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _need_port(name: str, port: int) -> None:
    """UserError naming the port and the cure when something else listens there."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((LOOPBACK, port))
        except OSError:
            raise UserError(
                f"port {port} of {name} is taken; stop what listens there (ss -ltnp), "
                f"or give another: iv up --{name}-port {port + 1}"
            ) from None


def _same_ports(plan: Plan, running: Mapping[str, Any]) -> None:
    for name, url in (("prefect", plan.prefect_url), ("mlflow", plan.mlflow_url)):
        if running.get(name, {}).get("url", url) != url:
            raise UserError(f"{name} of {plan.home} runs at {running[name]['url']}; `iv down` first to move it")


def _note(home: Path, running: Mapping[str, Any]) -> None:
    put(runtime.listed(home), json.dumps(running, indent=1))


@contextlib.contextmanager
def _environ(env: Mapping[str, str]) -> Iterator[None]:
    """These variables for a while, for a client in this process."""
    before = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
