"""What saving the state of an unfinished phase costs: its share of the time at `tiny`, and the longest wait at B14."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.models import build_s2
from ivcore.retrieval.embed import Encoder
from ivcore.text.tokenizer import Tokenizer
from ivcore.train.batches import Batch
from ivcore.train.loop import Loop
from ivcore.train.optimizer import adamw
from ivcore.train.state import States, model_and_optimiser

EVERY, BATCH, REPEATS = 100, 64, 3
SAVES, GAP, AFTER = 8, 50, 25  # states that are timed, steps between two, steps in which one is written for certain
CAPTIONS = [f"a {c} {s} moves {d}" for c in ("red", "blue", "green") for s in ("disc", "ring") for d in ("up", "left")]


class Clips:
    """Noise, as `Frames` gives it."""

    clip_ids = tuple(f"clip-{i}" for i in range(BATCH))
    frames = torch.randint(0, 256, (BATCH, 8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def batch(self, rows: list[int], views: list[int]) -> torch.Tensor:
        return self.frames[rows]


def tiny(place: Path, every: int, steps: int) -> tuple[list[float], list[float]]:
    """When each step of a run of three losses began, in seconds, and the losses at its end."""
    phase = Phase(name="bench", steps=steps, vtm=1.0, mlm=1.0)
    stage = StageConfig(phases=(phase,), batch_size=BATCH)
    train = TrainConfig(threads=torch.get_num_threads(), save_every_steps=every, save_every_min=0)
    tokenizer = Tokenizer.train(CAPTIONS, 100, "bert")
    model = build_s2("tiny", tokenizer.vocab_size, 0).train()
    encoder = Encoder(model, tokenizer, 32, torch.device("cpu"), torch.float32)
    loop = Loop(encoder, Clips(), train, stage, phase)  # type: ignore[arg-type]
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(BATCH)]
    batch = Batch(list(range(BATCH)), captions, torch.arange(BATCH), "en/short")
    begun: list[float] = []

    def batches() -> Iterator[Batch]:
        for _ in range(steps):
            begun.append(time.perf_counter())
            yield batch

    loop.run(batches(), lambda figures, step: None, place)
    return begun, [loop.totals.figures[n] for n in ("loss/vtc", "loss/vtm", "loss/mlm")]


def share() -> dict:
    """The steps after each state against those before it: a machine that is slower for a while is so for both."""
    with tempfile.TemporaryDirectory() as place:
        begun, _ = tiny(Path(place), GAP, (SAVES + 1) * GAP)
        equal = tiny(Path(place) / "saved", 5, 12)[1] == tiny(Path(place) / "never", 0, 12)[1]
    saved = range(GAP, SAVES * GAP + 1, GAP)  # the step that begins after a save; the save itself is before it
    extra = [begun[at + AFTER - 1] - begun[at - 1] - (begun[at - 1] - begun[at - 1 - AFTER]) for at in saved]
    step = statistics.median(b - a for a, b in itertools.pairwise(begun))
    return {
        "name": "train_checkpoint_share",
        "ours": EVERY * step + statistics.median(extra),
        "baseline": EVERY * step,
        "unit": f"s for {EVERY} steps (batch {BATCH}, three losses) and a state; baseline: the steps",
        "equal": equal,
        "how_equal": "the losses of the last of 12 steps, to the bit",
        "spread": {"ours": [EVERY * step + min(extra), EVERY * step + max(extra)]},
    }


def stall() -> dict:
    """The update after a save waits for the copy; the copy runs beside forward and backward, here of one clip."""
    model = build_s2("B14", None, 0).train()
    phase = Phase(name="bench", steps=10, vtm=1.0, mlm=1.0)
    optimiser = adamw(model, StageConfig(phases=(phase,)), phase)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in named.values():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimiser.step()  # makes the moments
    video = torch.zeros(1, 8, 3, 224, 224)
    waits, blocks = [], []
    with tempfile.TemporaryDirectory() as place:
        for step in range(REPEATS):
            states = States(Path(place), keep=1)
            start = time.perf_counter()
            states.save(step, model_and_optimiser(named, optimiser), {})
            begun = time.perf_counter() - start
            model.encode_tokens(video).sum().backward()
            start = time.perf_counter()
            states.wait_copied()
            waits.append(begun + time.perf_counter() - start)
            states.close()
            start = time.perf_counter()
            tensors, _ = States(Path(place), 1).latest() or ({}, {})
            equal = all(torch.equal(tensors[f"model/{n}"], p) for n, p in named.items())
            del tensors
            start = time.perf_counter()
            states = States(Path(place), keep=1)  # the plain way: save and wait
            states.save(step, model_and_optimiser(named, optimiser), {})
            states.wait()
            blocks.append(time.perf_counter() - start)
            states.close()
    size = sum(t.numel() * t.element_size() for t in model_and_optimiser(named, optimiser).values())
    return {
        "name": "train_checkpoint_stall_B14",
        "ours": max(waits),
        "baseline": statistics.median(blocks),
        "unit": f"s that the loop waits, at most, for a state of {size / 2**30:.1f} GB; baseline: written in the loop",
        "equal": equal,
        "how_equal": "the state read back against the parameters, to the bit",
        "spread": {"ours": [min(waits), max(waits)], "baseline": [min(blocks), max(blocks)]},
    }


def run() -> list[dict]:
    return [share(), stall()]
