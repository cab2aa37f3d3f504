"""What a GPU makes of our own code: every table of docs/gpu.md, each against the plain form and the card's own peak.

Without CUDA this is a rehearsal: the same code at size tiny, printed, and nothing of it is kept.

gpu_vision_*       forward of the tower, bf16; plain: scores written out, unfused norms
gpu_rerank_*       both directions; plain: a call a query, keys and values for each candidate, texts padded to 40
gpu_query_*        one served query, k candidates of 10,000 videos whose tokens lie on the card; plain: as upstream
gpu_featurize_*    the step from shards to file; the other side is the bare forward
gpu_step_*         a training step of the real loop; the other side is the sum of its kernels
gpu_chain_demo     ingest to score of the demo, without servers; the other side is two CPU cores
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks import gpu_models
from benchmarks.bench_models import _flop, _write_out
from ivcore import steps
from ivcore.checkpoints.checkpoint import save
from ivcore.config import load, variants
from ivcore.features.featurize import write_features
from ivcore.models import S2Model
from ivcore.retrieval.rerank import rerank, unite
from ivcore.retrieval.serving import Matcher
from ivcore.store.artifacts import Draft, Store
from ivcore.text.tokenizer import Tokenizer

CARD = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CARD else "cpu")
PADDED = 40
CHAIN_TWO_CORES_S = 246.0  # the same steps on two cores of an AMD EPYC, see reference figures in docs/gpu.md
VISION = [("1B", 4, 32), ("B14", 8, 64), ("S14", 8, 64), ("L14", 8, 32)] if CARD else [("tiny", 8, 4)]
RERANK = [("S14", 200, 64), ("1B", 200, 32), ("1B", 1000, 128)] if CARD else [("tiny", 40, 8)]
FEATURES = [("B14", 8, 504), ("1B", 4, 504)] if CARD else [("tiny", 8, 12)]
QUERY = [("1B", 10_000, 32)] if CARD else [("tiny", 100, 8)]
SMALL = [
    "data.synthetic.train_clips=48",
    "data.synthetic.val_clips=8",
    "data.synthetic.test_clips=8",
    "train.s2.batch_size=16",
    "train.clip.batch_size=16",
    'train.s2.phases=[{name="all", steps=4, warmup_steps=0, vtm=1.0, mlm=1.0, token_drop=0.5}]',
    'train.clip.phases=[{name="pooler", steps=3, warmup_steps=0, trainable="clip"}]',
]
STEPS = (
    [("s2", "1B", 64), ("s2", "B14", 256), ("clip", "S14", 256)] if CARD else [("s2", "tiny", 8), ("clip", "tiny", 8)]
)


def run() -> list[dict]:
    peak = matmul_peak()
    rows = []
    tables = (vision, VISION), (rerank_both, RERANK), (query, QUERY), (features, FEATURES), (train_step, STEPS)
    for part, cases in (*tables, (chain, [()])):
        for row in (part(*case) for case in cases):
            row["card"] = torch.cuda.get_device_name() if CARD else "none: a rehearsal"
            if "tflop" in row:
                row["tflops"] = round(row["tflop"] / seconds(row), 2)
                row["share_of_peak"] = round(row["tflop"] * 1e12 / seconds(row) / peak, 3)
            row["peak_tflops"] = round(peak / 1e12, 1)
            print(f"{row['name']:<28} {row['ours']:.4g} {row['unit']}  {row.get('share_of_peak', '')}", file=sys.stderr)
            rows.append(row)
            free()
    if not CARD:
        print(f"gpu: a rehearsal without CUDA, {len(rows)} rows made, none kept", file=sys.stderr)
        return []
    return rows


def seconds(row: dict) -> float:
    return row["ours"] / {"s": 1, "ms": 1e3}[row["unit"]]


def wait() -> None:
    if CARD:
        torch.cuda.synchronize()


def free() -> None:
    gc.collect()
    if CARD:
        torch.cuda.empty_cache()


def timed(work: Callable[[], Any], repeats: int = 5, warm: int = 1) -> list[float]:
    """Seconds of each run, the device waited for."""
    out = []
    for _ in range(warm + repeats):
        wait()
        start = time.perf_counter()
        work()
        wait()
        out.append(time.perf_counter() - start)
    return out[warm:]


def told(name: str, ours: list[float], plain: list[float], unit: str = "s", **more: Any) -> dict:
    scale = {"s": 1, "ms": 1e3}[unit]
    spread = {"ours": [scale * min(ours), scale * max(ours)], "plain": [scale * min(plain), scale * max(plain)]}
    middle = scale * statistics.median(ours), scale * statistics.median(plain)
    return {"name": name, "ours": middle[0], "baseline": middle[1], "unit": unit, "spread": spread, **more}


def kernels(work: Callable[[], Any]) -> tuple[int, float, float]:
    """(kernels launched, seconds the card was busy, seconds from start to end) of one run."""
    kinds = [ProfilerActivity.CUDA] if CARD else [ProfilerActivity.CPU]
    wait()
    with profile(activities=kinds) as seen:
        start = time.perf_counter()
        work()
        wait()
        whole = time.perf_counter() - start
    events = seen.key_averages()
    busy = sum(e.self_device_time_total if CARD else e.self_cpu_time_total for e in events) / 1e6
    return sum(e.count for e in events), busy, whole


def matmul_peak() -> float:
    """FLOP/s of a square bf16 product."""
    edge = 8192 if CARD else 512
    a, b = (torch.randn(edge, edge, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * edge**3 / statistics.median(timed(lambda: a @ b, 10, 3))


@torch.inference_mode()
def vision(size: str, frames: int, batch: int) -> dict:
    model = gpu_models.filled("s2", size, DEVICE, num_frames=frames).eval().to(torch.bfloat16)
    tower, shape = model.vision_encoder, model.vision_encoder.shape
    video = torch.randn(batch, frames, 3, shape.image_size, shape.image_size, device=DEVICE, dtype=torch.bfloat16)
    for block in tower.blocks if CARD else []:  # as featurize runs it
        block.compile(dynamic=False)
    ours, out = timed(lambda: tower(video), warm=2), tower(video).float()
    for block in tower.blocks:
        block._compiled_call_impl = None
    _write_out(model)
    plain, expected = timed(lambda: tower(video), 3), tower(video).float()
    apart = float((out - expected).abs().max() / expected.abs().max())
    return told(
        f"gpu_vision_{size}_f{frames}", ours, plain, "ms",
        equal=apart < 0.05, how_equal=f"largest difference {apart:.1e} of the largest entry, both bf16",
        tflop=_flop(shape, batch) / 1e12, batch=batch, tokens=1 + shape.num_patches,
    )  # fmt: skip


def queries(model: S2Model, num: int, k: int) -> tuple[Tensor, Tensor, Tensor, np.ndarray, np.ndarray]:
    """(states [T, 40, H] on the CPU, mask, tokens [V, N, C] on the device, both directions' candidates)."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(6, 19, (num,), generator=draw)
    mask = (torch.arange(PADDED) < lengths[:, None]).long()
    ids = torch.randint(5, 100 if not CARD else 30000, (num, PADDED), generator=draw) * mask
    parts = [model.encode_text(ids[i : i + 64].to(DEVICE), mask[i : i + 64].to(DEVICE)) for i in range(0, num, 64)]
    tokens = torch.randn(num, 1 + model.num_patches, model.vision_encoder.shape.width, device=DEVICE).bfloat16()
    sim = torch.rand(num, num, generator=draw)
    return torch.cat(parts).cpu(), mask, tokens, sim.topk(k).indices.numpy(), sim.T.topk(k).indices.numpy()


@torch.inference_mode()
def rerank_both(size: str, num: int, k: int) -> dict:
    """Cold is the first run in the process of these shapes, warm the median of those after it."""
    model = gpu_models.filled("s2", size, DEVICE, num_frames=4 if CARD else 8).eval()
    states, mask, tokens, t2v, v2t = queries(model, num, k)
    pairs, out = unite(t2v, v2t), {}

    def ours() -> None:
        where = torch.from_numpy
        out["ours"] = rerank(model, states, mask, lambda v: tokens[where(v).to(DEVICE)], pairs, torch.bfloat16)

    cold = timed(ours, 1, 0)
    warm = timed(ours, 3, 0)
    half = gpu_models.filled("s2", size, DEVICE, num_frames=4 if CARD else 8).eval().to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    asked = range(0, num, max(1, num // 10))

    def plain() -> None:
        on_card, seen = states.to(DEVICE, torch.bfloat16), mask.to(DEVICE)
        found = []
        for text in asked:
            videos = torch.from_numpy(t2v[text]).to(DEVICE)
            for part in videos.split(64):
                some = on_card[text].expand(len(part), -1, -1), seen[text].expand(len(part), -1)
                found.append(half.match(*some, half.video_kv(tokens[part]))[:, 1].float())
        out["plain"] = torch.cat(found).cpu()

    slow = [s / len(asked) * 2 * num for s in timed(plain, 2, 1)]
    place = {tuple(pair): n for n, pair in enumerate(pairs.tolist())}
    same = torch.tensor([float(out["ours"][place[t, v]]) for t in asked for v in t2v[t].tolist()])
    worst, deviation = float((same - out["plain"]).abs().max()), float(out["plain"].std())
    launched, busy, _ = kernels(ours)
    return told(
        f"gpu_rerank_{size}_{num}_k{k}", warm, slow,
        equal=worst < 0.2 * deviation,
        how_equal=f"largest difference {worst:.1e}, scores' deviation {deviation:.2f}; every tenth text is timed",
        cold_s=round(cold[0], 4), pairs=len(pairs), kernels=launched, busy_s=round(busy, 4),
    )  # fmt: skip


@torch.inference_mode()
def query(size: str, videos: int, k: int) -> dict:
    model = gpu_models.filled("s2", size, DEVICE, num_frames=4 if CARD else 8).eval().to(torch.bfloat16)
    tokens = torch.zeros(
        videos, 1 + model.num_patches, model.vision_encoder.shape.width, device=DEVICE, dtype=torch.bfloat16
    )
    for part in tokens.split(500):
        part.normal_()
    draw = np.random.default_rng(0)
    ids, mask = torch.randint(5, 100, (1, 12), device=DEVICE), torch.ones(1, 12, dtype=torch.int64, device=DEVICE)
    matcher = Matcher(model, lambda v: tokens[torch.from_numpy(v).to(DEVICE)], 0)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        found["ours"] = matcher(model.encode_text(ids, mask)[0], top)

    def plain() -> None:
        states = model.encode_text(ids, mask).expand(k, -1, -1)
        kv = model.video_kv(tokens[torch.from_numpy(top).to(DEVICE)])
        found["plain"] = model.match(states, mask.expand(k, -1), kv)[:, 1].float().cpu()

    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(60 if CARD else 6):
        top = draw.choice(videos, k, replace=False)
        for name, work in (("ours", ours), ("plain", plain)):
            took = timed(work, 1, 0)
            times[name] += took if number > 2 else []
    worst = float((found["ours"] - found["plain"]).abs().max())
    return told(
        f"gpu_query_{size}_k{k}", times["ours"], times["plain"], "ms",
        equal=worst < 0.2 * max(0.1, float(found["plain"].std())), how_equal=f"largest difference {worst:.1e} in bf16",
        p95_ms=round(1e3 * float(np.percentile(times["ours"], 95)), 3), videos=videos,
    )  # fmt: skip


def train_step(kind: str, size: str, batch: int) -> dict:
    """Steps of the real loop, from the loader on; the other side: the seconds in which the card computed."""
    loop = gpu_models.StepRunner(kind, size, batch, DEVICE)
    loop.steps(4)  # compiles, finds its memory
    num = 10 if CARD else 2
    took = [t / num for t in timed(lambda: loop.steps(num), 3, 0)]
    launched, busy, whole = kernels(lambda: loop.steps(num))
    return told(
        f"gpu_step_{kind}_{size}_b{batch}", took, [busy / num], "ms",
        equal=True, how_equal="the same steps; the other side is the time in which the card computed",
        tflop=loop.gflop_a_step / 1e3, clips_s=round(batch / statistics.median(took), 1),
        kernels=launched // num, busy_share=round(busy / whole, 3),
        memory_gb=round(torch.cuda.max_memory_allocated() / 1e9, 1) if CARD else None,
    )  # fmt: skip


def features(size: str, num_frames: int, clips: int) -> dict:
    """featurize of made-up videos, from the shards to the written file, against the bare forward of as many batches."""
    px, batch = (224, 32) if CARD else (32, 8)
    sets = [f"frames.size_px={px}", f"frames.num_frames={num_frames}", f"features.batch_size={batch}"]
    sets += [f"data.synthetic.train_clips={clips}", "data.synthetic.val_clips=4", "data.synthetic.test_clips=4"]
    ((_, _, c),) = variants(load("demo", [*sets, f"train.dtype={'bfloat16' if CARD else 'float32'}"]))
    tokenizer = Tokenizer.train(["a red disc moves to the left"] * 3, 40, "bert")
    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home))
        frames = steps.run(steps.decode(store, c.data, c.frames, steps.run(steps.ingest(store, c.data), store)), store)
        model = gpu_models.filled("s2", size, DEVICE, tokenizer.vocab_size, num_frames=num_frames).eval()
        with store.write("s2", "made-up", 0, {}, {}) as draft:
            save(model.cpu(), tokenizer, draft.path)
        tower = model.on(DEVICE).bfloat16().vision_encoder
        for block in tower.blocks if CARD else []:
            block.compile(dynamic=False)
        video = torch.randn(batch, num_frames, 3, px, px, device=DEVICE, dtype=torch.bfloat16)
        with torch.inference_mode():
            bare = [statistics.median(timed(lambda: tower(video))) * frames.rows / batch]
        number = iter(range(9))

        def ours() -> None:
            folder = Path(home) / f"out-{next(number)}"
            folder.mkdir()
            given = (c.features, c.train, frames, draft.artifact, lambda *_: None, {"none": 1})
            write_features(Draft(folder), store, *given)

        took = timed(ours, 2, 1)
    return told(
        f"gpu_featurize_{size}_f{num_frames}", took, bare,
        equal=True, how_equal="the other side is the forward alone, of as many batches", clips=frames.rows,
    )  # fmt: skip


def chain() -> dict:
    """The demo's own steps, one after another, in a workspace that is thrown away."""
    config = load("demo", [] if CARD else SMALL)
    each: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home))

        def do(step: steps.Step) -> Any:
            start = time.perf_counter()
            out = steps.run(step, store)
            each[f"{step.name} {step.label}".strip()] = round(time.perf_counter() - start, 2)
            return out

        ((_, _, c),) = list(variants(config))
        manifest = do(steps.ingest(store, c.data))
        frames = do(steps.decode(store, c.data, c.frames, manifest))
        found = {}
        for name, begin, phases in (
            ("s2", steps.fit_s2, c.train.s2.phases),
            ("clip", steps.fit_clip, c.train.clip.phases),
        ):
            last = found.get("s2")
            for phase in phases:
                inputs = frames
                if phase.reads_features:
                    inputs = do(steps.featurize(store, c.features, c.train, frames, last))
                last = do(begin(store, c.model, c.train, phase, manifest, inputs, last, c.features))
            found[name] = last
        features = do(steps.featurize(store, c.features, c.train, frames, found["s2"]))
        for checkpoint in found.values():
            do(steps.score(store, c.eval, c.train, manifest, features, checkpoint))
    ours = sum(s for name, s in each.items() if name.split()[0] in ("fit_s2", "fit_clip", "featurize", "score"))
    return told(
        "gpu_chain_demo", [ours], [CHAIN_TWO_CORES_S],
        equal=True, how_equal="the same steps of the same run; on another device other bytes", each_s=each,
    )  # fmt: skip
