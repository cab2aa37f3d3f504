"""Frames -> s2, phase by phase -> features of its trunk -> clip, phase by phase."""

from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.prepare import make_frames, make_manifest
from ivcore.config import RunConfig
from ivcore.errors import UserError
from ivcore.retrieval import slices
from tasks.data import featurize
from tasks.failure_reason import HOOKS
from tasks.pipeline import Reference, Variant, pipeline
from tasks.retraining import held_back, named, note_trained
from tasks.training import fit_clip, fit_s2, import_checkpoint, keep


@dataclass(frozen=True)
class Trained:
    """What training leaves for scoring."""

    manifest: Reference
    models: list[tuple[Reference, Reference]]  # checkpoint, and the features of its trunk


def make_s2(variant: Variant, manifest: Reference, frames: Reference) -> Reference | None:
    """The last s2 checkpoint; None in a run of clip alone."""
    config, checkpoint = variant.config, None
    if config.model.s2_init:
        checkpoint = variant.do(import_checkpoint, "s2", config.model, config.frames)
    for phase in config.train.s2.phases:
        inputs = frames
        if phase.reads_features:  # the trunk is frozen: its features do, and they are quicker
            if checkpoint is None:
                raise UserError(f"train.s2.phases.{phase.name} comes first and must train all, not {phase.trainable}")
            inputs = make_features(variant, frames, checkpoint)
        arguments = (config.model, config.train, phase, manifest, inputs, checkpoint, config.features)
        checkpoint = variant.do(fit_s2, *arguments)
    if checkpoint is None and not config.model.clip_init:
        raise UserError(
            "train.s2.phases is empty; give it one phase at least, or imported weights: model.s2_init, model.clip_init"
        )
    return checkpoint


def make_features(variant: Variant, frames: Reference, checkpoint: Reference) -> Reference:
    """Features of the checkpoint's trunk."""
    config = variant.config
    return variant.do(featurize, config.features, config.train, frames, checkpoint, config.eval.split)


def make_start(variant: Variant, frames: Reference, s2: Reference | None) -> tuple[Reference, Reference]:
    """What clip begins from, imported clip weights or s2, and the features of its trunk."""
    config = variant.config
    start = variant.do(import_checkpoint, "clip", config.model, config.frames) if config.model.clip_init else s2
    assert start is not None  # make_s2 saw to it
    return start, make_features(variant, frames, start)


def make_clip(
    variant: Variant, manifest: Reference, frames: Reference, start: Reference, features: Reference
) -> tuple[Reference, Reference]:
    """The last clip checkpoint and the features of its trunk; the start's own where no clip phase is asked for."""
    config, checkpoint = variant.config, start
    for phase in config.train.clip.phases:
        inputs = features if phase.reads_features else frames
        arguments = (config.model, config.train, phase, manifest, inputs, checkpoint, config.features)
        checkpoint = variant.do(fit_clip, *arguments)
        if not phase.reads_features:  # the trunk moved
            features = make_features(variant, frames, checkpoint)
    return checkpoint, features


def make_models(variant: Variant, scores_follow: bool = True) -> Trained:
    """Everything from the data set to both models; what is there already is found, or kept by `train.policy`."""
    manifest = make_manifest(variant)
    frames = make_frames(variant, manifest)
    if scores_follow:  # a split without clips is said now, not when all is trained
        where, asked = variant.where, variant.config.eval
        variant.mended(lambda: slices.check_split(where.open(manifest), where.open(frames), asked))
    kept = held_back(variant, manifest)
    if kept:
        stood_on = dict.fromkeys(trunk for _, trunk in kept)  # each once
        trunks = {id: make_features(variant, frames, named(variant, id)) for id in stood_on}
        return Trained(manifest, [(variant.do(keep, id), trunks[trunk]) for id, trunk in kept])
    s2 = make_s2(variant, manifest, frames)
    start, features = make_start(variant, frames, s2)
    clip = make_clip(variant, manifest, frames, start, features)
    if s2 is None:
        models = [clip]
    else:
        # clip's own start has features of its own; else both stand on one trunk
        own = make_features(variant, frames, s2) if variant.config.model.clip_init else features
        models = [(s2, own)] + ([clip] if clip[0]["kind"] == "clip" else [])
    note_trained(variant, manifest, models)
    return Trained(manifest, models)


@flow(name="train", persist_result=False, **HOOKS)
def train(config: RunConfig, home: str | None = None) -> list[dict[str, Any]]:
    """Train s2, then clip on its frozen trunk; earlier steps are found or made.

    Args:
        config: The run, e.g. {"run": "demo"}; what is not set comes from that named run.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    with pipeline(config, home) as run:
        for variant in run.variants():
            make_models(variant, scores_follow=False)
        return run.stages
