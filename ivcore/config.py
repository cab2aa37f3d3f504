"""The one config tree: run file, --set override, Prefect flow parameter and MLflow params are this same value.

A step is handed its own branch, and the branch is the recipe of its artifact. A field marked `recipe=False` (how many
workers, which device) changes speed but not bytes and stays out of the key.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ivcore.errors import UserError

HERE = Path(__file__).parent
RUNS = HERE / "runs"

Language = Literal["en", "zh", "es"]
TextClass = Literal["short", "long"]
Json = Any  # what a TOML or JSON value may be


def _speed_only(default: Any, description: str, **limits: Any) -> Any:
    """A field that may change speed and memory but never the bytes of a result."""
    return Field(default, description=description, json_schema_extra={"recipe": False}, **limits)


def _when_set(default: Any, description: str, **limits: Any) -> Any:
    """A field that is in the recipe only where it is not at its default: recipes from before it keep their keys."""
    return Field(default, description=description, json_schema_extra={"recipe": "when set"}, **limits)


def _one_of(default: str, folder: Path, suffix: str, description: str, also: tuple[str, ...] = ()) -> Any:
    """A field that names a file of a folder: forms show the names as a menu, servers refuse others."""
    names = sorted(p.stem for p in folder.glob(f"*{suffix}") if not p.stem.startswith("_"))
    return Field(default, description=description, json_schema_extra={"enum": [*also, *names]})


class Branch(BaseModel):
    """Frozen, strict about names, and checks its own defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    def recipe(self) -> dict[str, Json]:
        """The fields that decide the bytes of a result, as plain JSON values."""
        out: dict[str, Json] = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            kept = extra.get("recipe", True) if isinstance(extra, dict) else True
            if kept is False or (kept == "when set" and getattr(self, name) == field.default):
                continue
            out[name] = _plain(getattr(self, name))
        return out


def _plain(value: Any) -> Json:
    if isinstance(value, Branch):
        return value.recipe()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


class SyntheticConfig(Branch):
    """Generated videos: coloured shapes that move, one mp4 each, with captions in three languages."""

    seed: int = Field(0, ge=0, description="Seed of scenes, swaps and pictures; the same seed gives the same bytes.")
    objects: Literal[2, 4] = Field(2, description="Objects in a scene: 2 (one above the other) or 4 (a 2x2 grid).")
    train_clips: int = Field(4000, ge=8, description="Clips in the training split.")
    val_clips: int = Field(300, ge=4, description="Clips in the validation split.")
    test_clips: int = Field(300, ge=4, description="Clips in the test split, in families of 4 (a scene and 3 swaps).")
    sibling_share: float = Field(0.5, ge=0, le=1, description="Share of training clips that come with swap siblings.")
    size_px: int = Field(64, ge=32, le=512, description="Width and height of the videos, in pixels.")
    num_frames: int = Field(16, ge=2, description="Frames in a video.")
    fps: int = Field(8, ge=1, description="Frames a second.")


