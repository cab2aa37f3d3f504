"""A phase to be trained: everything `steps` knows of it, in one value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcore.config import FeaturesConfig, ModelConfig, Phase, StageConfig, TrainConfig
from ivcore.store.artifacts import Artifact, Store


@dataclass(frozen=True)
class Job:
    """One phase of s2 or clip.

    kind: s2 or clip.
    inputs: frames, or the features of the frozen trunk.
    init: checkpoint to go on from; None starts s2 anew.
    features: its views are those of a frozen trunk that runs again; stored features hold their own.
    place: folder for what is kept while the phase is unfinished; the same for the same recipe.
    """

    store: Store
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
    def text_len(self) -> int:
        """Tokens of a caption that this kind of model reads."""
        return self.model.s2_text_len if self.kind == "s2" else self.model.clip_text_len

    def state(self) -> dict[str, Any]:
        """As plain JSON values, for another process; `Job.of` reads them."""
        branches = {name: getattr(self, name).model_dump(mode="json") for name in BRANCHES}
        artifacts = {name: found.id if (found := getattr(self, name)) else None for name in ARTIFACTS}
        return {"home": str(self.store.home), "kind": self.kind, "place": str(self.place), **branches, **artifacts}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Job":
        """The job that `state` describes."""
        store = Store(Path(state["home"]))
        branches: dict[str, Any] = {name: kind.model_validate(state[name]) for name, kind in BRANCHES.items()}
        artifacts: dict[str, Any] = {name: store.get(state[name]) if state[name] else None for name in ARTIFACTS}
        return cls(store=store, kind=state["kind"], place=Path(state["place"]), **branches, **artifacts)


BRANCHES = {
    "model": ModelConfig,
    "train": TrainConfig,
    "stage": StageConfig,
    "phase": Phase,
    "features": FeaturesConfig,
}
ARTIFACTS = ("manifest", "inputs", "init")
