"""A phase to be trained: everything `steps` knows of it, in one value."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ivcore.config import FeaturesConfig, ModelConfig, Phase, StageConfig, TrainConfig
from ivcore.store.artifacts import Artifact, Store


class Job(BaseModel):
    """One phase of s2 or clip; as JSON it goes to the processes of other ranks.

    home: the workspace.
    kind: s2 or clip.
    inputs: frames, or the features of the frozen trunk.
    init: checkpoint to go on from; None starts s2 anew.
    features: its views are those of a frozen trunk that runs again; stored features hold their own.
    place: folder for what is kept while the phase is unfinished; the same for the same recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    kind: str
    model: ModelConfig
    train: TrainConfig
    stage: StageConfig
    phase: Phase
    manifest: Artifact
    inputs: Artifact
    init: Artifact | None
    features: FeaturesConfig
    place: Path

    @property
    def store(self) -> Store:
        """The store of the workspace."""
        return Store(self.home)

    @property
    def text_len(self) -> int:
        """Tokens of a caption that this kind of model reads."""
        return self.model.s2_text_len if self.kind == "s2" else self.model.clip_text_len