class PartConfig(Branch):
    """One data set of a mix, or of a grid."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="Begins every id of the part, or the arm; --set reaches it as NAME."
    )
    dataset: str = Field("folder", description="As data.dataset.")
    root: str | None = Field(None, description="As data.root.")
    annotations: str | None = Field(None, description="As data.annotations.")
    weight: int = Field(1, ge=1, description="Times its clips come by in an epoch of training.")


class DataConfig(Branch):
    """Which videos and captions."""

    dataset: str = _one_of(
        "synthetic",
        HERE / "data" / "datasets",
        ".py",
        "A file of ivcore/data/datasets: synthetic (made up), folder, mix (of several), msrvtt, ...",
    )
    root: str | None = Field(
        None, description="Folder that holds your videos; every path of the annotation is inside it."
    )
    annotations: str | None = Field(
        None,
        description="csv, jsonl, json or Parquet: path, caption (optional: language, split, start_s, end_s); "
        "for a published data set its own file, or the folder that holds its files.",
    )
    allow_unverified: bool = Field(
        False, description="Read annotations whose checksum is not known here: a wrong split would not be noticed."
    )
    caption_rule: Literal["each", "paragraph"] = Field(
        "each", description="dataset upstream: each caption is a query, or those of a video are joined."
    )
    language: Language = Field("en", description="datasets upstream*: language of the captions.")
    shares: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="Shares of train, val and test, drawn by content, where no split is given."
    )
    max_failed_share: float = Field(
        0.5, ge=0, le=1, description="Stop when more than this share of the clips cannot be read (0-1)."
    )
    synthetic: SyntheticConfig = Field(SyntheticConfig(), description="Used when dataset is synthetic.")

    mix: tuple[PartConfig, ...] = Field((), description="Used when dataset is mix: the data sets, each under a name.")

    @model_validator(mode="after")
    def _whole(self) -> "DataConfig":
        names = [part.name for part in self.mix]
        if len(set(names)) < len(names):
            raise ValueError(f"mix has a name twice among {', '.join(names)}")
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares = {list(self.shares)} must be shares of train, val and test that add up to 1")
        return self

    def of(self, part: PartConfig) -> "DataConfig":
        """This config with the part's data set for its own."""
        own = {"dataset": part.dataset, "root": part.root, "annotations": part.annotations, "mix": ()}
        return self.model_copy(update=own)


class FramesConfig(Branch):
    """Which frames of a video, at which size, by which decoder."""

    num_frames: int = Field(8, ge=1, le=64, description="Frames taken from a clip.")
    size_px: int = Field(32, ge=16, le=512, description="Width and height frames are resized to, in pixels.")
    sampling: Literal["middle", "rand", "fps"] = Field(
        "middle",
        description="middle: the middle frame of equal segments (published); rand: one drawn; fps: by the clock.",
    )
    fps: float = Field(1.0, gt=0, le=1000, description="Frames a second where sampling is fps, up to num_frames.")
    shift: float = _when_set(
        0.0,
        "Share of a segment by which the middle frame moves on, around within its segment: other samplings of a clip.",
        ge=0,
        lt=1,
    )
    resize: Literal["bicubic", "bicubic-antialias"] = Field(
        "bicubic-antialias",
        description="bicubic: as the published models were evaluated; -antialias: as current torchvision.",
    )
    crop: Literal["none", "centre"] = Field(
        "none", description="none: squashed to a square (published); centre: the largest square of the middle."
    )
    decoder: Literal["auto", "decord", "pyav"] = Field(
        "auto",
        description="auto: decord for files with a clean packet table, PyAV for all others and after decord fails.",
    )
    shard_clips: int = Field(512, ge=1, description="Clips in one frame shard (one Parquet file).")
    cache: bool = Field(True, description="Keep frames in shards; false: check now, decode again for every batch.")
    compression: Literal["zstd", "lz4", "none"] = Field("zstd", description="Compression of the frame shards.")
    disk_gb: float | None = _speed_only(
        None, "Most that new frames may take, GB before compression; empty: what is free.", gt=0
    )
    workers: int = _speed_only(0, "Decoder processes of a machine; 0: one a core.", ge=0)
    dask: str | None = _speed_only(
        None,
        "Scheduler of a Dask cluster whose machines decode, tcp://host:8786; empty: this machine alone.",
        pattern=r"^(tcp|tls|ucx|ws|wss)://.+",
    )
    deadline_s: float = _speed_only(
        20.0,
        "Seconds until a file's decoder is killed, up to ten times as many for a long video. "
        "What was lost is tried again when a run allows more than the one before.",
        gt=0,
    )

    @model_validator(mode="after")
    def _shifted(self) -> "FramesConfig":
        if self.shift and self.sampling != "middle":
            raise ValueError(f"shift = {self.shift:g} and sampling = {self.sampling}: only the middle frame is shifted")
        return self


