"""Tasks that train: fit_s2, fit_clip; import_checkpoint, of what was trained elsewhere; keep, of what was before."""

from typing import Any

from prefect import State

from ivcore import steps
from ivcore.config import (
    FeaturesConfig,
    FramesConfig,
    ModelConfig,
    Phase,
    StageConfig,
    TrainConfig,
)
from ivcore.errors import WorkError
from ivcore.steps import Step
from ivcore.store.artifacts import Artifact, Draft
from ivcore.store.log import Log
from ivcore.train import retraining
from tasks import registry
from tasks.step import Reference, Where, execute, prefect_context, step_task


@step_task("import_checkpoint")
def import_checkpoint(where: Where, kind: str, model: ModelConfig, frames: FramesConfig) -> State[Any]:
    """An imported folder -> the checkpoint that the stage `kind` begins from."""
    return execute(where, steps.import_checkpoint(kind, model, frames))


@step_task("keep")
def keep(where: Where, id: str) -> State[Any]:
    """A checkpoint that was trained before, as it is."""
    found = where.store.get(id)
    record = found.record()
    inputs = {name: _named(where, input) for name, input in record["inputs"].items()}
    step = Step(f"fit_{found.kind}", found.kind, record["config"], inputs, _trained, label=retraining.phase_name(found))
    return execute(where, step)


def _named(where: Where, id: str) -> Artifact:
    """An artifact by its name alone, which may be gone."""
    kind, _, key = id.partition("/")
    return Artifact(kind, key, where.store.path(kind, key), 0)


def _trained(draft: Draft, log: Log) -> None:
    raise WorkError("the checkpoint of an earlier run vanished while it was being kept; run again")


@step_task("fit_s2")
def fit_s2(
    where: Where,
    model: ModelConfig,
    train: TrainConfig,
    phase: Phase,
    manifest: Reference,
    inputs: Reference,
    init: Reference | None,
    features: FeaturesConfig,
) -> State[Any]:
    """One phase of s2, from the checkpoint before (or none) to the next."""
    before = where.open(init) if init else None
    source = _source(where, inputs)
    step = steps.fit_s2(where.store, model, train, phase, where.open(manifest), source, before, features)
    return _fit(where, step, train, train.s2)


@step_task("fit_clip")
def fit_clip(
    where: Where,
    model: ModelConfig,
    train: TrainConfig,
    phase: Phase,
    manifest: Reference,
    inputs: Reference,
    init: Reference,
    features: FeaturesConfig,
) -> State[Any]:
    """One phase of clip, from the s2 or clip checkpoint before to the next."""
    source = _source(where, inputs)
    before = where.open(init)
    step = steps.fit_clip(where.store, model, train, phase, where.open(manifest), source, before, features)
    return _fit(where, step, train, train.clip)


def _source(where: Where, inputs: Reference) -> Artifact:
    """What training reads; where features hold the scored split alone, the frames they were made of."""
    found = where.open(inputs)
    record = found.record()
    return where.store.get(record["inputs"]["frames"]) if record["config"].get("split") else found


def _fit(where: Where, step: Step, train: TrainConfig, stage: StageConfig) -> State[Any]:
    """Run the phase; the checkpoint that ends the stage goes into the registry."""
    state = execute(where, step, train=train)
    if step.label == stage.phases[-1].name:
        tags = {"iv.phase": step.label, "iv.arm": where.arm, "iv.seed": str(where.seed), **prefect_context()}
        registry.register(where.store, where.store.get(f"{step.kind}/{step.key}"), where.parent, tags)
    return state
