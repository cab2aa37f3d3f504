"""Which videos and captions, the frames taken from them, and the features kept of a frozen trunk."""

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

    dataset: str = one_of(
        "synthetic",
        PACKAGE / "datasets" / "sets",
        ".py",
        "A file of ivcore/datasets/sets: synthetic (made up), folder, mix (of several), msrvtt, ...",
    )
    root: str | None = Field(
        None, description="Folder that holds your videos; every path of the annotation is inside it."
    )
    link_roots: tuple[str, ...] = Field(
        (), description="Further folders that links inside data.root may lead to; others are rows with a reason."
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
    shift: float = when_set(
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
        description="auto: PyAV, which seeks and says when a picture is damaged; where its process was lost, decord, "
        "if the packet table is clean. decord: nothing else, and no word of damage.",
    )
    damaged: Literal["keep", "drop"] = when_set(
        "keep", "Clips with damaged pictures among those taken: keep them and count them, or drop them as unreadable."
    )
    shard_clips: int = Field(512, ge=1, description="Clips in one frame shard (one Parquet file).")
    cache: bool = Field(True, description="Keep frames in shards; false: check now, decode again for every batch.")
    compression: Literal["zstd", "lz4", "none"] = Field("zstd", description="Compression of the frame shards.")
    disk_gb: float | None = speed_only(
        None, "Most that new frames may take, GB before compression; empty: what is free.", gt=0
    )
    workers: int = speed_only(0, "Decoder processes of a machine; 0: one a core.", ge=0)
    dask: str | None = speed_only(
        None,
        "Scheduler of a Dask cluster whose machines decode, tcp://host:8786; empty: this machine alone.",
        pattern=r"^(tcp|tls|ucx|ws|wss)://.+",
    )
    deadline_s: float = speed_only(
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


class FeaturesConfig(Branch):
    """How the trunk's tokens are kept."""

    dtype: Literal["float16", "bfloat16", "float32"] = Field(
        "float16", description="Type that token features are stored in."
    )
    views: int = when_set(
        1,
        "Views of a training clip that phases with a frozen trunk read in turn, one each time it comes by: the plain "
        "one, and random resized crops as published.",
        ge=1,
    )
    flip: bool = when_set(
        False, "Mirror half of the other views by chance, as published; not for captions that say left and right."
    )
    batch_size: int = speed_only(64, "Clips encoded at once.", ge=1)
    cache: Literal["auto", "always", "never"] = speed_only(
        "auto",
        "Phases with a frozen trunk read stored tokens of every clip (always), run the trunk at each step (never), or "
        "do what is quicker by bytes, epochs, and the speed of disk and trunk (auto).",
    )

    @model_validator(mode="after")
    def _mirrored(self) -> "FeaturesConfig":
        if self.flip and self.views == 1:
            raise ValueError("flip = true and views = 1: the plain view is never mirrored; set views to 2 or more")
        return self
