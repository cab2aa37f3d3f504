"""The rerank for a GPU: a block of videos at a time, all of its pairs in a few calls, scores read once at the end.

Shapes: T texts, H hidden, V videos, N video tokens, C what the fusion reads, P pairs of a call, R rows (text tokens of
all pairs of a call, one text after another), A heads, D = H / A, n videos of a call, L length class of a call.

The arithmetic is that of `rerank`. What differs is what costs time: a GPU waits for launches and for the host, so
- nothing is read back before the last call, and a call's indices travel in one copy;
- the pairs of a block go by length class of their texts, each class in as few calls as memory allows;
- in a call every matrix sees the rows that are there; attention alone is laid out in padded rows, by text and by video;
- padded counts are rounded up to few values, so that shapes repeat.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ivcore.models import fusion_packed
from ivcore.models.fusion_packed import FusionLayer
from ivcore.models.s2 import S2Model
from ivcore.retrieval.embed import TokensOf
from ivcore.retrieval.rerank_plan import Call, Layout, calls, parts_of, rounded, row_numbers, send

MAX_BYTES = 8 << 30  # of tokens, keys, values and rows held at once


class BlockRerank:
    """Matching logits of many pairs on the model's device; keep one as long as the weights stay what they are.

    Args:
        model: in eval mode.
        dtype: of the arithmetic; None: the model's.
        projected: the tokens come as the fusion layers read them (s2-6B: a quarter of the size), and not as the trunk
            gives them.
        max_bytes: held at once; one video and one text are always held.
    """

    def __init__(
        self,
        model: S2Model,
        dtype: torch.dtype | None = None,
        projected: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.model, self.projected = model, projected
        self.dtype = dtype or model.dtype
        self.layers = fusion_packed.fusion_layers(model, self.dtype)
        layer = self.layers[0]
        row = (8 * layer.width + 2 * len(layer.up.weight)) * 4  # what a layer holds of a row at its widest
        self.max_rows = max(1, max_bytes // 4 // row)
        tokens = model.config.vision_shape().width * 4 + len(self.layers) * len(layer.kv) * self.dtype.itemsize
        self.max_videos = max(1, max_bytes // 2 // ((1 + model.num_patches) * tokens))

    @torch.inference_mode()
    def __call__(self, states: Tensor, lengths: np.ndarray, tokens_of: TokensOf, pairs: np.ndarray) -> Tensor:
        """Raw class-1 logits of the pairs, in their order: float32 [P], on the CPU.

        Args:
            states: [T, L, H] from `encode_text`, on any device; a text's tokens stand at the front.
            lengths: int [T].
            tokens_of: video numbers [n] -> tokens [n, N, C]; asked for each video once, in growing order.
            pairs: int [P, 2], (text, video).
        """
        if not len(pairs):
            return torch.empty(0)
        device = self.model.device
        texts = _Texts(self.layers[0], states, lengths, device, self.max_rows)
        out = torch.empty(len(pairs), device=device)
        order = np.argsort(pairs[:, 1], kind="stable")
        names, first = np.unique(pairs[order, 1], return_index=True)
        for begin in range(0, len(names), self.max_videos):
            videos = names[begin : begin + self.max_videos]
            end = begin + len(videos)
            block = order[first[begin] : first[end] if end < len(names) else None]
            tokens = tokens_of(videos).to(device, self.model.dtype, non_blocking=True)
            tokens = (tokens if self.projected else self.model.fusion_tokens(tokens)).to(self.dtype)  # [n, N, C]
            video = np.searchsorted(videos, pairs[block, 1])
            some = list(calls(block, pairs[block, 0], video, lengths, self.max_rows))
            kv_of = _KeysValues(self.layers, tokens, keep=len(some) > 1)
            for call in some:
                self._answer(call, texts, tokens, kv_of, out)
        return out.cpu()

    def _answer(self, call: Call, texts: "_Texts", tokens: Tensor, kv_of: "_KeysValues", out: Tensor) -> None:
        """Write the logits of the call's pairs into `out`."""
        size = texts.lengths[call.text]
        one = np.ones_like(size)
        num_videos = call.videos[1] - call.videos[0]
        most = [rounded(int(np.bincount(call.video, some, num_videos).max())) for some in (size, one)]
        own, read, heads, mine, cls, pair = send(
            tokens.device,
            [(np.arange(len(size)), size, call.length), (call.video, size, most[0]), (call.video, one, most[1])],
            [row_numbers(texts.start[call.text], size), size.cumsum() - size, call.pair],
        )
        x, q = texts.x.index_select(0, mine), texts.q.index_select(0, mine)  # [R, H]
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            if number:
                x = _read_text(layer, x, own, cls if last else None)
                q = layer.query(x)
            elif last:
                x, q = x.index_select(0, cls), q.index_select(0, cls)
            x = self._read_video(number, q, x, heads if last else read, tokens, kv_of, call.videos)
        logits = self.model.itm_head(x.to(self.model.dtype))[:, 1].float()
        out.index_copy_(0, pair, logits)

    def _read_video(
        self,
        number: int,
        q: Tensor,
        x: Tensor,
        by_video: "Layout",
        tokens: Tensor,
        kv_of: "_KeysValues",
        videos: tuple[int, int],
    ) -> Tensor:
        """Cross-attention and feed-forward of one layer: queries and rows [R, H] -> [R, H]."""
        layer, (a, b) = self.layers[number], videos
        laid = q.index_select(0, by_video.rows).unflatten(0, (b - a, -1)).unflatten(-1, (layer.num_heads, -1))
        if folding_pays(layer, laid.shape[1]):  # laid: [n, r, A, D]
            asked = laid.permute(2, 0, 1, 3).flatten(1, 2).contiguous()  # [A, n * r, D]
            read = fusion_packed.read_tokens(layer, asked, tokens[a:b])  # [n * r, H]
        else:
            k, v = kv_of(number)  # 2 x [videos, A, N, D]
            found = F.scaled_dot_product_attention(laid.transpose(1, 2), k[a:b], v[a:b], scale=1.0)
            read = found.transpose(1, 2).flatten(2).flatten(0, 1)
        read = read.index_select(0, by_video.places)
        return fusion_packed.feed_forward(layer, layer.cross_out(read, x))


