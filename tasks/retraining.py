"""What `train.policy` makes of a run: which models stay, what is noted for the next run, and what the report says."""

import logging
from collections.abc import Sequence

from ivcore.train import retraining
from tasks.pipeline import Reference, Variant

log = logging.getLogger("iv")


def held_back(variant: Variant, manifest: Reference) -> tuple[retraining.Model, ...]:
    """The models that stay as they were trained last; none where the run is to train (or to find what it trained)."""
    store, here = variant.where.store, variant.where.open(manifest)
    choice = variant.mended(lambda: retraining.choose(store, variant.config, here))
    if choice.why:
        log.info("%s.%s: %s", variant.arm, variant.seed, choice.why)
    variant.pipeline.training.append(
        {
            "arm": variant.arm,
            "seed": variant.seed,
            "policy": variant.config.train.policy,
            "trained_on": choice.trained_on.key,
            "trained_on_clips": choice.trained_on.record()["facts"].get("clips", {}).get("train"),
            "scored_on": here.key,
            "new_clips": choice.new_clips,
            "held_back": bool(choice.models),
            "why": choice.why,
        }
    )
    return choice.models


def named(variant: Variant, id: str) -> Reference:
    """The reference of a checkpoint that is there."""
    found = variant.where.store.get(id)
    return {"kind": found.kind, "key": found.key, "rows": found.rows, "stage": {"label": retraining.phase_name(found)}}


def note_trained(variant: Variant, manifest: Reference, models: Sequence[tuple[Reference, Reference]]) -> None:
    """Note for the next run what this one has trained, or found trained: checkpoints, each with its features."""
    where, noted = variant.where, []
    for checkpoint, features in models:
        here = where.open(checkpoint)
        noted.append((here.id, retraining.trunk_of(where.store, here, where.open(features)).id))
    retraining.remember(where.store, variant.config, where.open(manifest), noted)
