"""Re-ranking both directions: each pair once and K/V once a video, against a call per query with K/V per candidate.

The other side is upstream's form, kindly done: one call a query over its k candidates, texts padded to 40, keys and
values projected for each candidate; with torch's fused attention, which upstream does without.
"""

import time

import numpy as np
import torch

from ivcore.models import S2Model, build_s2
from ivcore.retrieval.rerank import rerank, unite

NUM, K, PADDED, TOKENS, WIDTH = 200, 32, 40, 1025, 384
EVERY = 5  # of the plain form's 2 x 200 calls every fifth is run, and its time taken times five; each costs the same
ROUNDS = 4


def fusion_model() -> S2Model:
    """S14-sized tokens into a fusion of 4 layers, 256 wide."""
    shape = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    return build_s2("S14", 1000, 0, num_frames=4, num_hidden_layers=8, fusion_layer=4, init_std=0.06, **shape).eval()


@torch.inference_mode()
def texts(model: S2Model, num: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """States and mask of `num` texts of 6 to 18 tokens, about the captions of MSRVTT, padded to 40."""
    lengths = torch.randint(6, 19, (num,), generator=generator)
    mask = (torch.arange(PADDED)[None] < lengths[:, None]).long()
    return model.encode_text(torch.randint(5, 1000, (num, PADDED), generator=generator) * mask, mask), mask


@torch.inference_mode()
def plain(model: S2Model, states, mask, tokens, top: np.ndarray, queries: range, is_text: bool) -> dict:
    """Logits of some queries by (text, video), as upstream does it."""
    found = {}
    for query in queries:
        one, many = torch.full((top.shape[1],), query), torch.from_numpy(top[query])
        t, v = (one, many) if is_text else (many, one)
        logits = model.match(states[t], mask[t], model.video_kv(tokens[v]))[:, 1]
        found.update(zip(zip(t.tolist(), v.tolist()), logits.tolist(), strict=True))
    return found


def run() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    model = fusion_model()
    tokens = torch.randn(NUM, TOKENS, WIDTH, generator=generator)
    states, mask = texts(model, NUM, generator)
    sim = torch.rand(NUM, NUM, generator=generator)
    tops = sim.topk(K).indices.numpy(), sim.T.topk(K).indices.numpy()
    pairs = unite(*tops)
    times: dict[str, list[float]] = {"fp32": [], "bf16": [], "plain": []}
    expected: dict[tuple[int, int], float] = {}
    found: dict[str, torch.Tensor] = {}
    low = tokens.bfloat16()  # a server in bf16 stores bf16
    for part in range(ROUNDS):
        for name, dtype, stored in (("fp32", torch.float32, tokens), ("bf16", torch.bfloat16, low)):
            start = time.perf_counter()
            found[name] = rerank(model, states, mask, lambda v, s=stored: s[torch.from_numpy(v)], pairs, dtype)
            times[name].append(time.perf_counter() - start)
        some = range(part * EVERY, NUM, ROUNDS * EVERY)
        start = time.perf_counter()
        for top, is_text in zip(tops, (True, False)):
            expected |= plain(model, states, mask, tokens, top, some, is_text)
        times["plain"].append((time.perf_counter() - start) * NUM / len(some))
    rows = []
    where = [np.flatnonzero((pairs == p).all(axis=1))[0] for p in expected]
    theirs = torch.tensor(list(expected.values()))
    for name, bound in (("fp32", 1e-5), ("bf16", None)):
        worst = float((found[name][where] - theirs).abs().max())
        rows.append(
            {
                "name": f"rerank_both_directions_{name}",
                "ours": float(np.median(times[name])),
                "baseline": float(np.median(times["plain"])),
                "unit": "s",
                "spread": {
                    "ours": [min(times[name]), max(times[name])],
                    "plain": [min(times["plain"]), max(times["plain"])],
                },
                "equal": bound is None or worst <= bound,
                "how_equal": f"largest difference of a score {worst:.1e} over {len(expected)} pairs"
                + ("" if bound else f", the scores' own spread being {float(theirs.std()):.2f}")
                + f"; the plain fp32 form is timed on every {EVERY}th query",
            }
        )
    return rows
