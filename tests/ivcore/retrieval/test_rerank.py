"""Re-ranking of both directions at once equals one query at a time; each video and pair is touched once.

The form for a CPU (by video) and the form for a GPU (in blocks) are held to the same tests.
"""

import copy
from unittest import mock

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ivcore.models import build_s2, fusion_packed
from ivcore.retrieval import rerank_blocks, rerank_plan
from ivcore.retrieval.rerank import rerank, unite
from ivcore.retrieval.rerank_blocks import BlockRerank

TEXTS, VIDEOS, K = 11, 7, 3
# the tiny size; one fusion layer, which is the first and the last; a projection before the fusion, as in s2-6B
SHAPES = {"tiny": {}, "one layer": {"fusion_layer": 3}, "projected": {"fusion_width": 40}}


def in_blocks(model, states, mask, tokens_of, pairs, dtype=None, max_bytes=1 << 30):
    return BlockRerank(model, dtype, max_bytes=max_bytes)(states, mask.sum(dim=1).numpy(), tokens_of, pairs)


def on_a_card(model, states, mask, tokens_of, pairs, *args):
    """In blocks where they are made for."""
    there = copy.deepcopy(model).to("cuda")
    return in_blocks(there, states.to("cuda"), mask, lambda rows: tokens_of(rows).to("cuda"), pairs, *args).cpu()


CARD = pytest.param(on_a_card, marks=pytest.mark.gpu, id="on a card")
ENGINES = pytest.mark.parametrize(
    "engine", [pytest.param(rerank, id="by video"), pytest.param(in_blocks, id="in blocks"), CARD]
)


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def model(request):
    model = build_s2("tiny", 60, 0, **SHAPES[request.param]).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.05)
    return model


def texts(model, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 15, (num,), generator=g)
    mask = (torch.arange(14)[None] < lengths[:, None]).long()
    ids = torch.randint(4, 60, (num, 14), generator=g) * mask
    with torch.no_grad():
        return model.encode_text(ids, mask), mask


def candidates() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Video tokens, and the best of each direction by one similarity."""
    g = torch.Generator().manual_seed(2)
    tokens = torch.randn(VIDEOS, 65, 96, generator=g)
    sim = torch.rand(TEXTS, VIDEOS, generator=g)
    return tokens, sim.topk(K).indices.numpy(), sim.T.topk(K).indices.numpy()


def plain(model, states, mask, tokens, t2v, v2t, k=K) -> dict[tuple[int, int], float]:
    """As upstream: a query's candidates in one padded batch, keys and values projected for each of them."""
    found = {}
    with torch.no_grad():
        for t, videos in enumerate(t2v):
            rows = states[t].expand(k, -1, -1), mask[t].expand(k, -1)
            logits = model.match(*rows, model.video_kv(tokens[videos]), torch.arange(k))[:, 1]
            found |= {(t, int(v)): float(x) for v, x in zip(videos, logits)}
        for v, some in enumerate(v2t):
            kv = model.video_kv(tokens[v : v + 1].expand(k, -1, -1))
            logits = model.match(states[some], mask[some], kv, torch.arange(k))[:, 1]
            found |= {(int(t), v): float(x) for t, x in zip(some, logits)}
    return found


@ENGINES
@pytest.mark.parametrize("max_bytes", [1 << 30, 400_000, 1])  # one block; some; one video, and it in parts
def test_equals_one_query_at_a_time(model, max_bytes, engine):
    tokens, t2v, v2t = candidates()
    states, mask = texts(model, TEXTS)
    asked = []

    def tokens_of(rows: np.ndarray) -> torch.Tensor:
        asked.extend(rows.tolist())
        return tokens[torch.from_numpy(rows)]

    pairs = unite(t2v, v2t)
    with mock.patch.object(fusion_packed, "keys_values", wraps=fusion_packed.keys_values) as projected:
        logits = engine(model, states, mask, tokens_of, pairs, max_bytes=max_bytes)
    found = {(int(t), int(v)): float(x) for (t, v), x in zip(pairs, logits, strict=True)}
    expected = plain(model, states, mask, tokens, t2v, v2t)
    assert found.keys() == expected.keys()
    assert [found[p] for p in expected] == pytest.approx(list(expected.values()), abs=1e-5)
    assert asked == sorted(set(asked))
    assert projected.call_count <= VIDEOS * len(model.text_encoder.bert.fusion())


@pytest.mark.parametrize("folds", [True, False])
def test_keys_and_values_or_tokens_read_alike(model, folds):
    tokens, t2v, v2t = candidates()
    states, mask = texts(model, TEXTS)
    expected = plain(model, states, mask, tokens, t2v, v2t)
    with (
        mock.patch.object(fusion_packed, "folding_pays", lambda layer, rows: folds),
        mock.patch.object(fusion_packed, "keys_values", wraps=fusion_packed.keys_values) as projected,
    ):
        logits = rerank(model, states, mask, lambda rows: tokens[torch.from_numpy(rows)], unite(t2v, v2t))
    assert bool(projected.call_count) is not folds
    assert logits.tolist() == pytest.approx([expected[tuple(p)] for p in unite(t2v, v2t).tolist()], abs=1e-5)