class ModelConfig(Branch):
    """Which model size; the numbers are in ivcore/models/sizes."""

    size: str = _one_of(
        "tiny", HERE / "models" / "sizes", ".toml", "A file of ivcore/models/sizes: tiny, S14, B14, L14, 1B, 6B."
    )
    s2_init: str | None = Field(
        None,
        description="Folder that `iv import` made; s2 begins from it, and with no s2 phase it is judged as it is.",
        json_schema_extra={"recipe": False},  # what is in it decides: an input of the first phase
    )
    clip_init: str | None = Field(
        None,
        description="Likewise for clip, which else begins from s2's trunk.",
        json_schema_extra={"recipe": False},
    )
    s2_vocab: int = Field(1000, ge=32, description="Largest vocabulary trained for s2's text encoder (tiny size only).")
    clip_vocab: int = Field(
        2000, ge=32, description="Largest vocabulary trained for clip's text tower (tiny size only)."
    )
    s2_text_len: int = Field(32, ge=4, description="Tokens of a caption that s2 reads, [CLS] included.")
    clip_text_len: int = Field(160, ge=4, description="Tokens of a caption that clip reads, begin and end included.")


class Phase(Branch):
    """A stretch of training with one set of losses, one kind of batch and one list of trained parameters.

    Every phase ends in a checkpoint artifact of its own, so runs that begin alike share their beginning.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the phase; --set reaches it as phases.NAME.")
    steps: int = Field(0, ge=0, description="Optimiser steps; 0: as many as `epochs` come to.")
    epochs: float = Field(0.0, ge=0, description="Passes over the training clips, in place of `steps`.")
    trainable: Literal[
        "all", "clip", "clip_projection", "clip_lora", "clip_text", "clip_trunk", "fusion", "vtc_head"
    ] = Field(
        "all", description="Policy of ivcore/models/freeze.py: which parameters train; the rest is frozen and verified."
    )
    text_tower: Literal["own", "bert"] = _when_set(
        "own", "clip's first phase: the text tower it begins with, its size's own or a new one of s2's kind."
    )
    lr_scale: float = Field(1.0, gt=0, description="Multiplies the stage's learning rate.")
    warmup_steps: int = Field(30, ge=0, description="Steps of linear warm-up.")
    warmup_epochs: float = Field(0.0, ge=0, description="The warm-up in epochs, in place of `warmup_steps`.")
    decay_from: float = Field(0.5, ge=0, le=1, description="Share of the steps after which the learning rate falls.")
    end_lr_factor: float = Field(
        0.05, ge=0, le=1, description="Learning rate at the last step, as a share of the peak."
    )
    schedule: Literal["level", "published"] = _when_set(
        "level",
        "level: warm-up from nothing, the peak until decay_from, then half a cosine; "
        "published: warm-up from end_lr_factor, then half a cosine over all that is left.",
    )
    batches: Literal["random", "families", "neighbours"] = Field(
        "random",
        description="random clips; families: a scene with its swaps; neighbours: clips the model confuses.",
    )
    group_share: float = Field(
        1.0, ge=0, le=1, description="Share of the batches that are grouped; the rest is random."
    )
    vtc: float = Field(1.0, ge=0, description="Weight of the contrastive loss.")
    vtc_negatives: Literal["all", "other_scenes"] = Field(
        "all",
        description="other_scenes leaves clips of the same family (the binding swaps) out of the contrastive softmax.",
    )
    vtm: float = Field(0.0, ge=0, description="Weight of the matching loss (s2).")
    even_negatives: float = Field(
        0.0, ge=0, le=1, description="Share of matching negatives drawn evenly instead of by similarity (published: 0)."
    )
    mlm: float = Field(0.0, ge=0, description="Weight of the masked-language loss (s2).")
    loss_every: int = Field(1, ge=1, description="Matching and masked-language losses are taken every this many steps.")
    token_drop: float = Field(
        0.0, ge=0, lt=1, description="Share of the video tokens dropped before the trunk (published s2: 0.8)."
    )
    image_token_drop: float = Field(0.0, ge=0, lt=1, description="Likewise of a still image's (published s2: 0.5).")
    languages: tuple[Language, ...] = Field(("en",), min_length=1, description="Caption languages, drawn by chance.")
    language_weights: tuple[float, ...] = Field((), description="Chance of each language; empty: all alike.")
    language_by: Literal["batch", "clip"] = Field(
        "batch", description="batch: one language a batch; clip: each clip draws one of those it has captions in."
    )
    long_share: float = Field(0.0, ge=0, le=1, description="Share of the batches that read long captions.")

    @model_validator(mode="after")
    def _length(self) -> "Phase":
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError(f"steps = {self.steps} and epochs = {self.epochs:g}: give one of them")
        return self

    @model_validator(mode="after")
    def _weighted(self) -> "Phase":
        if self.language_weights and len(self.language_weights) != len(self.languages):
            raise ValueError(f"language_weights = {list(self.language_weights)} for {len(self.languages)} languages")
        if any(weight <= 0 for weight in self.language_weights):
            raise ValueError("language_weights are above 0; leave a language out of languages instead")
        return self

    def in_steps(self, steps_per_epoch: int) -> "Phase":
        """The same phase with its epochs counted out in steps."""
        steps = self.steps or max(1, round(self.epochs * steps_per_epoch))
        warmup = round(self.warmup_epochs * steps_per_epoch) if self.warmup_epochs else self.warmup_steps
        return self.model_copy(update={"steps": steps, "epochs": 0.0, "warmup_steps": warmup, "warmup_epochs": 0.0})

    @property
    def reads_features(self) -> bool:
        """The trunk stands still in this phase, so its stored tokens serve as input instead of frames."""
        return self.trainable not in ("all", "clip_trunk")


class StageConfig(Branch):
    """Optimiser and phases of one stage."""

    lr: float = Field(1.5e-3, gt=0, description="Peak learning rate of AdamW.")
    batch_size: int = Field(64, ge=2, description="Clips in a batch.")
    weight_decay: float = Field(
        0.02, ge=0, description="Weight decay; norms, biases, positions and temperature have none."
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's betas (published: 0.9, 0.98).")
    grad_clip: float = Field(1.0, ge=0, description="Largest global gradient norm; 0: none.")
    different_lr: dict[str, float] = _when_set(
        {}, "Factors on the learning rate, by regular expression on parameter names; the first that is found counts."
    )
    accumulate: int = _when_set(
        1, "Parts a batch is worked through in, one after the other; each part is contrasted within itself.", ge=1
    )
    grad_cache_chunk: int = _when_set(
        0,
        "Clips that go through the towers at once, while the contrast is that of the whole batch (gradient caching): "
        "memory of a chunk for two forwards; matching negatives come from the chunk. 0: the whole batch at once.",
        ge=0,
    )
    validate_every: int = _when_set(0, "Steps between two looks at retrieval on the split val; 0: none.", ge=0)
    patience: int = _when_set(0, "Stop after so many looks without a better R@1; 0: never.", ge=0)
    keep: Literal["last", "best"] = _when_set("last", "The checkpoint of a phase: its last step, or its best R@1.")
    phases: tuple[Phase, ...] = Field(description="What is trained, in order; none: the stage is left out (clip only).")


class TrainConfig(Branch):
    """Both training stages."""

    policy: Literal["always", "when_data_grows_by", "never"] = _speed_only(
        "always",
        "When the data of a run that was trained before has changed: train again always, when it grew by grows_by, "
        "or never. Where training is held back, the models trained last are scored on the data as it is now.",
    )
    grows_by: float = _speed_only(
        0.1, "New training clips, as a share of those learned from, that are worth training again.", ge=0
    )
    seed: int = Field(0, ge=0, description="Seed of weights, batches, masks and negatives.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    take_turns: Literal["cuda", "always", "never"] = _speed_only(
        "cuda", "Training, encoding and scoring wait for a slot of Prefect's limit iv-gpu: on CUDA, always, or never."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Arithmetic of the towers (losses are float32)."
    )
    threads: int = Field(
        2, ge=1, description="CPU threads; a part of the recipe, since sums depend on it in the last bit."
    )
    weights: Literal["float32", "bfloat16"] = _when_set(
        "float32", "Type of the weights while they train; bfloat16 is pure, without a float32 copy (published clip)."
    )
    compile: bool = _when_set(False, "Compile the towers' blocks with torch.compile; sums differ in the last bits.")
    vtc_gradient: Literal["full", "local_slice"] = _when_set(
        "full", "Gradient of the contrast over ranks; local_slice: 1/ranks of it, as upstream's gather."
    )
    checkpoint_vision: int = _speed_only(0, "Vision blocks that compute twice to save memory, from the first.", ge=0)
    checkpoint_text: bool = _speed_only(False, "Text layers compute twice to save memory.")
    ranks: int = _speed_only(
        1,
        "Processes that train together, each on its part of every batch. Sums differ in the last bits; matching "
        "negatives come from a process's own part, as published.",
        ge=1,
    )
    parallel: Literal["ddp", "fsdp2"] = _speed_only(
        "ddp", "ddp: a whole model in every process; fsdp2: shards, for models that do not fit."
    )
    nodes: int = _speed_only(
        1, "Machines that share the ranks evenly; each of the others runs `iv join` on the same workspace.", ge=1
    )
    meet: str = _speed_only("", "host:port of the machine that runs the flow, for the others; where train.nodes > 1.")
    on_nan: Literal["stop", "skip"] = _speed_only("stop", "At a loss or gradient that is no number: stop, or skip.")
    max_skips: int = _speed_only(10, "Batches that may be skipped in a phase before it stops.", ge=0)
    save_every_steps: int = _speed_only(0, "Save the unfinished phase after so many steps; 0: by the clock.", ge=0)
    save_every_min: float = _speed_only(5.0, "Save the unfinished phase after so many minutes; 0: never.", ge=0)
    keep_states: int = _speed_only(2, "Saved states of an unfinished phase that are kept, the newest ones.", ge=1)
    s2: StageConfig = Field(
        StageConfig(phases=(Phase(name="pretrain", steps=450, vtm=1.0, mlm=1.0),)), description="s2: VTC + VTM + MLM."
    )
    clip: StageConfig = Field(
        StageConfig(phases=(Phase(name="pooler", steps=200, trainable="clip"),)),
        description="clip: contrastive loss on the frozen s2 trunk.",
    )

    @model_validator(mode="after")
    def _shared(self) -> "TrainConfig":
        if self.ranks % self.nodes:
            raise ValueError(f"ranks = {self.ranks} and nodes = {self.nodes}: every machine has as many ranks")
        if self.nodes > 1 and not re.fullmatch(r"\S+:\d{1,5}", self.meet):
            raise ValueError(f"nodes = {self.nodes} and meet = {self.meet!r}: give host:port of this machine")
        return self


class FeaturesConfig(Branch):
    """How the trunk's tokens are kept."""

    dtype: Literal["float16", "float32"] = Field("float16", description="Type that token features are stored in.")
    views: int = _when_set(
        1,
        "Views of a training clip that phases with a frozen trunk read in turn, one each time it comes by: the plain "
        "one, and random resized crops as published.",
        ge=1,
    )
    flip: bool = _when_set(
        False, "Mirror half of the other views by chance, as published; not for captions that say left and right."
    )
    batch_size: int = _speed_only(64, "Clips encoded at once.", ge=1)
    cache: Literal["auto", "always", "never"] = _speed_only(
        "auto",
        "Phases with a frozen trunk read stored tokens of every clip (always), run the trunk at each step (never), or "
        "do what is quicker by bytes, epochs, and the speed of disk and trunk (auto).",
    )

    @model_validator(mode="after")
    def _mirrored(self) -> "FeaturesConfig":
        if self.flip and self.views == 1:
            raise ValueError("flip = true and views = 1: the plain view is never mirrored; set views to 2 or more")
        return self


