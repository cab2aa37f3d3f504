"""A model scored as another one was: the same manifest, frames, split and k, so that the two can be compared.

A champion that was trained before the data grew has no scores on the data as they are now. They are made here, without
a run of the pipeline, and found by the next one that asks.
"""

from ivcore import steps
from ivcore.config import EvalConfig, FeaturesConfig, TrainConfig
from ivcore.store.artifacts import Artifact, Store
from ivcore.train import retraining


def like(store: Store, scores: Artifact, checkpoint: Artifact, before: Artifact) -> Artifact:
    """Scores of the checkpoint on what `scores` were made on; its trunk is the one of its scores from `before`."""
    record = scores.record()
    asked = EvalConfig.model_validate({n: v for n, v in record["config"].items() if n in EvalConfig.model_fields})
    trunk = retraining.trunk_of(store, checkpoint, store.get(before.record()["inputs"]["features"]))
    features = _features(store, store.get(record["inputs"]["features"]), trunk, asked.split)
    train, manifest = TrainConfig(threads=record["config"]["threads"]), store.get(record["inputs"]["manifest"])
    return steps.run(steps.score(store, asked, train, manifest, features, checkpoint), store)


def _features(store: Store, other: Artifact, trunk: Artifact, split: str) -> Artifact:
    """Features of the split by this trunk, of the frames and in the arithmetic of the other features."""
    record = other.record()
    config, frames = record["config"], store.get(record["inputs"]["frames"])
    train = TrainConfig(dtype=config["dtype_compute"], threads=config["threads"])
    return steps.run(steps.featurize(store, FeaturesConfig(dtype=config["dtype"]), train, frames, trunk, split), store)
