"""One step of a run, and the steps before it where they are not there yet: the commands `iv ingest` to `iv score`."""

from typing import Any, Literal

from prefect import flow

from flows.evaluate import make_scores
from flows.prepare import make_frames, make_manifest
from flows.train import make_clip, make_models, make_s2, make_start
from ivcore.config import RunConfig
from tasks.failure_reason import HOOKS
from tasks.pipeline import Variant, pipeline

StepName = Literal["ingest", "decode", "fit_s2", "featurize", "fit_clip", "score"]


def up_to(variant: Variant, last: str) -> None:
    """The chain of one variant until the step `last` is done."""
    if last == "score":
        make_scores(variant, make_models(variant))
        return
    manifest = make_manifest(variant)
    if last == "ingest":
        return
    frames = make_frames(variant, manifest, features_follow=last != "decode")
    if last == "decode":
        return
    s2 = make_s2(variant, manifest, frames)
    if last == "fit_s2":
        return
    start, features = make_start(variant, frames, s2)
    if last == "featurize":
        return
    make_clip(variant, manifest, frames, start, features)


@flow(name="single", persist_result=False, **HOOKS)
def single(config: RunConfig, step: StepName, home: str | None = None) -> list[dict[str, Any]]:
    """Run the pipeline up to a step; earlier steps are found or made.

    Args:
        config: The run, e.g. {"run": "demo"}; what is not set comes from that named run.
        step: The last step to run.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    with pipeline(config, home) as run:
        for variant in run.variants():
            up_to(variant, step)
        return run.stages