class EvalConfig(Branch):
    """What is scored and how sure the answer has to be."""

    split: Literal["train", "val", "test"] = Field("test", description="Split that is scored.")
    k: int = Field(16, ge=1, description="Candidates that s2's matching head re-scores for each query.")
    languages: tuple[Language, ...] = Field(("en", "zh", "es"), min_length=1, description="Languages of the queries.")
    text_classes: tuple[TextClass, ...] = Field(("short", "long"), min_length=1, description="Caption lengths scored.")
    fused_weight: float = _when_set(
        0.0,
        "Weight of the matching logit in the head fused, cosine + weight * logit of the k best: an extra that nobody "
        "published. At s2's temperature (0.07) both count alike; 0: no such head.",
        ge=0,
    )
    samplings: int = _when_set(
        1,
        "Samplings of frames that a scored clip is seen by (frame ensemble): embeddings are averaged, matching reads "
        "the tokens of all. Each is decoded and encoded once.",
        ge=1,
        le=16,
    )
    kv_gb: float = _when_set(
        0.25, "Keys and values that a timed server keeps for matching, GB; what is beyond is read folded.", ge=0
    )
    prompts: str = Field("actions16", description="Prompts of classification: a file of ivcore/prompts.")
    bootstrap: int = Field(
        2000, ge=100, description="Bootstrap samples behind each interval, drawn by family of clips."
    )
    seed: int = Field(0, ge=0, description="Seed of the bootstrap and of the example queries.")
    latency_queries: int = Field(60, ge=10, description="Queries timed one by one for p50 and p95.")
    examples: int = Field(6, ge=0, description="Example queries shown with frames in the report.")


