"""Tasks that make data: ingest, decode, featurize."""

from typing import Any

from prefect.states import State

from ivcore import steps
from ivcore.config import DataConfig, FeaturesConfig, FramesConfig, TrainConfig
from tasks.step import Reference, Where, execute, step_task


@step_task("ingest")
def ingest(where: Where, data: DataConfig) -> State[Any]:
    """Data set -> manifest and captions."""
    return execute(where, steps.ingest(where.store, data))


@step_task("decode")
def decode(where: Where, data: DataConfig, frames: FramesConfig, manifest: Reference) -> State[Any]:
    """Manifest -> frames."""
    return execute(where, steps.decode(where.store, data, frames, where.open(manifest)))


@step_task("featurize")
def featurize(
    where: Where, features: FeaturesConfig, train: TrainConfig, frames: Reference, encoder: Reference
) -> State[Any]:
    """Frames -> features of the trunk of a checkpoint, whose phase is the label."""
    step = steps.featurize(where.store, features, train, where.open(frames), where.open(encoder))
    return execute(where, step, label=encoder["stage"]["label"])
