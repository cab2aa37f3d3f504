"""Data set -> frames -> s2 -> features -> clip -> scores -> report, for every arm and seed."""

from typing import Any

from prefect import flow

from flows.evaluate import judge
from ivcore.config import RunConfig
from tasks.failure_reason import HOOKS
from tasks.pipeline import pipeline


@flow(name="everything", persist_result=False, **HOOKS)
def everything(config: RunConfig, home: str | None = None) -> list[dict[str, Any]]:
    """Run the whole pipeline; steps whose artifacts are there are found, not made again.

    Args:
        config: The run, e.g. {"run": "demo"}; what is not set comes from that named run.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    with pipeline(config, home) as run:
        judge(run)
        return run.stages
