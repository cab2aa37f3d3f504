"""Which models, and how both are trained: stages of phases."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ivcore.config.branch import (
    PACKAGE,
    Branch,
    Language,
    one_of,
    speed_only,
    when_set,
)


class ModelConfig(Branch):
    """Which model size; the numbers are in ivcore/models/sizes."""

    size: str = one_of(
        "tiny", PACKAGE / "models" / "sizes", ".toml", "A file of ivcore/models/sizes: tiny, S14, B14, L14, 1B, 6B."
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
    text_tower: Literal["own", "bert"] = when_set(
        "own", "clip's first phase: the text tower it begins with, its size's own or a new one of s2's kind."
    )
    lr_scale: float = Field(1.0, gt=0, description="Multiplies the stage's learning rate.")
    warmup_steps: int = Field(30, ge=0, description="Steps of linear warm-up.")
    warmup_epochs: float = Field(0.0, ge=0, description="The warm-up in epochs, in place of `warmup_steps`.")
    decay_from: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of all steps, those of the warm-up included, after which the learning rate falls; 1: never. "
        "Of the schedule level; published falls from the end of the warm-up.",
    )
    end_lr_factor: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of the peak that the learning rate falls towards: level would reach it a step after the "
        "last, published is never below it.",
    )
    schedule: Literal["level", "published"] = when_set(
        "level",
        "level: warm-up from nothing, the peak until decay_from, then half a cosine; "
        "published: warm-up, then half a cosine to nothing over all that is left, neither below end_lr_factor.",
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
    different_lr: dict[str, float] = when_set(
        {}, "Factors on the learning rate, by regular expression on parameter names; the first that is found counts."
    )
    accumulate: int = when_set(
        1, "Parts a batch is worked through in, one after the other; each part is contrasted within itself.", ge=1
    )
    grad_cache_chunk: int = when_set(
        0,
        "Clips that go through the towers at once, while the contrast is that of the whole batch (gradient caching): "
        "memory of a chunk for two forwards; matching negatives come from the chunk. 0: the whole batch at once.",
        ge=0,
    )
    validate_every: int = when_set(0, "Steps between two looks at retrieval on the split val; 0: none.", ge=0)
    patience: int = when_set(0, "Stop after so many looks without a better R@1; 0: never.", ge=0)
    keep: Literal["last", "best"] = when_set("last", "The checkpoint of a phase: its last step, or its best R@1.")
    phases: tuple[Phase, ...] = Field(description="What is trained, in order; none: the stage is left out (clip only).")


class TrainConfig(Branch):
    """Both training stages."""

    policy: Literal["always", "when_data_grows_by", "never"] = speed_only(
        "always",
        "When the data of a run that was trained before has changed: train again always, when it grew by grows_by, "
        "or never. Where training is held back, the models trained last are scored on the data as it is now.",
    )
    grows_by: float = speed_only(
        0.1, "New training clips, as a share of those learned from, that are worth training again.", ge=0
    )
    seed: int = Field(0, ge=0, description="Seed of weights, batches, masks and negatives.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    take_turns: Literal["cuda", "always", "never"] = speed_only(
        "cuda", "Training, encoding and scoring wait for a slot of Prefect's limit iv-gpu: on CUDA, always, or never."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Arithmetic of the towers (losses are float32)."
    )
    threads: int = Field(
        2, ge=1, description="CPU threads; a part of the recipe, since sums depend on it in the last bit."
    )
    weights: Literal["float32", "bfloat16"] = when_set(
        "float32",
        "Type of the weights that stand still; bfloat16 halves their memory (published clip). What trains is float32.",
    )
    compile: bool | None = when_set(
        None, "Compile the towers' blocks with torch.compile; sums differ in the last bits. Not set: on a GPU, yes."
    )
    deterministic: bool = when_set(
        False,
        "On a GPU: sums in one order, which is slower. Without it two runs of one seed differ in the last bits of each "
        "sum, and grow apart from there. On a CPU sums are always in one order.",
    )
    vtc_gradient: Literal["full", "local_slice"] = when_set(
        "full", "Gradient of the contrast over ranks; local_slice: 1/ranks of it, as upstream's gather."
    )
    checkpoint_vision: int = speed_only(0, "Vision blocks that compute twice to save memory, from the first.", ge=0)
    checkpoint_text: bool = speed_only(False, "Text layers compute twice to save memory.")
    ranks: int = speed_only(
        1,
        "Processes that train together, each on its part of every batch. Sums differ in the last bits. s2's matching "
        "negatives come from a process's own part, as published, so for s2 the number is in the recipe.",
        ge=1,
    )
    parallel: Literal["ddp", "fsdp2"] = speed_only(
        "ddp", "ddp: a whole model in every process; fsdp2: shards, for models that do not fit."
    )
    nodes: int = speed_only(
        1, "Machines that share the ranks evenly; each of the others runs `iv join` on the same workspace.", ge=1
    )
    meet: str = speed_only("", "host:port of the machine that runs the flow, for the others; where train.nodes > 1.")
    on_nan: Literal["stop", "skip"] = speed_only("stop", "At a loss or gradient that is no number: stop, or skip.")
    max_skips: int = speed_only(10, "Batches that may be skipped in a phase before it stops.", ge=0)
    save_every_steps: int = speed_only(0, "Save the unfinished phase after so many steps; 0: by the clock.", ge=0)
    save_every_min: float = speed_only(5.0, "Save the unfinished phase after so many minutes; 0: never.", ge=0)
    keep_states: int = speed_only(2, "Saved states of an unfinished phase that are kept, the newest ones.", ge=1)
    s2: StageConfig = Field(
        StageConfig(phases=(Phase(name="pretrain", steps=450, vtm=1.0, mlm=1.0),)), description="s2: VTC + VTM + MLM."
    )
    clip: StageConfig = Field(
        StageConfig(phases=(Phase(name="pooler", steps=200, trainable="clip"),)),
        description="clip: contrastive loss on the frozen s2 trunk.",
    )

    @property
    def device_type(self) -> Literal["cpu", "cuda"]:
        """What the device is here; torch is asked only where `auto` may find a card."""
        if self.device != "auto":
            return "cuda" if self.device.startswith("cuda") else "cpu"
        if not any(Path("/dev").glob("nvidia[0-9]*")):
            return "cpu"
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def compiles(self, device_type: str) -> bool:
        """Whether blocks are compiled on this kind of device."""
        return device_type == "cuda" if self.compile is None else self.compile

    @model_validator(mode="after")
    def _rounded(self) -> "TrainConfig":
        if self.weights == "bfloat16" and self.dtype == "float32":
            raise ValueError('weights = "bfloat16" needs dtype = "bfloat16": rounded weights are multiplied in it')
        return self

    @model_validator(mode="after")
    def _shared(self) -> "TrainConfig":
        if self.ranks % self.nodes:
            raise ValueError(f"ranks = {self.ranks} and nodes = {self.nodes}: every machine has as many ranks")
        if self.nodes > 1 and not re.fullmatch(r"\S+:\d{1,5}", self.meet):
            raise ValueError(f"nodes = {self.nodes} and meet = {self.meet!r}: give host:port of this machine")
        return self
