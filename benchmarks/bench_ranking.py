"""Re-ranking both directions: each pair once and K/V once a video, against a call per query with K/V per pair."""

import statistics
import time

import numpy as np
import torch

from ivcore.metrics.rerank import rerank, unite
from ivcore.models import build_s2

NUM, K, REPEATS = 100, 16, 3


def run() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    model = build_s2("tiny", 100, 0).eval()
    tokens = torch.randn(NUM, 65, 96, generator=generator)
    lengths = torch.randint(8, 33, (NUM,), generator=generator)
    mask = (torch.arange(32)[None] < lengths[:, None]).long()
    with torch.inference_mode():
        states = model.encode_text(torch.randint(5, 100, (NUM, 32), generator=generator) * mask, mask)
    top = [np.stack([np.random.default_rng(s + i).permutation(NUM)[:K] for i in range(NUM)]) for s in (1, 1001)]

    def ours() -> dict[tuple[int, int], float]:
        pairs = unite(*top)
        logits = rerank(model, states, mask, lambda v: tokens[torch.as_tensor(v)], pairs)
        return {(int(t), int(v)): float(x) for (t, v), x in zip(pairs, logits, strict=True)}

    @torch.inference_mode()
    def plain() -> dict[tuple[int, int], float]:
        found = {}
        for text in range(NUM):
            videos = torch.as_tensor(top[0][text])
            logits = model.match(states[[text] * K], mask[[text] * K], model.video_kv(tokens[videos]))[:, 1]
            found.update({(text, int(v)): float(x) for v, x in zip(videos, logits, strict=True)})
        for video in range(NUM):
            texts = torch.as_tensor(top[1][video])
            logits = model.match(states[texts], mask[texts], model.video_kv(tokens[[video] * K]))[:, 1]
            found.update({(int(t), video): float(x) for t, x in zip(texts, logits, strict=True)})
        return found

    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(REPEATS):
        for name, side in (("ours", ours), ("plain", plain)):
            start = time.perf_counter()
            result = side()
            times[name].append(time.perf_counter() - start)
            if name == "ours":
                scores = result
    worst = max(abs(scores[p] - x) for p, x in result.items())
    return [
        {
            "name": "rerank_both_directions_tiny_fp32",
            "ours": statistics.median(times["ours"]),
            "baseline": statistics.median(times["plain"]),
            "unit": "s",
            "spread": {name: [min(t), max(t)] for name, t in times.items()},
            "equal": worst <= 1e-5,
            "how_equal": f"largest difference of a score {worst:.1e} over {len(result)} pairs",
        }
    ]
