"""Finds the runs that died together with their worker: nobody was left to say so, and Prefect shows them Running.

A run says at its start which process on which machine it is. Every later start (of a run, of a worker) looks at what
is still open and marks what has no process any more. No heartbeats: the documented automation for that locks SQLite.
"""

import logging
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks import processes, runtime

TAG = "iv"  # our deployments carry it
HOST, PID, ATTEMPT = "iv.host", "iv.pid", "iv.attempt"
EARLY_S = 180.0  # a run that is open for longer and has not said where it is died before it could
SLACK_S = 5.0  # between a process's start and the clock of the server
TRIES = 3  # of a run whose worker was lost; a run that kills its machine is not tried for ever
BACK_OFF_S = 20.0  # times the tries so far
log = logging.getLogger("iv")


def enrol(flow_run_id: Any, attempt: int) -> None:
    """Say which process runs this attempt of a flow run; not being able to is only a warning."""
    from prefect.client.orchestration import get_client

    here: dict[str, bool | int | float | str] = {HOST: socket.gethostname(), PID: os.getpid(), ATTEMPT: attempt}
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(flow_run_id, here)
    except Exception as e:
        log.warning("Prefect took no note of this process: %s", (str(e).splitlines() or [""])[0][:300])


def reap() -> list[str]:
    """Mark the dead runs Crashed (or Cancelled, if that was asked), write down why, and try again what a worker ran.

    Returns:
        Names of the runs found dead.
    """
    from prefect import State
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry, Cancelled, Crashed

    from tasks import failure_reason

    open_ = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    found = []
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=open_)))
        for run in runs:
            why = cause(run)
            if why is None:
                continue
            cancelled = run.state is not None and run.state.type == StateType.CANCELLING
            state: State = Cancelled(message=f"Cancelled; {why}.") if cancelled else Crashed(message=f"{why}.")
            client.set_flow_run_state(run.id, state)
            failure_reason.explain(None, run, state)
            found.append(run.name)
            log.warning("run %s is marked %s: %s", run.name, state.name, why)
            if run.deployment_id and not cancelled and run.run_count < TRIES:
                wait = timedelta(seconds=BACK_OFF_S * max(run.run_count, 1))
                client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=datetime.now(UTC) + wait), force=True)
    return found


def cause(run: Any) -> str | None:
    """What killed an open run, as far as can be told from here; None while it lives or is another machine's."""
    at = run.state.timestamp
    enrolled = run.state.type.value != "PENDING" and run.labels.get(ATTEMPT) == run.run_count
    if not enrolled:
        if (
            TAG not in run.tags
            or time.time() - at.timestamp() < EARLY_S
            or processes.with_setting("PREFECT__FLOW_RUN_ID", str(run.id))
        ):
            return None
        return f"its process or its worker died before it began; open since {at:%H:%M:%S} UTC"
    host, pid = run.labels[HOST], run.labels[PID]
    if host != socket.gethostname() or _began_at(int(pid)) <= at.timestamp() + SLACK_S:
        return None
    with_it = ", and the worker with it" if run.deployment_id else " or stopped"
    return f"its process {pid} on {host} was killed{with_it}"


def _began_at(pid: int) -> float:
    """When a process began, seconds of the epoch; infinity when it is gone."""
    ticks = runtime.began(pid)
    if ticks is None:
        return float("inf")
    boot = next(int(x.split()[1]) for x in Path("/proc/stat").read_text().splitlines() if x.startswith("btime"))
    return boot + ticks / os.sysconf("SC_CLK_TCK")
