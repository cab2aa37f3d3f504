"""Frames -> s2, phase by phase -> features of its trunk -> clip, phase by phase."""

from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.prepare import make_frames, make_manifest
from ivcore.config import RunConfig
from ivcore.errors import UserError
from tasks.data import featurize
from tasks.pipeline import Reference, Variant, pipeline
from tasks.training import fit_clip, fit_s2


@dataclass(frozen=True)
class Trained:
    """What training leaves for scoring."""

    manifest: Reference
    features: Reference
    s2: Reference
    clip: Reference


def make_s2(variant: Variant, manifest: Reference, frames: Reference) -> Reference:
    """The last s2 checkpoint."""
    config, checkpoint = variant.config, None
    for phase in config.train.s2.phases:
        inputs = frames
        if phase.reads_features:  # the trunk is frozen: its features do, and they are quicker
            if checkpoint is None:
                raise UserError(f"train.s2.phases.{phase.name} comes first and must train all, not {phase.trainable}")
            inputs = make_features(variant, frames, checkpoint)
        checkpoint = variant.do(fit_s2, config.model, config.train, phase, manifest, inputs, checkpoint)
    if checkpoint is None:
        raise UserError("train.s2.phases is empty; clip begins from s2, so give it one phase at least")
    return checkpoint


def make_features(variant: Variant, frames: Reference, checkpoint: Reference) -> Reference:
    """Features of the checkpoint's trunk."""
    return variant.do(featurize, variant.config.features, variant.config.train, frames, checkpoint)


def make_clip(
    variant: Variant, manifest: Reference, frames: Reference, features: Reference, s2: Reference
) -> Reference:
    """The last clip checkpoint, begun from s2; s2's own where no clip phase is asked for."""
    config, checkpoint = variant.config, s2
    for phase in config.train.clip.phases:
        inputs = features if phase.reads_features else frames
        checkpoint = variant.do(fit_clip, config.model, config.train, phase, manifest, inputs, checkpoint)
    return checkpoint


def make_models(variant: Variant) -> Trained:
    """Everything from the data set to both models; what is there already is found."""
    manifest = make_manifest(variant)
    frames = make_frames(variant, manifest)
    s2 = make_s2(variant, manifest, frames)
    features = make_features(variant, frames, s2)
    return Trained(manifest, features, s2, make_clip(variant, manifest, frames, features, s2))


@flow(name="train", persist_result=False)
def train(config: RunConfig, home: str | None = None) -> list[dict[str, Any]]:
    """Train s2, then clip on its frozen trunk; earlier steps are found or made.

    Args:
        config: The run, e.g. {"run": "demo"}; what is not set comes from that named run.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    with pipeline(config, home) as run:
        for variant in run.variants():
            make_models(variant)
        return run.stages