class GridConfig(Branch):
    """What `iv grid` looks at beside the languages, lengths and k of `eval`; all are encoded once."""

    data: tuple[PartConfig, ...] = Field(
        (), description="Data sets that are scored beside the run's own; nothing is trained on them."
    )

    frames: tuple[int, ...] = Field((), description="Frames taken from a clip; none: as many as frames.num_frames.")
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = Field(
        ("float32", "bfloat16"), min_length=1, description="Arithmetic of encoding and scoring; training keeps its own."
    )


class Arm(Branch):
    """A named set of overrides: arms of a run differ in these and in nothing else."""

    name: str = Field("main", pattern=r"^[a-z][a-z0-9_]*$", description="Name of the arm, as in the report.")
    set: dict[str, Json] = Field({}, description="Dotted config names and their values, as after --set.")


class RunConfig(Branch):
    """A run: everything that decides the result. `run` names the file whose values hold where this one says nothing."""

    run: str = _one_of(
        "",
        RUNS,
        ".toml",
        "A named run of ivcore/runs that fills what is not set here; in a form that is filled in, only its name.",
        also=("",),
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Each seed is a whole run: data, weights, batches.")
    arms: tuple[Arm, ...] = Field((Arm(),), min_length=1, description="Variants run side by side.")
    data: DataConfig = Field(DataConfig(), description="Videos and captions.")
    frames: FramesConfig = Field(FramesConfig(), description="Frames taken from the videos.")
    model: ModelConfig = Field(ModelConfig(), description="Model size.")
    train: TrainConfig = Field(TrainConfig(), description="s2 pretraining and clip fine-tuning.")
    features: FeaturesConfig = Field(FeaturesConfig(), description="Token features of the frozen trunk.")
    eval: EvalConfig = Field(EvalConfig(), description="Scoring and statistics.")
    grid: GridConfig = Field(GridConfig(), description="Cells of `iv grid`.")

    @model_validator(mode="after")
    def _sampled(self) -> "RunConfig":
        if self.eval.samplings > 1 and (self.frames.sampling != "middle" or self.frames.shift):
            raise ValueError("eval.samplings shifts the middle frames: frames.sampling is middle and frames.shift 0")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_from_named_run(cls, values: Any) -> Any:
        """Read the named run under the values given, so `{"run": "demo"}` is a whole config."""
        if isinstance(values, dict) and values.get("run"):
            named = read_toml(named_run(values["run"]))
            below = named.get("run")  # a named run may begin with another one, which begins with none
            return merge(merge(read_toml(named_run(below)) if below else {}, named), values)
        return values


def named_run(name: str) -> Path:
    """Path of a named run; UserError listing the known ones."""
    path = RUNS / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"no run is named {name!r}; known: {', '.join(sorted(p.stem for p in RUNS.glob('*.toml')))}")
    return path


