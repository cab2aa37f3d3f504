"""Re-ranking of both directions at once equals one query at a time; each video and pair is touched once."""

import numpy as np
import pytest
import torch

from ivcore.metrics.rerank import rerank, unite
from ivcore.models import build_s2


@pytest.fixture(scope="module")
def model():
    model = build_s2("tiny", 60, 0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.05)
    return model


def texts(model, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 15, (num,), generator=g)
    mask = (torch.arange(14)[None] < lengths[:, None]).long()
    ids = torch.randint(4, 60, (num, 14), generator=g) * mask
    with torch.no_grad():
        return model.encode_text(ids, mask), mask


@pytest.mark.parametrize("max_tokens, at_once", [(4096, 32), (40, 2), (1, 1)])
def test_equals_one_query_at_a_time(model, max_tokens, at_once):
    num_texts, num_videos, k = 11, 7, 3
    g = torch.Generator().manual_seed(2)
    tokens = torch.randn(num_videos, 65, 96, generator=g)
    states, mask = texts(model, num_texts)
    t2v = torch.rand(num_texts, num_videos, generator=g).topk(k).indices.numpy()
    v2t = torch.rand(num_videos, num_texts, generator=g).topk(k).indices.numpy()
    asked = []

    def tokens_of(rows: np.ndarray) -> torch.Tensor:
        asked.extend(rows.tolist())
        return tokens[torch.from_numpy(rows)]

    pairs = unite(t2v, v2t)
    logits = rerank(model, states, mask, tokens_of, pairs, max_tokens, at_once)
    found = {(int(t), int(v)): float(x) for (t, v), x in zip(pairs, logits)}
    assert len(found) == len(pairs) == len({*found})
    assert asked == sorted(set(asked))
    with torch.no_grad():
        for t in range(num_texts):  # as upstream: a query's candidates in one batch, everything padded
            rows = states[t].expand(k, -1, -1), mask[t].expand(k, -1)
            plain = model.match(*rows, model.video_kv(tokens[t2v[t]]), torch.arange(k))[:, 1]
            assert np.allclose([found[t, int(v)] for v in t2v[t]], plain.numpy(), atol=1e-5)
        for v in range(num_videos):
            kv = model.video_kv(tokens[v : v + 1].expand(k, -1, -1))
            plain = model.match(states[v2t[v]], mask[v2t[v]], kv, torch.arange(k))[:, 1]
            assert np.allclose([found[int(t), v] for t in v2t[v]], plain.numpy(), atol=1e-5)


def test_bad_shapes_are_refused(model):
    states, mask = texts(model, 2)
    with pytest.raises(ValueError, match="masks"):
        rerank(model, states, mask[:, :3], lambda rows: torch.zeros(len(rows), 65, 96), np.array([[0, 0]]))
    with pytest.raises(ValueError, match="pairs name"):
        rerank(model, states, mask, lambda rows: torch.zeros(len(rows), 65, 96), np.array([[5, 0]]))


def test_no_pairs(model):
    assert rerank(model, *texts(model, 2), lambda rows: torch.zeros(0, 65, 96), np.empty((0, 2), int)).shape == (0,)
