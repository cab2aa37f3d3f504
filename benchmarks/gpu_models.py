"""Models and loops for the GPU benchmark: built on the device, filled there, fed with made-up clips."""

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.models import base, build_clip, build_s2
from ivcore.models.base import VideoTextModel
from ivcore.models.freeze import apply_policy
from ivcore.retrieval.embed import Encoder
from ivcore.text.tokenizer import Tokenizer
from ivcore.train.batches import Batch
from ivcore.train.loop import Loop

CLIPS, WORDS = 512, [f"word{n}" for n in range(400)]


def filled(kind: str, size: str, device: torch.device, vocab: int | None = None, **numbers: Any) -> Any:
    """A model whose weights are drawn on the device, which takes a second where seeding by name takes minutes."""
    vocab = vocab or (1000 if size == "tiny" else None)
    begun = base.initialise
    base.initialise = lambda *_, **__: None
    try:
        with torch.device(device):
            model: VideoTextModel = (build_s2 if kind == "s2" else build_clip)(size, vocab, 0, **numbers)
    finally:
        base.initialise = begun
    draw = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.to(device).named_parameters():
            if name.endswith(".gamma"):
                parameter.fill_(0.1)
            elif name == "temp":
                parameter.fill_(0.07)
            elif parameter.ndim == 1:
                parameter.fill_(float("norm" in name.lower() and name.endswith("weight")))
            else:
                parameter.normal_(0, 0.02, generator=draw)
    return model


class Clips:
    """CLIPS clips of noise, as `Frames` gives them."""

    num_views = 1

    def __init__(self, frames: int, px: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.frames = torch.randint(0, 256, (64, frames, px, px, 3), generator=draw, dtype=torch.uint8)
        self.clip_ids = [f"clip-{n}" for n in range(CLIPS)]

    def batch(self, rows: list[int], views: Any = ()) -> Tensor:
        return self.frames[[row % len(self.frames) for row in rows]]


class StepRunner:
    """The loop of `train` on made-up clips: `steps(n)` takes n steps of batch size `batch`."""

    def __init__(self, kind: str, size: str, batch: int, device: torch.device) -> None:
        frames = {"1B": 4, "tiny": 8}.get(size, 8 if kind == "clip" else 4)
        captions = self._captions()
        tokenizer = Tokenizer.train(captions, 2000, "bert" if kind == "s2" else "llama")
        # Losses as published; MSR-VTT's lengths; four fifths of the patches masked.
        own = {"vtm": 1.0, "mlm": 1.0, "token_drop": 0.8} if kind == "s2" else {}
        self.phase = Phase(
            name="bench", steps=10_000, warmup_steps=0, trainable="all" if kind == "s2" else "clip", **own
        )
        stage = StageConfig(phases=(self.phase,), lr=1e-5, batch_size=batch)
        dtype = "bfloat16" if device.type == "cuda" else "float32"
        train = TrainConfig(dtype=dtype, save_every_min=0, save_every_steps=0)
        numbers = {} if kind == "clip" else {"dropout": 0.0}
        model = filled(kind, size, device, tokenizer.vocab_size, num_frames=frames, **numbers).train()
        apply_policy(model, self.phase.trainable)
        shape = model.vision_encoder.shape
        source = Clips(frames, shape.image_size)
        self.batch, self.captions, self.taken = batch, captions, 0
        encoder = Encoder(model, tokenizer, 32, device, getattr(torch, dtype))
        self.loop = Loop(encoder, source, train, stage, self.phase)

    def steps(self, num: int) -> None:
        self.loop.phase = self.phase.model_copy(update={"steps": self.taken + num})
        with tempfile.TemporaryDirectory() as place:
            self.loop.run((self._one(n) for n in range(num)), lambda figures, step: None, Path(place))
        self.taken += num

    @property
    def gflop_a_step(self) -> float:
        return self.loop.totals.gflop / self.loop.totals.step

    def _one(self, number: int) -> Batch:
        rows = [(number * self.batch + n) % CLIPS for n in range(self.batch)]
        return Batch(rows, [self.captions[row] for row in rows], torch.tensor(rows), "en/short")

    @staticmethod
    def _captions() -> list[str]:
        draw = torch.Generator().manual_seed(0)
        lengths = torch.exp(torch.randn(CLIPS, generator=draw) * 0.38 + math.log(9.6)).round().long().clamp(3, 30)
        return [
            " ".join(WORDS[w] for w in torch.randint(0, len(WORDS), (n,), generator=draw)) for n in lengths.tolist()
        ]
