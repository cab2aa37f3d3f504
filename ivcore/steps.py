"""The seven steps: ingest decode featurize fit_s2 fit_clip score report. Start reading here.

Each function states a step: its branch of the config, the artifacts it reads, and the function of its room that does
the work. Nothing runs and nothing heavy is imported until `run` finds that the artifact of this recipe is not there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ivcore.config import (
    DataConfig,
    EvalConfig,
    FeaturesConfig,
    FramesConfig,
    ModelConfig,
    Phase,
    StageConfig,
    TrainConfig,
)
from ivcore.names import module
from ivcore.store.artifacts import Artifact, Draft, Store, key
from ivcore.store.log import Log, quiet
from ivcore.store.versions import VERSIONS
from ivcore.video import deadlines

ONE_VIEW = FeaturesConfig()


@dataclass(frozen=True)
class Step:
    """A step stated, not yet run. `label` tells two steps of one kind apart where people look."""

    name: str
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    make: Callable[[Draft, Log], None] = field(repr=False, compare=False)
    label: str = ""

    @property
    def key(self) -> str:
        """The key of the artifact this step makes."""
        return key(self.kind, VERSIONS[self.kind], self.config, {k: v.id for k, v in self.inputs.items()})


def run(step: Step, store: Store, log: Log = quiet) -> Artifact:
    """The step's artifact: found if it is finished, else made."""
    found = store.find(step.kind, step.key)
    if found is not None:
        return found
    inputs = {name: artifact.id for name, artifact in step.inputs.items()}
    with store.write(step.kind, step.key, VERSIONS[step.kind], step.config, inputs) as draft:
        step.make(draft, log)
    assert draft.artifact is not None
    return draft.artifact


def ingest(store: Store, data: DataConfig) -> Step:
    """Data set -> manifest and captions, with probed facts and the sha256 of every video."""
    dataset = module("ivcore.datasets.sets", data.dataset)

    def make(draft: Draft, log: Log) -> None:
        from ivcore.datasets.ingest import write_manifest

        write_manifest(draft, dataset, store, data, log)

    return Step("ingest", "manifest", dataset.recipe(store, data), {}, make)


def decode(
    store: Store,
    data: DataConfig,
    frames: FramesConfig,
    manifest: Artifact,
    later_gb: float = 0.0,
    later_must: bool = False,
) -> Step:
    """Manifest -> frame shards and their index; a clip that cannot be read is a row with an error.

    `later_gb`, the features to come, is said with the plan; where they must come, there has to be room for them too.
    """

    def make(draft: Draft, log: Log) -> None:
        from ivcore.video.decode import decode_manifest

        root = module("ivcore.datasets.sets", data.dataset).root(store, data)
        decode_manifest(draft, store, root, frames, manifest, data.max_failed_share, log, later_gb, later_must)

    config = deadlines.with_deadline(store, "frames", frames.recipe(), {"manifest": manifest.id}, frames.deadline_s)
    return Step("decode", "frames", config, {"manifest": manifest}, make)


def fit_s2(
    store: Store,
    model: ModelConfig,
    train: TrainConfig,
    phase: Phase,
    manifest: Artifact,
    inputs: Artifact,
    init: Artifact | None,
    features: FeaturesConfig = ONE_VIEW,
) -> Step:
    """One phase of s2: from frames (or from the features of a frozen trunk) and the checkpoint before, to the next."""
    return _fit("s2", store, model, train, train.s2, phase, manifest, inputs, init, features)


def import_checkpoint(kind: str, model: ModelConfig, frames: FramesConfig) -> Step:
    """model.s2_init or model.clip_init -> the checkpoint that the stage begins from."""
    from ivcore.checkpoints import imported

    config = imported.recipe(kind, model, frames)

    def make(draft: Draft, log: Log) -> None:
        imported.write_checkpoint(draft, kind, model, config)

    return Step(f"fit_{kind}", kind, config, {}, make, label="imported")


