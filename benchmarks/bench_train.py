"""Training: an s2 step, a clip step and a clip run on stored tokens, gradient caching in memory.

s2_step_S14          keys and values once and texts without padding, against every pair alone and padded; both masked
s2_step_mask_S14     a fifth of the patches, against all of them
s2_step_bf16_S14     autocast to bfloat16, against float32
s2_step_all_S14      the three together, against the plain float32 step
clip_step_cached_*   tokens from the features artifact and the folded pooling, against trunk and written pooling
clip_run_cached_*    10 epochs on 50 clips: trunk once and steps on stored tokens, against steps on frames
grad_cache_tiny      peak memory of a contrastive step of 512 clips: in chunks of 32, against all at once
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench_models import awake, written_pool
from benchmarks.timing import interleaved, row, seeded
from ivcore.features.featurize import ROW_GROUP_BYTES, lists
from ivcore.features.reader import Features
from ivcore.losses.mlm import mlm_corrupt, mlm_loss
from ivcore.losses.vtc import vtc_loss
from ivcore.losses.vtm import pairs, vtm_loss, vtm_negatives
from ivcore.models import ClipModel, build_clip, build_s2
from ivcore.models.freeze import apply_policy
from ivcore.models.masking import random_drop_mask
from ivcore.store import schemas
from ivcore.store.artifacts import Store

SIZE, REPEATS = "S14", 3
S2_FRAMES, TEXT_LEN, DROP = 4, 32, 0.8
PAIR_BATCH, ALL_BATCH = 16, 4
CLIP_BATCH, WORDS, VOCABULARY = 8, 16, 2000
TEXT = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
RUN_PX, RUN_CLIPS, RUN_BATCH, EPOCHS = 84, 50, 10, 10  # 84 px, so that the slow side ends in a minute


def run() -> list[dict]:
    return [*s2_step(), *clip_step(), clip_run(), grad_cache()]


# s2


def s2_step() -> Iterator[dict]:
    """The same first step in every form; its loss says whether it is the same step."""
    step = _s2_stepper(PAIR_BATCH)
    times, loss = interleaved({"ours": lambda: step(True, DROP), "plain": lambda: step(False, DROP)}, REPEATS)
    apart = (loss["ours"] - loss["plain"]).abs().item()
    yield {
        **row(f"s2_step_{SIZE}", times, "ours", "plain"),
        "equal": apart <= 1e-4 * loss["plain"].item(),
        "how_equal": f"loss {loss['ours']:.5f}, plain {loss['plain']:.5f}; batch {PAIR_BATCH}, {DROP:.0%} masked, "
        f"captions of {step.lengths} tokens (spread as MSR-VTT's) against {TEXT_LEN}",
    }
    step = _s2_stepper(ALL_BATCH)
    sides = {
        "plain": lambda: step(False, 0.0),
        "mask": lambda: step(False, DROP),
        "bf16": lambda: step(False, 0.0, True),
        "all": lambda: step(True, DROP, True),
    }
    times, loss = interleaved(sides, REPEATS)
    for name in ("mask", "bf16", "all"):
        apart = (loss[name] - loss["plain"]).abs().item()
        other = "; a masked step reads a fifth of the patches, so it is another loss by design"
        yield {
            **row(f"s2_step_{name}_{SIZE}", times, name, "plain"),
            "equal": name != "bf16" or apart <= 0.02 * loss["plain"].item(),
            "how_equal": f"loss of the same first step {loss[name]:.4f}, plain {loss['plain']:.4f}, batch {ALL_BATCH}"
            + ("" if name == "bf16" else other),
        }


class _s2_stepper:
    """One forward, backward and AdamW step in the form asked for; gives the loss.

    The learning rate is 0: the optimiser does its work, and every step starts from the same weights.
    """

    def __init__(self, batch: int) -> None:
        self.model = build_s2(SIZE, None, seed=0, num_frames=S2_FRAMES, dropout=0.0).train()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=0.0)
        shape, draw = self.model.vision_encoder.shape, seeded()
        self.video = torch.randn(batch, S2_FRAMES, 3, shape.image_size, shape.image_size, generator=draw)
        lengths = torch.exp(torch.randn(batch, generator=draw) * 0.38 + math.log(9.6)).round().long().clamp(3, TEXT_LEN)
        self.lengths = lengths.tolist()  # mean 10.4, deviation 4.1: MSR-VTT's test captions with [CLS]
        self.mask = (torch.arange(TEXT_LEN) < lengths[:, None]).long()  # [B, L]
        self.ids = torch.randint(5, 30000, self.mask.shape, generator=draw) * self.mask
        self.corrupted = mlm_corrupt(self.ids, self.mask, 30522, 103, (0, 100, 101, 102, 103), 0.5, draw)

    def __call__(self, ours: bool, drop: float, bf16: bool = False) -> Tensor:
        model, samples = self.model, torch.arange(len(self.video))
        masked = random_drop_mask(len(self.video), model.num_patches, drop, seeded()) if drop else None
        length = max(self.lengths) if ours else TEXT_LEN
        ids, mask, corrupted, labels = (x[:, :length] for x in (self.ids, self.mask, *self.corrupted))
        chosen = labels != -100
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            tokens = model.encode_tokens(self.video, masked)
            states = model.encode_text(ids, mask, unpadded=ours)
            both = model.project_video(model.pool(tokens)), model.project_text(states)
            loss = vtc_loss(*both, model.temp, samples)
            negatives = vtm_negatives(*(x.detach() for x in both), model.temp.detach(), samples, seeded())
            if ours:
                kv = model.video_kv(tokens)
                loss = loss + vtm_loss(model, states, mask, kv, *negatives)[0]
                fused = model.fuse_at(model.encode_text(corrupted, mask, unpadded=True), mask, kv, chosen)
            else:  # keys and values of each pair's video, as if each pair were alone
                text, video = pairs(*negatives)
                read = model.fuse(states[text], mask[text], model.video_kv(tokens[video]))
                logits = model.itm_head(read[:, 0]).float()
                loss = loss + F.cross_entropy(logits, (torch.arange(len(text)) < len(samples)).long())
                fused = model.fuse(model.encode_text(corrupted, mask), mask, model.video_kv(tokens))[chosen]
            loss = loss + mlm_loss(model.mlm_logits(fused)[None], labels[chosen][None])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()


# clip


def clip_step() -> Iterator[dict]:
    """A step of pooling, alignment and text tower, the trunk frozen; the same loss from stored tokens."""
    model = _clip_model()
    video, ids = _clips(model, CLIP_BATCH)
    step = _clip_stepper(model)

    def recompute() -> Tensor:
        with torch.no_grad():
            tokens = model.encode_tokens(video)
        return step(model.vision_align(written_pool(model.vision_encoder.clip_projector, tokens)), ids)

    with _stored(model, video, "float32") as exact, _stored(model, video, "float16") as half:

        def cached(features: Features) -> Tensor:
            features._groups.clear()  # read from the file at every step, as where the cache is larger than memory
            features._held = 0
            return step(model.pool(features.tokens(range(CLIP_BATCH))), ids)

        sides = {"fp32": lambda: cached(exact), "fp16": lambda: cached(half), "plain": recompute}
        times, loss = interleaved(sides, REPEATS)
    for name in ("fp32", "fp16"):
        apart = (loss[name] - loss["plain"]).abs().item()
        yield {
            **row(f"clip_step_cached_{SIZE}_{name}", times, name, "plain"),
            "equal": apart <= 1e-4,
            "how_equal": f"losses {apart:.1e} apart ({loss['plain']:.5f}); batch {CLIP_BATCH}, tokens in {name}, read "
            "from the file at every step",
        }


def clip_run() -> dict:
    """Whole runs, the making of the cache included; the last losses say whether they are the same run."""
    took, last = {}, {}
    for side in ("ours", "plain"):
        model = _clip_model(image_size=RUN_PX)
        video, ids = _clips(model, RUN_CLIPS)
        step = _clip_stepper(model, lr=1e-4)
        orders = [torch.randperm(RUN_CLIPS, generator=seeded()).split(RUN_BATCH) for _ in range(EPOCHS)]
        start = time.perf_counter()
        if side == "ours":
            with _stored(model, video, "float32") as features:
                for rows in (rows for order in orders for rows in order):
                    last[side] = step(model.pool(features.tokens(rows.tolist())), ids[rows])
        else:
            for rows in (rows for order in orders for rows in order):
                with torch.no_grad():
                    tokens = model.encode_tokens(video[rows])
                pooled = written_pool(model.vision_encoder.clip_projector, tokens)
                last[side] = step(model.vision_align(pooled), ids[rows])
        took[side] = [time.perf_counter() - start]
    apart = (last["ours"] - last["plain"]).abs().item()
    return {
        **row(f"clip_run_cached_{SIZE}", took, "ours", "plain"),
        "equal": apart <= 1e-3,
        "how_equal": f"losses of the last of {EPOCHS * RUN_CLIPS // RUN_BATCH} steps {apart:.1e} apart "
        f"({last['plain']:.4f}); {RUN_CLIPS} clips at {RUN_PX} px, {EPOCHS} epochs, float32",
    }


def _clip_model(**overrides: Any) -> ClipModel:
    model = awake(build_clip(SIZE, VOCABULARY, seed=0, **TEXT, **overrides))
    apply_policy(model, "clip_text")
    return model.train()


def _clips(model: ClipModel, num: int) -> tuple[Tensor, Tensor]:
    """Noise as videos, float32 [num, T, 3, H, W], and captions of WORDS words, the last the end of text."""
    shape, draw = model.vision_encoder.shape, seeded()
    video = torch.randn(num, shape.num_frames, 3, shape.image_size, shape.image_size, generator=draw)
    ids = torch.randint(1, VOCABULARY - 1, (num, WORDS), generator=draw)
    ids[:, -1] = VOCABULARY - 1
    return video, ids


def _clip_stepper(model: ClipModel, lr: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=lr)

    def step(video: Tensor, ids: Tensor) -> Tensor:
        loss = vtc_loss(video, model.encode_text(ids), model.temp, torch.arange(len(ids)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


@contextmanager
def _stored(model: ClipModel, video: Tensor, dtype: str) -> Iterator[Features]:
    """The trunk's tokens as `featurize` keeps them."""
    with torch.no_grad():
        tokens = torch.cat([model.encode_tokens(some) for some in video.split(CLIP_BATCH)]).numpy().astype(dtype)
    kind = schemas.features(*tokens.shape[1:], 1, dtype)
    names = pa.array([str(n) for n in range(len(tokens))])
    columns = [names, schemas.packed(tokens), lists(tokens[:, 0, :1].astype("float32"))]
    table = pa.table(columns, names=["clip_id", "tokens", "pooled"])
    group = max(1, ROW_GROUP_BYTES // tokens[0].nbytes)
    with tempfile.TemporaryDirectory() as home:
        with Store(Path(home)).write("features", "bench", 1, {"dtype": dtype}, {}) as draft:
            path = draft.path / "features.parquet"
            schemas.write(path, table, kind, compression="none", use_dictionary=False, row_group_size=group)
            draft.facts.update(num_tokens=tokens.shape[1], width=tokens.shape[2], pooled=1)
            draft.count(len(tokens))
        assert draft.artifact is not None
        yield Features(draft.artifact)


# gradient caching


GRAD_CACHE = """
import json, sys
import torch
from ivcore.video.frames import normalise
from ivcore.losses.vtc import vtc_loss
from ivcore.models import build_clip
from ivcore.train.gradient_cache import cached_backward
batch, chunk, gradients = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(2)
draw = torch.Generator().manual_seed(0)
model = build_clip("tiny", 200, seed=0).train()
frames = torch.randint(0, 256, (batch, 8, 32, 32, 3), generator=draw, dtype=torch.uint8)
ids = torch.randint(3, 200, (batch, 12), generator=draw)
def encode(rows):
    return (model.encode_video(normalise(frames[rows])), model.encode_text(ids[rows])), None
def loss(video, text):
    return {"vtc": vtc_loss(video, text, model.temp, torch.arange(len(video)))}
def total(losses):
    return losses["vtc"]
def resident(what):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024
cached_backward(encode, [slice(0, 2)], loss, total)  # libraries loaded, gradients there
model.zero_grad(set_to_none=False)
before = resident("VmRSS")
if chunk < batch:
    value = cached_backward(encode, [slice(s, s + chunk) for s in range(0, batch, chunk)], loss, total)["vtc"]
else:
    value = loss(*encode(slice(0, batch))[0])["vtc"]
    value.backward()
peak = resident("VmHWM") - before
torch.save({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, gradients)
print(json.dumps({"peak": peak, "loss": value.item()}))
"""


def grad_cache() -> dict:
    """Three processes: 64 at once (the bound), 512 at once (the baseline), 512 in chunks of 32 (ours)."""
    found, gradients = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for side, batch, chunk in (("bound", 64, 64), ("plain", 512, 512), ("ours", 512, 32)):
            path = Path(folder) / side
            command = [sys.executable, "-c", GRAD_CACHE, str(batch), str(chunk), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
            found[side], gradients[side] = json.loads(done.stdout), torch.load(path, weights_only=True)
    ours, plain = gradients["ours"], gradients["plain"]
    apart = max(((ours[n] - g).norm() / max(g.norm(), 1e-6)).item() for n, g in plain.items())
    within = found["ours"]["peak"] / found["bound"]["peak"]
    return {
        "name": "grad_cache_tiny",
        "ours": round(found["ours"]["peak"], 1),
        "baseline": round(found["plain"]["peak"], 1),
        "unit": "MB",
        "spread": {side: [found[side]["peak"]] * 2 for side in ("ours", "plain")},
        "peak_of_64_mb": round(found["bound"]["peak"], 1),
        "equal": apart <= 1e-5 and within <= 1.2 and ours.keys() == plain.keys(),
        "how_equal": f"gradients of 512 at once and in chunks {apart:.1e} apart (relative, the worst tensor); peak "
        f"{within:.2f} of that of 64 at once",
    }