def folding_pays(layer: FusionLayer, rows: int) -> bool:
    """Whether reading the tokens themselves multiplies less and moves fewer bytes than making keys and values.

    Bytes a token and video: tokens twice and three passes over the scores, against tokens once, keys and values
    written and read.
    """
    moved = 2 * layer.kv.shape[1] + 3 * layer.num_heads * rows
    return fusion_packed.folding_pays(layer, rows) and moved < layer.kv.shape[1] + 4 * layer.width


class _Texts:
    """Every text up to where the first fusion layer meets a video, packed in the order of the texts.

    x [R, H]: rows after self-attention. q [R, H]: their queries to the video. start, lengths: int [T], where a text's
    rows begin and how many there are.
    """

    def __init__(
        self, layer: FusionLayer, states: Tensor, lengths: np.ndarray, device: torch.device, max_rows: int
    ) -> None:
        self.lengths = lengths
        self.start = lengths.cumsum() - lengths
        found = []
        for some in parts_of(lengths, max_rows):
            size, longest = lengths[some], int(lengths[some].max())
            (own,) = send(device, [(np.arange(len(size)), size, longest)], [])
            x = states[some, :longest].to(device).float().flatten(0, 1)
            found.append(_read_text(layer, x.index_select(0, own.places), own, None))
        self.x = torch.cat(found)
        self.q = layer.query(self.x)


class _KeysValues:
    """Keys and values of a block's videos, a layer at a time: one product a layer; kept where they are asked again."""

    def __init__(self, layers: Sequence[FusionLayer], tokens: Tensor, keep: bool) -> None:
        self.layers, self.tokens, self.keep = layers, tokens, keep
        self.made: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """2 x [n, A, N, D] of a layer."""
        if number in self.made:
            return self.made[number]
        layer = self.layers[number]
        both = F.linear(self.tokens, layer.kv).unflatten(-1, (2, layer.num_heads, -1))  # [n, N, 2, A, D]
        k, v = both.permute(2, 0, 3, 1, 4)
        if self.keep:
            self.made[number] = k, v
        return k, v


def _read_text(layer: FusionLayer, x: Tensor, own: Layout, cls: Tensor | None) -> Tensor:
    """Self-attention of packed rows [R, H] within their texts -> [R, H], or [P, H] of the rows `cls` alone."""
    kv = layer.self_kv(x).index_select(0, own.rows).unflatten(0, (-1, own.length))
    k, v = kv.unflatten(-1, (2, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)  # 2 x [P, A, L, D]
    there = (torch.arange(own.length, device=x.device) < own.counts[:, None])[:, None, None]  # [P, 1, 1, L]
    asking = x if cls is None else x.index_select(0, cls)
    q = layer.self_query(asking)
    if cls is None:
        q = q.index_select(0, own.rows).unflatten(0, (-1, own.length))
    else:
        q = q[:, None]
    q = q.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)  # [P, A, L or 1, D]
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
    read = read.transpose(1, 2).flatten(2).flatten(0, 1)
    return layer.self_out(read if cls is not None else read.index_select(0, own.places), asking)
