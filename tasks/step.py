"""How any step is run: found in the store, or made under a tracked run; either way a small reference comes back.

The store is the only cache. A found step ends as a state named Cached, which log and dashboard show as such. Between
tasks goes a dict of a few hundred bytes, never data.
"""

import contextlib
import errno
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import State, task
from prefect import runtime as prefect_runtime
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from ivcore import steps
from ivcore.config import TrainConfig
from ivcore.steps import Step
from ivcore.store.artifacts import Artifact, Store
from ivcore.store.object_store import Unreachable
from ivcore.store.soundness import Damaged
from tasks import gpu_limit, interrupt, tracking

Reference = dict[str, Any]  # kind, key, rows of an artifact, and its row of the report's stages
TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}  # a network disk that hiccups
log = logging.getLogger("iv")


@dataclass(frozen=True)
class Where:
    """Where a task works and for whom: workspace, MLflow run of the pipeline, arm and seed."""

    home: str
    parent: str | None = None
    arm: str = "main"
    seed: int = 0

    @property
    def store(self) -> Store:
        """The workspace's store, for reading."""
        return Store(Path(self.home))

    def has(self, reference: Mapping[str, Any]) -> bool:
        """Whether the artifact of a reference is there still, with all it is read with."""
        try:
            return self.store.complete(reference["kind"], reference["key"]) is not None
        except Damaged:
            return False

    def open(self, reference: Mapping[str, Any]) -> Artifact:
        """The artifact of a reference."""
        return self.store.get(f"{reference['kind']}/{reference['key']}")


def _worth_retrying(task: Any, run: Any, state: State) -> bool:
    """Only a hiccup of the disk or the object store; a wrong config, bad data or a full disk stay as they are."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, Unreachable) or (isinstance(error, OSError) and error.errno in TRANSIENT)


def step_task(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A Prefect task for a step: no cache of Prefect's own, two more tries after a hiccup of the disk."""
    return task(
        name=name,
        cache_policy=NO_CACHE,
        retries=2,
        retry_delay_seconds=5,
        retry_condition_fn=_worth_retrying,
        persist_result=False,
    )


def execute(where: Where, step: Step, label: str = "", train: TrainConfig | None = None) -> State:
    """Find or make the step's artifact; a Completed state whose data is the reference.

    `label` names a step that has none of its own, where a variant has two of one kind. `train` is given by steps that
    may work on a GPU: they wait for their turn there.
    """
    interrupt.renew()
    step = replace(step, label=step.label or label)
    found = where.store.complete(step.kind, step.key)
    if found is not None:
        where.store.share(found)
        tracking.note_reused(where.parent, step, found, f"{where.arm}.{where.seed}")
        log.info("%s  found  %s", _title(where, step), found.id)
        return Completed(name="Cached", message=f"artifact {found.id} reused", data=reference(where, step, found, True))
    home = Path(where.home)
    with contextlib.ExitStack() as turns:
        if train is not None:
            turns.enter_context(gpu_limit.slot(train, home))
        artifact = _make(where, step)
    made = reference(where, step, artifact, False)
    log.info("%s  done   %s rows, %.1f s", _title(where, step), artifact.rows, made["stage"]["wall_s"])
    _show(home, made)
    return Completed(message=f"artifact {artifact.id} made", data=made)


def _make(where: Where, step: Step) -> Artifact:
    """Run the step under a run of its own in MLflow."""
    log.info("%s  starts", _title(where, step))
    home = Path(where.home)
    with tracking.stage_run(home, step, where.parent, where.arm, where.seed, prefect_context()) as run:
        context = {"mlflow_run_id": run.run_id, "prefect_run_id": prefect_runtime.flow_run.id}
        artifact = steps.run(step, Store(home, context), run.log)
        run.log(tracking.figures_of(artifact), 0)
    return artifact


def reference(where: Where, step: Step, artifact: Artifact, cached: bool) -> Reference:
    """What tasks hand on. Times and run ids are those of the making, also when the step was found."""
    record = artifact.record()
    taken = ("wall_s", "cpu_s", "peak_rss_mb", "rows_in", "rows_ok", "rows_failed", "mlflow_run_id", "prefect_run_id")
    stage = {
        "step": step.name,
        "label": step.label,
        "arm": where.arm,
        "seed": where.seed,
        "key": artifact.key,
        "cached": cached,
        **{name: record.get(name) for name in taken},
    }
    return {"kind": artifact.kind, "key": artifact.key, "rows": artifact.rows, "stage": stage}


def prefect_context() -> dict[str, str]:
    """Who runs this, as MLflow tags; outside a flow run nothing."""
    run, task_run, deployment = prefect_runtime.flow_run, prefect_runtime.task_run, prefect_runtime.deployment
    values = {
        "prefect.flow_run.id": run.id,
        "prefect.flow_run.name": run.name if run.id else None,
        "prefect.flow_run.run_count": run.run_count if run.id else None,
        "prefect.root_flow_run.id": run.root_flow_run_id if run.id else None,
        "prefect.task_run.id": task_run.id,
        "prefect.deployment.name": deployment.name if deployment.id else None,
    }
    return {name: str(value) for name, value in values.items() if value}


def _title(where: Where, step: Step) -> str:
    return f"{step.name + (':' + step.label if step.label else ''):<24} {where.arm}.{where.seed}"


def _show(home: Path, made: Reference) -> None:
    """A note on the flow run's page that leads to the MLflow run; not being able to is only a warning."""
    stage = made["stage"]
    if not stage["prefect_run_id"]:
        return
    page = tracking.link(home, stage["mlflow_run_id"])
    lines = [f"### {stage['step']} {stage['label']}", f"`{made['kind']}/{made['key']}`", ""]
    lines += [f"{stage['rows_ok']} rows, {stage['rows_failed']} failed, {stage['wall_s']} s", ""]
    lines += [f"[MLflow run]({page})"] if page else []
    name = f"{stage['step']}-{stage['label']}-{stage['arm']}-{stage['seed']}".lower().replace("_", "-")
    try:
        create_markdown_artifact("\n".join(lines), key="-".join(x for x in name.split("-") if x))
    except Exception as e:
        log.warning("Prefect took no note of %s: %s", stage["step"], (str(e).splitlines() or [""])[0][:300])
