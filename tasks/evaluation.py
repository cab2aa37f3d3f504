"""Tasks that judge: score, report, publish."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from ivcore import steps
from ivcore.config import EvalConfig, TrainConfig
from ivcore.store.artifacts import Draft
from ivcore.store.log import Log
from tasks import registry, run_page, tracking
from tasks.step import Reference, Where, execute, step_task


@step_task("score")
def score(
    where: Where,
    evaluation: EvalConfig,
    train: TrainConfig,
    manifest: Reference,
    features: Reference,
    checkpoint: Reference,
) -> State[Any]:
    """Checkpoint and features -> scores; R@1 is noted on the checkpoint's version in the registry."""
    manifest_, features_, checkpoint_ = (where.open(x) for x in (manifest, features, checkpoint))
    step = steps.score(where.store, evaluation, train, manifest_, features_, checkpoint_)
    recall: dict[str, float] = {}

    def make(draft: Draft, log: Log) -> None:
        def both(figures: Mapping[str, float], at: int) -> None:
            recall.update({f"{evaluation.split}/{n}": v for n, v in figures.items() if n.startswith("r1/")})
            log(figures, at)

        step.make(draft, both)

    state = execute(where, replace(step, make=make), train=train)
    registry.note(where.store, checkpoint_, where.parent, recall)
    return state


@step_task("report")
def report(where: Where, evaluation: EvalConfig, scores: Mapping[str, Reference]) -> State[Any]:
    """Scores of every variant -> the verdict."""
    return execute(where, steps.report(where.store, evaluation, {n: where.open(r) for n, r in scores.items()}))


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(where: Where, report: Reference, stages: list[dict[str, Any]], training: list[dict[str, Any]]) -> str:
    """Put the report, with what each stage took and learned from, into reports/latest; returns that folder."""
    from ivcore.verdict.publish import publish

    publish(where.store, where.open(report), stages, training)
    folder = Path(where.home) / "reports" / "latest"
    if not report["stage"]["cached"]:
        tracking.keep_report(where.parent, folder)
    run_page.verdict(Path(where.home), folder, where.parent if not report["stage"]["cached"] else None)
    return str(folder)


@task(name="cells", cache_policy=NO_CACHE, persist_result=False)
def cells(where: Where, stage: dict[str, Any]) -> int:
    """Every cell of a report as a tracked run of its own, under the pipeline's; returns how many.

    Only of a report made just now: a found one has its runs already.
    """
    from ivcore.verdict.report import cells_of

    if stage["cached"] or where.parent is None:
        return 0
    return tracking.note_cells(Path(where.home), where.parent, cells_of(where.store, stage["key"]))


@task(name="catalog", cache_policy=NO_CACHE, persist_result=False)
def catalog(where: Where) -> str:
    """Rebuild the workspace's catalog; returns its path."""
    from ivcore.store.catalog import build

    return str(build(Path(where.home)))
