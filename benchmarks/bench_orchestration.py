"""What Prefect and MLflow cost beside the work: servers and worker of `iv up`, a warm `everything`, steps alone.

orchestration_run      trigger to Completed of a run that finds every step, against a run of a flow that does nothing,
                       deployed alike: what is over is ours, the rest is worker, process and Prefect's own import
orchestration_found    a step that is found, against looking it up in the store alone
orchestration_made     a step that is made (MLflow run, inputs, figures, notes), against writing its artifact alone
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.e2e.conftest import ROOT, SMALL, Servers, free_port

RUNS, STEPS = 5, 10
Row = dict[str, Any]


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        servers = Servers(Path(folder) / "ws", free_port(), free_port())
        try:
            servers.up()
            servers.deploy()
            return [_runs(servers), *_steps(servers)]
        finally:
            servers.iv("down")


def _runs(servers: Servers) -> Row:
    """Runs in turns: a warm `everything`, and a flow that does nothing."""
    empty = _deploy_nothing(servers)
    everything = servers.deployment("everything/everything")["id"]
    seconds: dict[str, list[float]] = {"ours": [], "baseline": []}
    inside: list[float] = []  # from Running to Completed
    for n in range(RUNS + 1):
        for side, deployment, parameters in (("ours", everything, {"config": SMALL}), ("baseline", empty, {})):
            began = time.perf_counter()
            body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
            _, made = servers.prefect("POST", f"/deployments/{deployment}/create_flow_run", body)
            ended = servers.wait(made["id"])
            took = time.perf_counter() - began
            assert ended["state"]["type"] == "COMPLETED", servers.log()
            if n == 0:  # the first makes what the others find
                continue
            seconds[side].append(took)
            inside += [ended["total_run_time"]] if side == "ours" else []
    states = servers.tasks(made["id"], 0)
    assert states == [], states
    ours, baseline = (statistics.median(seconds[side]) for side in ("ours", "baseline"))
    return {
        "name": "orchestration_run",
        "ours": ours,
        "baseline": baseline,
        "unit": "s",
        "spread": seconds | {"running_to_completed": inside, "ours_alone": round(ours - baseline, 2)},
        "equal": True,
        "how_equal": f"both end Completed; {ours - baseline:.1f} s more than a flow that does nothing, "
        f"{statistics.median(inside):.1f} s from Running to Completed; trigger to Completed is looked at every 0.3 s",
    }


def _deploy_nothing(servers: Servers) -> str:
    """Id of the deployment of an empty flow, by module as ours are."""
    _, flow = servers.prefect("POST", "/flows/", {"name": "nothing"})
    body = {"name": "nothing", "flow_id": flow["id"], "work_pool_name": "iv"}
    body["entrypoint"] = "benchmarks.empty_flow.nothing"
    status, made = servers.prefect("POST", "/deployments/", body)
    assert status in (200, 201), made
    return str(made["id"])


def _steps(servers: Servers) -> list[Row]:
    """Rows of single steps, from a process that talks to these servers as a run does."""
    command = [sys.executable, "-m", "benchmarks.bench_orchestration", str(servers.home)]
    done = subprocess.run(command, env=servers.env, cwd=ROOT, capture_output=True, text=True, check=True)
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _steps_here(home: Path) -> list[Row]:
    from prefect import flow

    from ivcore import steps
    from ivcore.config import RunConfig
    from ivcore.steps import Step
    from ivcore.store.artifacts import Draft, Store
    from tasks.pipeline import pipeline
    from tasks.step import execute, step_task

    def make(draft: Draft, log: Any) -> None:
        (draft.path / "data.bin").write_bytes(b"x")
        draft.count(1)

    def step(n: int) -> Step:
        return Step("ingest", "manifest", {"n": n}, {}, make)

    @step_task("nothing")
    def task(where: Any, n: int) -> Any:
        return execute(where, step(n))

    seconds: dict[str, list[float]] = {"found": [], "made": []}

    @flow(name="steps", persist_result=False)
    def several(first: int, kind: str | None) -> None:
        with pipeline(RunConfig(), str(home)) as here:
            (variant,) = here.variants()
            for n in range(first, first + STEPS):
                began = time.perf_counter()
                variant.do(task, n)
                if kind is not None:
                    seconds[kind].append(time.perf_counter() - began)

    several(100, None)  # imports and connections
    several(0, "made")
    several(0, "found")
    alone: dict[str, list[float]] = {"found": [], "made": []}
    for kind in ("made", "found"):
        for n in range(STEPS):
            began = time.perf_counter()
            steps.run(step(n), Store(home / "alone"))
            alone[kind].append(time.perf_counter() - began)
    return [
        {
            "name": f"orchestration_{kind}",
            "ours": statistics.median(seconds[kind]),
            "baseline": statistics.median(alone[kind]),
            "unit": "s",
            "spread": {side: [min(t[kind]), max(t[kind])] for side, t in (("ours", seconds), ("baseline", alone))},
            "equal": True,
            "how_equal": f"the same {STEPS} steps, artifacts of one byte",
        }
        for kind in ("found", "made")
    ]


if __name__ == "__main__":
    from tasks import runtime

    place = runtime.prepare(sys.argv[1])
    print(json.dumps(_steps_here(place)))
