"""What saving the state of an unfinished phase costs: its share of the time at `tiny`, and the longest wait at B14."""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.data.tokenizer import Tokenizer
from ivcore.models import build_s2
from ivcore.train.batches import Batch
from ivcore.train.loop import Loop
from ivcore.train.optim import adamw
from ivcore.train.state import States, model_and_optimiser

STEPS, EVERY, BATCH, REPEATS = 120, 100, 64, 3
CAPTIONS = [f"a {c} {s} moves {d}" for c in ("red", "blue", "green") for s in ("disc", "ring") for d in ("up", "left")]


class Clips:
    """Noise, as `Frames` gives it."""

    clip_ids = tuple(f"clip-{i}" for i in range(BATCH))
    frames = torch.randint(0, 256, (BATCH, 8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def batch(self, rows: list[int], views: list[int]) -> torch.Tensor:
        return self.frames[rows]


def tiny(place: Path, every: int) -> tuple[float, list[float]]:
    """Seconds of a run of three losses, and the losses at its end."""
    phase = Phase(name="bench", steps=STEPS, vtm=1.0, mlm=1.0)
    stage = StageConfig(phases=(phase,), batch_size=BATCH)
    train = TrainConfig(threads=torch.get_num_threads(), save_every_steps=every, save_every_min=0)
    tokenizer = Tokenizer.train(CAPTIONS, 100, "bert")
    model = build_s2("tiny", tokenizer.vocab_size, 0).train()
    loop = Loop(model, tokenizer, Clips(), train, stage, phase, 32, torch.device("cpu"))  # type: ignore[arg-type]
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(BATCH)]
    batch = Batch(list(range(BATCH)), captions, torch.arange(BATCH), "en/short")
    start = time.perf_counter()
    loop.run((batch for _ in range(STEPS)), lambda figures, step: None, place)
    return time.perf_counter() - start, [loop.tally.figures[n] for n in ("loss/vtc", "loss/vtm", "loss/mlm")]


def share() -> dict:
    times: dict[int, list[float]] = {EVERY: [], 0: []}
    ends: dict[int, list[float]] = {}
    for repeat in range(REPEATS):
        for every in (EVERY, 0) if repeat % 2 else (0, EVERY):  # who goes first may find a warmer machine
            with tempfile.TemporaryDirectory() as place:
                seconds, ends[every] = tiny(Path(place), every)
            times[every].append(seconds)
    return {
        "name": "train_checkpoint_share",
        "ours": statistics.median(times[EVERY]),
        "baseline": statistics.median(times[0]),
        "unit": f"s for {STEPS} steps (batch {BATCH}, three losses), a state every {EVERY}; baseline: none",
        "equal": ends[EVERY] == ends[0],
        "how_equal": "the losses of the last step, to the bit",
        "spread": {"ours": [min(times[EVERY]), max(times[EVERY])], "baseline": [min(times[0]), max(times[0])]},
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
