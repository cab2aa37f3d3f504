"""How much less arithmetic the rerank does than upstream's form: by formula, and the formula against torch's counter.

Symbols: T texts, V videos, P pairs, L tokens of a text, padded their padded number, N video tokens, C their width,
H hidden, F feed-forward, A heads. A multiply and an add are two.
"""

from unittest import mock

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ivcore.models import build_s2, fusion_packed
from ivcore.models.dimensions import BertShape
from ivcore.retrieval.rerank import rerank, unite


def plain_flops(text: BertShape, calls: int, k: int, padded: int, n: int, c: int) -> int:
    """One call a query over k candidates, keys and values for each."""
    h, f = text.hidden_size, text.intermediate_size
    pair = 4 * n * c * h + padded * (12 * h * h + 4 * h * f) + 4 * padded * (padded + n) * h
    return calls * k * (text.num_hidden_layers - text.fusion_layer) * pair


def packed_flops(
    text: BertShape, texts: int, videos: int, pairs: int, length: int, n: int, c: int, folds: bool | None = None
) -> int:
    """Every pair and video once, no padding, the last layer for one row; folded or not, None: the lesser of both."""
    h, f, heads = text.hidden_size, text.intermediate_size, text.num_attention_heads
    layers = text.num_hidden_layers - text.fusion_layer
    total = texts * length * (8 * h * h + 4 * length * h + 2 * h * h)  # the first self-attention, and the queries
    for layer in range(layers):
        rows = pairs if layer == layers - 1 else pairs * length
        if layer:
            total += pairs * length * 4 * h * h + rows * (6 * h * h + 4 * length * h)
        total += rows * (2 * h * h + 4 * h * f)
        direct, folded = videos * 4 * n * c * h + rows * 4 * n * h, rows * (4 * n * c * heads + 4 * c * h)
        total += min(direct, folded) if folds is None else folded if folds else direct
    return total


def test_15_times_fewer_at_1b():
    bert_large = BertShape(
        vocab_size=30522,
        hidden_size=1024,
        num_hidden_layers=24,
        fusion_layer=19,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=512,
    )
    n, c, num, k = 1025, 1408, 200, 32
    theirs = plain_flops(bert_large, 2 * num, k, 40, n, c)
    for length in (8, 12):  # MSRVTT's captions have 11 on average
        ours = packed_flops(bert_large, num, num, 2 * num * k, length, n, c)  # at worst no pair is in both lists
        assert theirs > 15 * ours


def test_formulas_against_the_counter():
    num, k, padded, length = 6, 3, 10, 5
    model = build_s2("tiny", 60, 0).eval()
    shape = model.config.text_shape()
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(num, 65, 96, generator=g)
    mask = (torch.arange(padded) < length).long().expand(num, -1)
    states = torch.randn(num, padded, 96, generator=g)
    sim = torch.rand(num, num, generator=g)
    top = sim.topk(k).indices.numpy()
    pairs = unite(top, sim.T.topk(k).indices.numpy())
    for folds in (False, True):
        with (
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
            sdpa_kernel(SDPBackend.MATH),
            mock.patch.object(fusion_packed, "_is_slow", lambda x: False),  # oneDNN's own is not counted
            mock.patch.object(fusion_packed, "folding_pays", lambda layer, rows, folds=folds: folds),
        ):
            rerank(model, states, mask, lambda rows: tokens[torch.from_numpy(rows)], pairs)
        counted = counter.get_total_flops() - len(pairs) * 2 * 96 * 2  # less the matching head
        videos = len(np.unique(pairs[:, 1]))
        assert counted == packed_flops(shape, num, videos, len(pairs), length, 65, 96, folds)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for query in range(num):
            model.fuse(states[[query] * k], mask[[query] * k], model.video_kv(tokens[top[query]]))
    assert counter.get_total_flops() == plain_flops(shape, num, k, padded, 65, 96)