def read_toml(path: Path) -> dict[str, Json]:
    """A TOML file as a dict; UserError naming file and line when it does not parse."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no config file at {path}; give a path or a named run") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is not TOML: {e}") from None


def merge(base: dict[str, Json], over: dict[str, Json]) -> dict[str, Json]:
    """`over` on top of `base`, table by table; a list replaces a list."""
    out = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merge(out[name], value) if both else value
    return out


def override(values: dict[str, Json], name: str, value: Json) -> dict[str, Json]:
    """A copy of `values` with the dotted `name` set; an item of a list is reached by its own `name` or its index."""
    head, _, rest = name.partition(".")
    if not rest:
        return {**values, head: value}
    inner = values.get(head, {})
    if isinstance(inner, (list, tuple)):
        item, _, rest = rest.partition(".")
        spots = [i for i, x in enumerate(inner) if item == str(i) or (isinstance(x, dict) and x.get("name") == item)]
        if not spots or not rest:
            raise UserError(f"{head} has no item {item!r} to set {rest or 'a field'} of")
        return {**values, head: [override(x, rest, value) if i == spots[0] else x for i, x in enumerate(inner)]}
    if not isinstance(inner, dict):
        raise UserError(f"{head} is a value, not a table: it has no {rest}")
    return {**values, head: override(inner, rest, value)}


def parse(values: dict[str, Json], source: str = "config") -> RunConfig:
    """A checked RunConfig, or a UserError that names each field, its value and what is wrong."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as e:
        lines = []
        for error in e.errors():
            spot = ".".join(str(p) for p in error["loc"]) or source
            what = _unknown(error["loc"]) if error["type"] == "extra_forbidden" else error["msg"]
            lines.append(f"{spot} = {error['input']!r:.60}: {what}")
        raise UserError(f"{source}: " + "; ".join(lines)) from None


