"""A loop on made-up clips and captions, without files: for tests of the loop that need no pipeline before it."""

import torch

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.models import build_clip, build_s2
from ivcore.retrieval.embed import Encoder
from ivcore.text.tokenizer import Tokenizer
from ivcore.train.batches import Batch
from ivcore.train.loop import Loop
from ivcore.train.parallel import ALONE
from ivcore.train.random_draws import Draws

WORDS = [
    "a",
    "red",
    "green",
    "blue",
    "small",
    "large",
    "square",
    "disc",
    "ring",
    "moves",
    "left",
    "right",
    "up",
    "down",
    "over",
    "under",
    "beside",
    "the",
]
CLIPS = 48


class Clips:
    """CLIPS clips of noise that leans to a colour of its own, as `Frames` gives them."""

    def __init__(self):
        draw = torch.Generator().manual_seed(1)
        colour = torch.randint(0, 200, (CLIPS, 1, 1, 1, 3), generator=draw)
        self.frames = (colour + torch.randint(0, 56, (CLIPS, 8, 32, 32, 3), generator=draw)).to(torch.uint8)
        self.clip_ids = [f"clip-{i:02}" for i in range(CLIPS)]

    def batch(self, rows, views=()):
        return self.frames[rows]


def captions():
    """One caption a clip, of 3 to 14 words."""
    draw = torch.Generator().manual_seed(2)
    pick = [torch.randint(0, len(WORDS), (3 + i % 12,), generator=draw).tolist() for i in range(CLIPS)]
    return [" ".join(WORDS[w] for w in one) for one in pick]


def batches(steps, batch_size=16):
    """Random batches, families of 4."""
    draw, texts = torch.Generator().manual_seed(3), captions()
    for _ in range(steps):
        rows = torch.randperm(CLIPS, generator=draw)[:batch_size].tolist()
        yield Batch(rows, [texts[r] for r in rows], torch.tensor([r // 4 for r in rows]), "en/short")


def phase(kind, steps=30, **fields):
    """All three losses of s2, or clip with its text tower; with every kind of draw there is."""
    own = (
        {"vtm": 1.0, "mlm": 1.0, "token_drop": 0.5, "even_negatives": 0.3}
        if kind == "s2"
        else {"trainable": "clip_trunk"}
    )
    return Phase(**{"name": "made_up", "steps": steps, "warmup_steps": 3, **own, **fields})


def parts(kind, dropout=0.1):
    """(model in training mode, tokenizer); with dropout and stochastic depth, which the tiny size has not."""
    if kind == "s2":
        tokenizer = Tokenizer.train(captions(), 200, "bert")
        return build_s2("tiny", tokenizer.vocab_size, 0, dropout=dropout, drop_path=dropout).train(), tokenizer
    tokenizer = Tokenizer.train(captions(), 200, "llama")
    return build_clip("tiny", tokenizer.vocab_size, 0, drop_path=dropout).train(), tokenizer


def draws(part=0, parts=1, step=0):
    """Those of the loop below."""
    return Draws(0, "made_up", step, 32, part, parts)


def loop(kind, phase, stage=None, ranks=None, dropout=0.1, device="cpu", **train):
    """A loop at its beginning."""
    from ivcore.models.freeze import apply_policy

    torch.set_num_threads(1)
    model, tokenizer = parts(kind, dropout)
    apply_policy(model, phase.trainable)
    stage = StageConfig(phases=(phase,), **{"lr": 1e-3, "batch_size": 16, **(stage or {})})
    train = TrainConfig(**{"threads": 1, "save_every_min": 0, **train})
    device = torch.device(device)
    encoder = Encoder(model.to(device), tokenizer, 32, device, getattr(torch, train.dtype))
    return Loop(encoder, Clips(), train, stage, phase, ranks or ALONE)
