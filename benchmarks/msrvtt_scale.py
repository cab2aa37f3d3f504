"""The scoring step at MSRVTT's size: `python -m benchmarks.msrvtt_scale MSRVTT_JSFUSION_test.csv [float32|bfloat16]`.

Real captions give the lengths (words and [CLS]); features, states and similarities are random, of true size: 1,000 x
1,000, k = 128, 1,025 tokens x 384 into a fusion of 4 layers, 256 wide. Everything from vectors and tokens to the
figures of sim, dsl and match in both directions is timed.
"""

import csv
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.bench_rerank import TOKENS, WIDTH, fusion_model
from ivcore.retrieval.heads import dsl, dual_weights, matched
from ivcore.retrieval.ranking import compute, grades, rank
from ivcore.retrieval.rerank import rerank, unite

K = 128


@torch.inference_mode()
def main(annotation: str, dtype_name: str = "float32") -> None:
    dtype = getattr(torch, dtype_name)
    with Path(annotation).open(newline="", encoding="utf-8") as f:
        lengths = torch.tensor([1 + len(row["sentence"].split()) for row in csv.DictReader(f)]).clamp(max=32)
    num = len(lengths)
    g = torch.Generator().manual_seed(0)
    model = fusion_model()
    tokens = torch.empty(num, TOKENS, WIDTH, dtype=dtype)
    for some in tokens.split(50):
        some.copy_(torch.randn(some.shape, generator=g))
    mask = (torch.arange(int(lengths.max()))[None] < lengths[:, None]).long()
    states = model.encode_text(torch.randint(5, 1000, mask.shape, generator=g) * mask, mask)
    video = F.normalize(torch.randn(num, 512, generator=g), dim=1)
    text = F.normalize(video + 1.5 * torch.randn(num, 512, generator=g), dim=1)
    truth = np.stack([np.arange(num)] * 2, axis=1)

    start = time.perf_counter()
    sides = {"t2v": (text, video), "v2t": (video, text)}
    weights = dict(zip(("v2t", "t2v"), dual_weights(text, video)))
    found = {}
    for side, (q, c) in sides.items():
        found["sim", side] = rank(lambda a, b, q=q, c=c: q[a:b] @ c.T, num, truth, K)
        found["dsl", side] = rank(lambda a, b, q=q, c=c, w=weights[side]: dsl(q[a:b] @ c.T, w), num, truth, K)
    tops = {side: found["sim", side].top for side in sides}
    pairs = unite(tops["t2v"], tops["v2t"])
    began = time.perf_counter()
    logits = rerank(model, states, mask, lambda v: tokens[torch.from_numpy(v)], pairs, dtype)
    reranked = time.perf_counter() - began
    every = torch.zeros(num, num)
    every[pairs[:, 0], pairs[:, 1]] = logits
    for side, scores in (("t2v", every), ("v2t", every.T)):
        mine = matched(tops[side], scores.gather(1, torch.from_numpy(tops[side])), num)
        found["match", side] = rank(lambda a, b, s=mine: s[a:b], num, truth, K)
    figures = {
        name: {**compute(f.best), "map": 100 * grades(truth[:, 0], f.pair_rank)[0].mean()} for name, f in found.items()
    }
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(", ".join(f"{'/'.join(name)} R@1 {f['r1']:.1f}" for name, f in figures.items()), file=sys.stderr)
    print(
        f"scoring: {num} x {num}, k={K}, {len(pairs)} pairs of {float(lengths.float().mean()):.1f} tokens, "
        f"{dtype_name}, {torch.get_num_threads()} threads: {took:.1f} s (rerank {reranked:.1f} s), peak {peak:.2f} GB"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