def _unknown(spot: tuple[int | str, ...]) -> str:
    """What to say of a name that is no field: the field that was meant, or those there are."""
    branch: Any = RunConfig
    for name in spot[:-1]:
        if isinstance(name, str) and name in branch.model_fields:
            inner = branch.model_fields[name].annotation
            types = [t for t in (inner, *get_args(inner)) if isinstance(t, type) and issubclass(t, Branch)]
            branch = (types or [branch])[0]
    near = difflib.get_close_matches(str(spot[-1]), branch.model_fields, n=1)
    return f"no such field; {f'{near[0]} is meant?' if near else 'there are ' + ', '.join(branch.model_fields)}"


def load(source: str, sets: Iterable[str] = ()) -> RunConfig:
    """The run named or at the path `source`, with `a.b=value` overrides (TOML values; a bare word is a string)."""
    values = read_toml(Path(source)) if source.endswith(".toml") or "/" in source else {"run": source}
    values = parse(values, source).model_dump(mode="json")  # whole, so that an override can reach into its lists
    for item in sets:
        name, eq, text = item.partition("=")
        if not eq:
            raise UserError(f"--set {item!r} has no '='; write --set train.clip.lr=1e-4")
        values = override(values, name.strip(), _value(text))
    return parse(values, source)


def _value(text: str) -> Json:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def variants(config: RunConfig) -> list[tuple[str, int, RunConfig]]:
    """One (arm, seed, config) for each arm and seed; in the config seed and overrides are already applied."""
    out = []
    for arm in config.arms:
        for seed in config.seeds:
            values = config.model_dump(mode="json", exclude={"run"})
            values = {**values, "seeds": [seed], "arms": [{"name": arm.name}]}
            for name, value in {"data.synthetic.seed": seed, "train.seed": seed, **arm.set}.items():
                values = override(values, name, value)
            out.append((arm.name, seed, parse(values, f"arm {arm.name}")))
    return out


def flatten(values: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    """Dotted names to plain values, e.g. {"train.clip.lr": 0.0015}; items of named lists go by their name."""
    out: dict[str, Json] = {}
    for name, value in values.items():
        if isinstance(value, (list, tuple)) and value and all(isinstance(x, dict) and "name" in x for x in value):
            value = {x["name"]: {k: v for k, v in x.items() if k != "name"} for x in value}
        if isinstance(value, dict):
            out.update(flatten(value, f"{prefix}{name}."))
        else:
            out[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, (list, tuple)) else value
    return out