def featurize(
    store: Store,
    features: FeaturesConfig,
    train: TrainConfig,
    frames: Artifact,
    encoder: Artifact,
    split: str | None = None,
) -> Step:
    """Frames -> token and pooled features of a checkpoint's vision tower, of every clip or of one split alone.

    The recipe names the tower's digest instead of the checkpoint, so checkpoints that share a tower share features.
    Features of one split are for scoring, and of plain clips.
    """
    if split:
        features = features.model_copy(update={"views": 1, "flip": False})
    tower = encoder.record()["facts"]["vision_digest"]

    def make(draft: Draft, log: Log) -> None:
        from ivcore.features.featurize import write_features

        write_features(draft, store, features, train, frames, encoder, log, config, split)

    config = {**features.recipe(), "vision_digest": tower, "dtype_compute": train.dtype, "threads": train.threads}
    config |= {"split": split} if split else {}
    config |= {"seed": train.seed} if features.views > 1 else {}  # of the views
    return Step("featurize", "features", config, {"frames": frames}, make)


def fit_clip(
    store: Store,
    model: ModelConfig,
    train: TrainConfig,
    phase: Phase,
    manifest: Artifact,
    inputs: Artifact,
    init: Artifact,
    features: FeaturesConfig = ONE_VIEW,
) -> Step:
    """One phase of clip: from the features of the frozen trunk and the s2 (or clip) checkpoint before, to the next."""
    return _fit("clip", store, model, train, train.clip, phase, manifest, inputs, init, features)


def _fit(
    kind: str,
    store: Store,
    model: ModelConfig,
    train: TrainConfig,
    stage: StageConfig,
    phase: Phase,
    manifest: Artifact,
    inputs: Artifact,
    init: Artifact | None,
    features: FeaturesConfig,
) -> Step:
    """A phase's recipe is the stage's optimiser, the phase itself and what every stage shares: not the other phases.

    Stored features say what views they hold; a frozen trunk that runs again is told here, and makes the same ones.
    """

    def make(draft: Draft, log: Log) -> None:
        from ivcore.train.fit import fit
        from ivcore.train.job import Job

        place = store.home / "cache" / "training" / f"{kind}-{step.key}"
        parts = {"model": model, "train": train, "stage": stage, "phase": phase, "features": features}
        job = Job(home=store.home, kind=kind, manifest=manifest, inputs=inputs, init=init, place=place, **parts)
        fit(draft, job, log)

    optimiser = {k: v for k, v in stage.recipe().items() if k != "phases"}
    shared = {k: v for k, v in train.recipe().items() if k not in ("s2", "clip")}
    shared["device"] = {"cpu": "auto", "cuda": "cuda"}[train.device_type]  # cpu is named as it always was
    shared |= {"ranks": train.ranks} if train.ranks > 1 and kind == "s2" else {}
    config = {"model": model.recipe(), "train": shared, "stage": optimiser, "phase": phase.recipe()}
    if inputs.kind == "frames" and phase.reads_features and features.views > 1:
        config["views"] = {"num": features.views, "flip": features.flip}
    artifacts = {"manifest": manifest, inputs.kind: inputs, **({"init": init} if init else {})}
    step = Step(f"fit_{kind}", kind, config, artifacts, make, label=phase.name)
    return step


def score(
    store: Store,
    evaluation: EvalConfig,
    train: TrainConfig,
    manifest: Artifact,
    features: Artifact,
    checkpoint: Artifact,
) -> Step:
    """Checkpoint and features -> ranks and scores of every head, language, text class and direction."""

    def make(draft: Draft, log: Log) -> None:
        from ivcore.retrieval.score import write_scores

        write_scores(draft, store, evaluation, train, manifest, features, checkpoint, log)

    wanted: tuple[str, ...] = ("split", "k", "languages", "text_classes", "latency_queries", "kv_gb")
    if manifest.record()["facts"].get("card", {}).get("task") == "classification":
        wanted = (*wanted, "prompts")
    config = {k: v for k, v in evaluation.recipe().items() if k in wanted} | {"threads": train.threads}
    artifacts = {"manifest": manifest, "features": features, "checkpoint": checkpoint}
    return Step("score", "scores", config, artifacts, make, label=checkpoint.kind)


def report(store: Store, evaluation: EvalConfig, scores: Mapping[str, Artifact]) -> Step:
    """Scores, named ARM.SEED.MODEL (main.0.s2), -> the verdict: tables, intervals, pictures, plain words."""

    def make(draft: Draft, log: Log) -> None:
        from ivcore.verdict.report import write_report

        write_report(draft, store, evaluation, scores, log)

    return Step("report", "report", evaluation.recipe(), dict(scores), make)
