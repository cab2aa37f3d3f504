"""Challenger against champion: the registry's alias moves when it is deserved."""

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect import runtime as prefect_runtime
from prefect.artifacts import create_markdown_artifact

from ivcore.config import EvalConfig
from tasks import runtime
from tasks.failure_reason import HOOKS


@flow(name="promote", persist_result=False, **HOOKS)
def promote(
    model: Literal["s2", "clip"] = "s2",
    challenger: str = "newest",
    evaluation: EvalConfig = EvalConfig(),  # noqa: B008
    home: str | None = None,
) -> dict[str, Any]:
    """Compare a challenger with the champion on the same queries; move the alias when it is better with confidence.

    Args:
        model: Which registered model: iv-s2 or iv-clip.
        challenger: A version's number, an alias, or newest.
        evaluation: The first language and caption length decide.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    place = runtime.prepare(home)
    from tasks import promotion

    found = promotion.promote(Path(place), model, challenger, evaluation)
    if prefect_runtime.flow_run.id:
        title = (
            f"### iv-{model}: version {found.challenger} {'is champion now' if found.promoted else 'stays challenger'}"
        )
        create_markdown_artifact(f"{title}\n\n{found.why}\n\nChampion before: {found.champion}.\n", key="promotion")
    return vars(found)
