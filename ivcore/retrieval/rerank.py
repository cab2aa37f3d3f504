"""The matching head's second look at the best candidates of both directions, each pair scored once.

Shapes: T texts, L text tokens, H hidden, V videos, N video tokens, C vision width, P pairs, R rows (text tokens of all
pairs of a block, one text after another), A heads, D = H / A.

Upstream scores text-to-video and video-to-text apart: one padded call a query, and every candidate's keys and values
projected anew. The logit of a pair does not depend on who asked, so here
- the pairs of both directions are united, and videos go outermost: a video's keys and values are projected once;
- texts are packed by their true length, so nothing is computed for padding;
- what the first fusion layer does before it sees a video is done once a text;
- the last layer answers for position 0 alone, which is all that the matching head reads.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ivcore.models import fusion_packed
from ivcore.models.fusion_packed import FusionLayer
from ivcore.models.s2 import S2Model
from ivcore.retrieval.embed import TokensOf
from ivcore.retrieval.rerank_blocks import MAX_BYTES as BLOCK_BYTES
from ivcore.retrieval.rerank_blocks import BlockRerank

MAX_BYTES = 128_000_000  # of tokens and rows held at once; a block that leaves the cache is slower, not faster


def unite(t2v_top: np.ndarray, v2t_top: np.ndarray, videos: np.ndarray | None = None) -> np.ndarray:
    """Every (text, video) pair that either direction needs, once: int [P, 2] sorted by video, then text.

    Args:
        t2v_top: int [T, k], videos that each text wants looked at.
        v2t_top: int [V', k], texts that each video wants looked at.
        videos: int [V'], the videos of those rows; None: row v is video v.

    >>> unite(np.array([[0], [0]]), np.array([[1], [0]])).tolist()
    [[0, 0], [1, 0], [0, 1]]
    """
    by_text = np.stack([np.arange(len(t2v_top)).repeat(t2v_top.shape[1]), t2v_top.ravel()], axis=1)
    videos = np.arange(len(v2t_top)) if videos is None else videos
    by_video = np.stack([v2t_top.ravel(), videos.repeat(v2t_top.shape[1])], axis=1)
    swapped = np.concatenate([by_text, by_video])[:, ::-1]  # video first, for the sort
    return np.ascontiguousarray(np.unique(swapped, axis=0)[:, ::-1])


@torch.inference_mode()
def rerank(
    model: S2Model,
    states: Tensor,
    masks: Tensor,
    tokens_of: TokensOf,
    pairs: np.ndarray,
    dtype: torch.dtype | None = None,
    max_bytes: int | None = None,
) -> Tensor:
    """Raw class-1 logits of the pairs, in their order: float32 [P], on the CPU.

    On a CPU a video at a time, so that what is read lies in its cache; elsewhere in blocks (`rerank_blocks`).

    Args:
        model: in eval mode; the work is done on its device.
        states: [T, L, H] from `encode_text`, on any device.
        masks: [T, L], 1 = token; tokens stand at the front.
        tokens_of: video numbers [n] -> tokens [n, N, C]; asked for each video once, in growing order.
        pairs: int [P, 2], (text, video).
        dtype: of the arithmetic; None: the model's.
        max_bytes: of video tokens and rows held at once, None: what suits the device; one video and one text are always
            held.

    Raises:
        ValueError: if states and masks do not fit, tokens do not stand at the front, or a pair names a text that is
            not there.
    """
    if masks.shape != states.shape[:2]:
        raise ValueError(f"masks are {list(masks.shape)}, states are {list(states.shape)}")
    if len(pairs) and (pairs[:, 0].max() >= len(states) or pairs.min() < 0):
        raise ValueError(f"pairs name texts up to {pairs[:, 0].max()}, there are {len(states)}")
    lengths = masks.sum(dim=1).cpu()
    if not torch.equal(masks.cpu().bool(), torch.arange(masks.shape[1]) < lengths[:, None]):
        raise ValueError("a text's tokens stand at the front, its padding behind them")
    if model.device.type != "cpu":
        return BlockRerank(model, dtype, max_bytes=max_bytes or BLOCK_BYTES)(states, lengths.numpy(), tokens_of, pairs)
    return _by_video(model, states, lengths, tokens_of, pairs, dtype or model.dtype, max_bytes or MAX_BYTES)


def _by_video(
    model: S2Model,
    states: Tensor,
    lengths: Tensor,
    tokens_of: TokensOf,
    pairs: np.ndarray,
    dtype: torch.dtype,
    max_bytes: int,
) -> Tensor:
    """The rerank for a CPU; arguments as in `rerank`."""
    layers = fusion_packed.fusion_layers(model, dtype)
    texts = _Texts(layers[0], states.to(model.device).float(), lengths.numpy())
    rows_at_once, videos_at_once = _bounds(model, layers[0], dtype, max_bytes)
    out = torch.empty(len(pairs))
    for block in _blocks(pairs, texts.lengths, rows_at_once, videos_at_once):
        videos = np.unique(pairs[np.concatenate(block), 1])
        tokens = model.fusion_tokens(tokens_of(videos).to(model.device, model.dtype)).to(dtype)
        # A video whose texts are too many for one go keeps its keys and values until the last of them.
        kv_of = cache(_kv_of(layers, tokens)) if len(block) > 1 else _kv_of(layers, tokens)
        for some in block:
            video = np.searchsorted(videos, pairs[some, 1])
            cls = _fuse(layers, texts, pairs[some, 0], video, tokens, kv_of)
            out[torch.from_numpy(some)] = model.itm_head(cls.to(model.dtype))[:, 1].float().cpu()
    return out


class _Texts:
    """Every text up to where the first fusion layer meets a video, packed in the order of the texts.

    x [R, H]: rows after self-attention. q [R, H]: their queries to the video. start, lengths: int [T], where a text's
    rows begin and how many there are.
    """

    def __init__(self, layer: FusionLayer, states: Tensor, lengths: np.ndarray) -> None:
        self.lengths = lengths
        self.start = lengths.cumsum() - lengths
        order = lengths.argsort(kind="stable")
        there = torch.arange(states.shape[1]) < torch.from_numpy(lengths)[order][:, None]
        rows = states[order][there.to(states.device)]  # [R, H], shortest text first
        x = fusion_packed.read_text(layer, rows, _runs(lengths[order]), cls_only=False)
        back = torch.from_numpy(_rows(self.start[order], lengths[order])).argsort().to(x.device)
        self.x = x[back]
        self.q = layer.query(self.x)


def _fuse(
    layers: list[FusionLayer],
    texts: _Texts,
    text: np.ndarray,
    video: np.ndarray,
    tokens: Tensor,
    kv_of: Callable[[int, int], Tensor],
) -> Tensor:
    """Position 0 after the last layer: [P, H] of pairs (text [P], video [P]); tokens [n, N, C] of the n videos."""
    device, num_videos = tokens.device, len(tokens)
    by_length = texts.lengths[text].argsort(kind="stable")
    text, video = text[by_length], video[by_length]
    length = texts.lengths[text]
    start = length.cumsum() - length  # of each pair's rows
    x = q = texts.x[:0]
    for number, layer in enumerate(layers):
        last = number == len(layers) - 1
        # Self-attention wants texts of one length together, cross-attention the texts of one video.
        row, size = (np.arange(len(text)), np.ones_like(length)) if last else (start, length)
        order = video.argsort(kind="stable")
        by_video = _rows(row[order], size[order])
        back = torch.from_numpy(by_video).argsort().to(device)
        ends = np.bincount(video, size, num_videos).astype(int).cumsum().tolist()
        if number == 0:
            mine = torch.from_numpy(_rows(texts.start[text], size)).to(device)
            x, q = texts.x[mine], texts.q[mine]
        else:
            x = fusion_packed.read_text(layer, x, _runs(length), cls_only=last)
            q = layer.query(x)
        q = q[torch.from_numpy(by_video).to(device)].unflatten(-1, (layer.num_heads, -1)).transpose(0, 1)
        read = []
        for v, (a, b) in enumerate(zip([0, *ends], ends)):
            some = q[:, a:b].contiguous()  # [A, r, D]
            if fusion_packed.folding_pays(layer, b - a):
                read.append(fusion_packed.read_tokens(layer, some, tokens[v : v + 1]))
            else:
                read.append(fusion_packed.read_video(some, kv_of(number, v)))
        x = fusion_packed.feed_forward(layer, layer.cross_out(torch.cat(read)[back], x))
    return x[by_length.argsort()]


def _kv_of(layers: list[FusionLayer], tokens: Tensor) -> Callable[[int, int], Tensor]:
    """(layer, video) -> keys and values [2H, N]; made when they are asked for, so that they are still in the cache."""
    return lambda layer, video: fusion_packed.keys_values(layers[layer], tokens[video])


def _bounds(model: S2Model, layer: FusionLayer, dtype: torch.dtype, max_bytes: int) -> tuple[int, int]:
    """(rows, videos) that half of the bytes hold each."""
    width, hidden = layer.width, len(layer.up.weight)
    row = (8 * width + 2 * hidden) * dtype.itemsize  # what a layer holds of a row at its widest
    wide = model.config.vision_shape().width + 2 * layer.kv.shape[1]  # as read, as the fusion reads it, in its dtype
    video = (1 + model.num_patches) * wide * 4
    return max(1, max_bytes // 2 // row), max(1, max_bytes // 2 // video)


def _blocks(pairs: np.ndarray, lengths: np.ndarray, max_rows: int, max_videos: int) -> Iterator[list[np.ndarray]]:
    """Numbers of the pairs in blocks of whole videos: one part, or the parts of one video with many texts."""
    order = np.lexsort((lengths[pairs[:, 0]], pairs[:, 1]))  # by video, then length of text
    rows = lengths[pairs[order, 0]].cumsum()
    ends = np.append(np.flatnonzero(np.diff(pairs[order, 1])) + 1, len(order))[: len(order)]
    first = begun = 0  # pair and video that the block begins with
    for number, end in enumerate(ends):
        before = rows[first - 1] if first else 0
        following = ends[number + 1] if number + 1 < len(ends) else None
        if following is None or rows[following - 1] - before > max_rows or number + 1 - begun == max_videos:
            cuts = np.flatnonzero(np.diff((rows[first:end] - before - 1) // max_rows)) + 1
            yield np.split(order[first:end], cuts)
            first, begun = end, number + 1


def _runs(lengths: np.ndarray) -> list[tuple[int, int]]:
    """(how many, length) of sorted lengths.

    >>> _runs(np.array([3, 3, 5]))
    [(2, 3), (1, 5)]
    """
    length, many = np.unique(lengths, return_counts=True)
    return list(zip(many.tolist(), length.tolist()))


def _rows(start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Row numbers of runs of rows, one run after another: int [sum of lengths].

    >>> _rows(np.array([7, 0]), np.array([2, 3])).tolist()
    [7, 8, 0, 1, 2]
    """
    rows: np.ndarray = np.arange(lengths.sum()) + (start - lengths.cumsum() + lengths).repeat(lengths)
    return rows


def k_steps(k: int) -> list[int]:
    """Powers of two below k, then k.

    >>> k_steps(10)
    [1, 2, 4, 8, 10]
    """
    return [*itertools.takewhile(lambda n: n < k, (2**n for n in range(k.bit_length() + 1))), k]
