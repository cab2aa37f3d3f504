"""Tasks that make data: ingest, decode, featurize."""

import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

from prefect import State
from prefect import runtime as prefect_runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from ivcore import steps
from ivcore.config import DataConfig, FeaturesConfig, FramesConfig, TrainConfig
from ivcore.features import plan
from ivcore.steps import Step
from ivcore.store.artifacts import Artifact, Draft
from ivcore.store.log import Log
from ivcore.video import disk_plan
from tasks import cluster, run_page
from tasks.step import Reference, Where, execute, step_task

EVERY_S = 2.0  # between two notes of the progress
log = logging.getLogger("iv")


@step_task("ingest")
def ingest(where: Where, data: DataConfig) -> State[Any]:
    """Data set -> manifest and captions."""
    return execute(where, steps.ingest(where.store, data))


@step_task("decode")
def decode(
    where: Where,
    data: DataConfig,
    frames: FramesConfig,
    manifest: Reference,
    size: str | None = None,
    features: FeaturesConfig | None = None,
) -> State[Any]:
    """Manifest -> frames. Where features of a trunk of this size must follow, there has to be room for them too."""
    found = where.open(manifest)
    later_gb = 0.0
    if size is not None and features is not None:
        later_gb = disk_plan.features_gb(
            found.rows, frames.num_frames, frames.size_px, size, features.dtype, features.views
        )
    must = features is not None and features.cache == "always"  # else the trunk can run again where there is no room
    step = steps.decode(where.store, data, frames, found, later_gb, must)
    step = cluster.with_cluster(step, where.store, data, frames, found, later_gb, must)
    name = f"decode {where.arm}.{where.seed}"
    state = execute(where, _with_progress(step, "clips", found.record()["rows_in"], name))
    frames_ = where.store.find(step.kind, step.key)
    if frames_ is not None and frames_.record()["rows_failed"]:
        run_page.failed(found, frames_)
    return state


@step_task("featurize")
def featurize(
    where: Where,
    features: FeaturesConfig,
    train: TrainConfig,
    frames: Reference,
    encoder: Reference,
    scored: str | None = None,
) -> State[Any]:
    """Frames -> features of the trunk of a checkpoint, whose phase is the label.

    Of every clip, or of the split `scored` alone where the plan is to run the trunk again at each training step.
    """
    source, checkpoint = where.open(frames), where.open(encoder)
    step = steps.featurize(where.store, features, train, source, checkpoint)
    if where.store.find(step.kind, step.key) is None:
        wanted_gb = disk_plan.features_of(source, checkpoint, features.dtype, features.views)
        keep, why = _kept(where, features, train, source, checkpoint, wanted_gb)
        if scored and not keep:
            step = steps.featurize(where.store, features, train, source, checkpoint, scored)
        elif wanted_gb is not None:
            disk_plan.check("features", source.rows, wanted_gb, where.store.home)
        step = _with_plan(step, why)
    return execute(where, step, label=encoder["stage"]["label"], train=train)


def _kept(
    where: Where, features: FeaturesConfig, train: TrainConfig, frames: Artifact, encoder: Artifact, gb: float | None
) -> tuple[bool, str]:
    """Whether the tokens of every clip are kept, and why; what is small is, unasked."""
    if features.cache != "auto":
        return features.cache == "always", f"features.cache = {features.cache}"
    if gb is None or gb < plan.SMALL_GB:
        return True, f"below {plan.SMALL_GB:g} GB: cache"
    size = encoder.record()["config"]["model"]["size"]
    each = gb * plan.GB / (frames.rows * features.views)
    costs = plan.measure(frames, size, each, train, where.store.home, features.views)
    keep, why = plan.keep(costs)
    log.info("tokens of the frozen trunk, %s (features.cache decides otherwise)", why)
    return keep, why


def _with_plan(step: Step, why: str) -> Step:
    """The step, whose record tells why tokens are kept or not."""

    def make(draft: Draft, tell: Log) -> None:
        step.make(draft, tell)
        draft.measured["cache"] = why

    return dataclasses.replace(step, make=make)


def _with_progress(step: Step, figure: str, total: int, name: str) -> Step:
    """The step with its progress on the flow run's page: the figure's share of `total`, now and then."""
    if not prefect_runtime.flow_run.id:
        return step

    def make(draft: Draft, tell: Log) -> None:
        note: Any = None
        told_at, works = 0.0, True

        def both(figures: Mapping[str, float], at: int) -> None:
            nonlocal note, told_at, works
            tell(figures, at)
            done = figures.get(figure, 0.0)
            if not works or (time.monotonic() - told_at < EVERY_S and done < total):
                return
            told_at = time.monotonic()
            try:
                percent = 100.0 * done / max(total, 1)
                if note is None:
                    note = create_progress_artifact(percent, description=name)
                else:
                    update_progress_artifact(note, percent)
            except Exception as e:  # the work goes on without
                works = False
                log.warning("Prefect took no progress of %s: %s", name, (str(e).splitlines() or [""])[0][:300])

        step.make(draft, both)

    return dataclasses.replace(step, make=make)