def test_without_onednn_the_same(model):
    assert not torch.backends.mkldnn.is_available() or hasattr(torch.ops.mkldnn, "_linear_pointwise")
    tokens, t2v, v2t = candidates()
    args = (model, *texts(model, TEXTS), lambda rows: tokens[torch.from_numpy(rows)], unite(t2v, v2t))
    with mock.patch.object(fusion_packed, "_is_slow", lambda x: False):
        expected = rerank(*args)
    assert rerank(*args).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@ENGINES
def test_bfloat16_is_near(model, engine):
    tokens, t2v, v2t = candidates()
    args = (model, *texts(model, TEXTS), lambda rows: tokens[torch.from_numpy(rows)], unite(t2v, v2t))
    exact, near = engine(*args), engine(*args, dtype=torch.bfloat16)
    assert near.dtype == torch.float32
    assert 0 < float((exact - near).abs().max()) < 0.05 * float(exact.abs().max())


def test_bad_shapes_are_refused(model):
    states, mask = texts(model, 2)
    with pytest.raises(ValueError, match="masks"):
        rerank(model, states, mask[:, :3], lambda rows: torch.zeros(len(rows), 65, 96), np.array([[0, 0]]))
    with pytest.raises(ValueError, match="pairs name"):
        rerank(model, states, mask, lambda rows: torch.zeros(len(rows), 65, 96), np.array([[5, 0]]))
    with pytest.raises(ValueError, match="at the front"):
        rerank(model, states, 1 - mask, lambda rows: torch.zeros(len(rows), 65, 96), np.array([[0, 0]]))


@ENGINES
def test_no_pairs(model, engine):
    assert engine(model, *texts(model, 2), lambda rows: torch.zeros(0, 65, 96), np.empty((0, 2), int)).shape == (0,)


@pytest.mark.parametrize("folds", [True, False])
def test_blocks_read_keys_and_values_or_tokens_alike(model, folds):
    tokens, t2v, v2t = candidates()
    states, mask = texts(model, TEXTS)
    expected = plain(model, states, mask, tokens, t2v, v2t)
    with mock.patch.object(rerank_blocks, "folding_pays", lambda layer, rows: folds):
        logits = in_blocks(model, states, mask, lambda rows: tokens[torch.from_numpy(rows)], unite(t2v, v2t))
    assert logits.tolist() == pytest.approx([expected[tuple(p)] for p in unite(t2v, v2t).tolist()], abs=1e-5)


def test_blocks_answer_for_a_video_that_everybody_wants_and_for_long_texts(model):
    """Text 0 wants every video, video 3 is wanted by every text: padding is bounded, and nothing is left out."""
    tokens, *_ = candidates()
    states, mask = texts(model, TEXTS)
    pairs = unite(np.full((TEXTS, 1), 3), np.zeros((VIDEOS, 1), int))
    expected = plain(model, states, mask, tokens, np.full((TEXTS, 1), 3), np.zeros((VIDEOS, 1), int), k=1)
    for max_bytes in (1 << 30, 1 << 18, 1):
        logits = in_blocks(model, states, mask, lambda rows: tokens[torch.from_numpy(rows)], pairs, max_bytes=max_bytes)
        assert logits.tolist() == pytest.approx([expected[tuple(p)] for p in pairs.tolist()], abs=1e-5)


def test_calls_hold_every_pair_once_within_their_bounds():
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 200, 50)
    video = np.sort(np.minimum(draw.zipf(1.3, 900), 40)) - 1
    text, most = draw.integers(0, 50, 900), 1000
    found = list(rerank_plan.calls(np.arange(900), text, video, lengths, most))
    assert sorted(np.concatenate([c.pair for c in found]).tolist()) == list(range(900))
    for call in found:
        size, (first, end) = lengths[call.text], call.videos
        assert size.max() <= call.length < 2 * max(rerank_plan.SHORTEST, size.max())
        assert (video[call.pair] - first == call.video).all() and call.video.max() == end - first - 1
        assert size.sum() <= most + lengths.max()
        assert (end - first) * np.bincount(call.video, size).max() <= rerank_plan.WASTE * (most + lengths.max())


def test_a_block_takes_few_calls_of_few_shapes_and_the_host_never_waits(model):
    """Counted, since a GPU is slow by launches, by shapes it has not seen and by reads, which no CPU test can time."""
    draw, num = torch.Generator().manual_seed(3), 60
    states, mask = texts(model, num)
    tokens = torch.randn(num, 65, 96, generator=draw)
    sim = torch.rand(num, num, generator=draw)
    pairs = unite(sim.topk(8).indices.numpy(), sim.T.topk(8).indices.numpy())
    whole = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    with mock.patch.object(fusion_packed, "_is_slow", lambda x: False), whole:  # oneDNN's product is a call a head
        in_blocks(model, states, mask, lambda rows: tokens[torch.from_numpy(rows)], pairs)
    events = whole.key_averages(group_by_input_shape=True)
    shapes = {str(e.input_shapes) for e in events if e.key == "aten::scaled_dot_product_attention"}
    calls = sum(e.count for e in events if e.key.startswith("aten::"))
    reads = sum(e.count for e in events if e.key in ("aten::_local_scalar_dense", "aten::nonzero"))
    assert reads == 0
    assert len(shapes) <= 4  # texts alone; by text, by video; [CLS] by text
    assert calls <= 200 + 400 * len(model.text_encoder.bert.fusion())  # for 60 videos and some 800 pairs
