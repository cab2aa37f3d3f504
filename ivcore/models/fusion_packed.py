"""The fusion layers of s2 for matching alone: packed texts, transposed keys and values, no padding, no row for nothing.

Shapes: R rows (the tokens of many texts, one text after another), r rows of one video, P pairs, H hidden, A heads,
D = H / A, N video tokens, C width of what the fusion reads, F hidden of the feed-forward.

The arithmetic is that of `text.TextTower.fuse`, rearranged without a change of what is computed:
- the scale of the scores is in the query's weights;
- a key's bias adds the same to all scores of a query, and a softmax does not see it: left out;
- the weights of a softmax add up to 1, so a value's bias goes through the output matrix into its bias;
- keys and values of a video come transposed, [2H, N], so that a head is a block of rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ivcore.models.s2 import S2Model

STACKED_BYTES = 4_000_000  # keys and values of several videos that are read in one product
ROWS_AT_ONCE = 512  # query rows of one product against a video: their scores [512, N] stay in the cache


@dataclass(frozen=True)
class Affine:
    """weight [out, in], bias [out]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """[R, in] -> [R, out]."""
        return product(x.to(self.weight.dtype), self.weight, self.bias)


@dataclass(frozen=True)
class Output:
    """What ends each part of a layer: a matrix, then the sum with what went in, normalised."""

    dense: Affine
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor, before: Tensor) -> Tensor:
        """[R, in] and [R, H] -> [R, H]."""
        return F.layer_norm(self.dense(x) + before, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class FusionLayer:
    """One fusion layer's weights in the arithmetic it runs in."""

    num_heads: int
    self_query: Affine
    self_kv: Affine  # [2H, H]
    self_out: Output
    query: Affine  # of the video
    kv: Tensor  # [2H, C], of the video
    cross_out: Output
    up: Affine
    down: Output

    @property
    def width(self) -> int:
        """H."""
        return len(self.query.weight)


def fusion_layers(model: S2Model, dtype: torch.dtype) -> list[FusionLayer]:
    """The fusion layers of a model in `dtype`, on the model's device."""
    return [_layer(layer, dtype) for layer in model.text_encoder.bert.fusion()]


@torch.no_grad()
def _layer(layer: Any, dtype: torch.dtype) -> FusionLayer:
    own, cross = layer.attention, layer.crossattention
    scale = (own.self.query.weight.shape[0] // own.self.num_attention_heads) ** -0.5

    def affine(weight: Tensor, bias: Tensor, scale: float = 1.0) -> Affine:
        return Affine((weight.float() * scale).to(dtype), (bias.float() * scale).to(dtype))

    def output(part: Any, value_bias: Tensor | None = None) -> Output:
        norm, dense = part.LayerNorm, part.dense
        through = 0.0 if value_bias is None else dense.weight.float() @ value_bias.float()
        return Output(
            affine(dense.weight, dense.bias.float() + through), norm.weight.float(), norm.bias.float(), norm.eps
        )

    key, value = own.self.key, own.self.value
    return FusionLayer(
        num_heads=own.self.num_attention_heads,
        self_query=affine(own.self.query.weight, own.self.query.bias),
        self_kv=affine(torch.cat([key.weight, value.weight]), torch.cat([key.bias, value.bias])),
        self_out=output(own.output),
        query=affine(cross.self.query.weight, cross.self.query.bias, scale),
        kv=torch.cat([cross.self.key.weight, cross.self.value.weight]).to(dtype),
        cross_out=output(cross.output, cross.self.value.bias),
        up=affine(layer.intermediate.dense.weight, layer.intermediate.dense.bias),
        down=output(layer.output),
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [m, k] times weight [n, k] transposed, plus bias [n] -> [m, n]; x is contiguous, weight may be a transpose.

    On a CPU in float32 torch takes MKL for this, which knows no AVX-512 on an AMD machine; its other library, oneDNN,
    does, and is about twice as fast there. In bfloat16 torch takes oneDNN by itself.
    """
    if _is_slow(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def products(a: Tensor, b: Tensor) -> Tensor:
    """[B, m, k] times [B, k, n] -> [B, m, n], as many products as there are heads or videos; as `product`."""
    return torch.stack([product(x, y.T) for x, y in zip(a, b)]) if _is_slow(a) else a @ b


def _is_slow(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def read_text(layer: FusionLayer, x: Tensor, runs: list[tuple[int, int]], cls_only: bool) -> Tensor:
    """Self-attention: rows [R, H] of texts, shortest first -> [R, H], or [texts, H] for position 0 alone.

    Args:
        runs: (texts, length) of each run of texts of one length, in the order of the rows; they take no mask.
        cls_only: answer for position 0 of each text only.
    """
    rows = [texts * length for texts, length in runs]
    kv = layer.self_kv(x).unflatten(-1, (2, layer.num_heads, -1)).split(rows)  # [R, 2, A, D]
    if cls_only:
        x = torch.cat([some[::length] for some, (_, length) in zip(x.split(rows), runs)])
        rows = [texts for texts, _ in runs]
    asked = layer.self_query(x).unflatten(-1, (layer.num_heads, -1)).split(rows)  # [R or texts, A, D]
    found = []
    for (texts, length), q, pair in zip(runs, asked, kv):
        k, v = pair.unflatten(0, (texts, length)).permute(2, 0, 3, 1, 4)  # 2 x [texts, A, L, D]
        read = F.scaled_dot_product_attention(q.unflatten(0, (texts, -1)).transpose(1, 2), k, v)
        found.append(read.transpose(1, 2).flatten(2).flatten(0, 1))
    return layer.self_out(torch.cat(found), x)


def keys_values(layer: FusionLayer, tokens: Tensor) -> Tensor:
    """Keys and values of one video: [N, C] -> [2H, N], no biases."""
    return product(layer.kv, tokens)


def read_video(q: Tensor, kv: Tensor) -> Tensor:
    """Queries [A, r, D] read one video's keys and values [2H, N] -> [r, H]."""
    keys, values = kv.unflatten(0, (2, len(q), -1))  # 2 x [A, D, N]
    read = []
    for some in q.split(ROWS_AT_ONCE, dim=1):
        weights = products(some, keys).softmax(dim=-1)  # [A, r, N]
        read.append(products(weights, values.transpose(1, 2)))
    return torch.cat(read, dim=1).transpose(0, 1).flatten(1)


def read_videos(q: Tensor, kept: list[Tensor]) -> Tensor:
    """Queries [A, V * r, D], r of each video in turn, read V videos' keys and values [2H, N] -> [V * r, H].

    As `read_video` of each; small ones are copied together, since so many calls would cost more than the products.
    """
    if sum(kv.nbytes for kv in kept) > STACKED_BYTES:
        rows = q.shape[1] // len(kept)
        return torch.cat([read_video(some.contiguous(), kv) for some, kv in zip(q.split(rows, dim=1), kept)])
    keys, values = torch.stack(kept).unflatten(1, (2, len(q), -1)).unbind(1)  # 2 x [V, A, D, N]
    weights = (q.unflatten(1, (len(kept), -1)).transpose(0, 1) @ keys).softmax(dim=-1)  # [V, A, r, N]
    return (weights @ values.transpose(2, 3)).transpose(1, 2).flatten(2).flatten(0, 1)


def read_tokens(layer: FusionLayer, q: Tensor, tokens: Tensor) -> Tensor:
    """Queries [A, V * r, D], r of each video in turn, read the tokens [V, N, C] themselves -> [V * r, H].

    As `read_video` of their keys and values, but folded: the key's matrix goes to the query, the value's comes after
    the weighted sum. No keys and values are made, which costs less for a few rows and keeps C numbers a token instead
    of 2H a layer.
    """
    heads, videos = len(q), len(tokens)
    keys, values = layer.kv.unflatten(0, (2, heads, -1))  # 2 x [A, D, C]
    asked = products(q, keys).unflatten(1, (videos, -1)).transpose(0, 1).flatten(1, 2)  # [V, A * r, C]
    weights = products(asked, tokens.transpose(1, 2)).softmax(dim=-1)  # [V, A * r, N]
    summed = products(weights, tokens).unflatten(1, (heads, -1)).transpose(0, 1).flatten(1, 2)  # [A, V * r, C]
    return products(summed, values.transpose(1, 2)).transpose(0, 1).flatten(1)


def folding_pays(layer: FusionLayer, rows: int) -> bool:
    """Whether `read_tokens` multiplies less than `keys_values` and `read_video` for so many query rows of one video.

    Per token and row: A * C instead of H; per token: nothing instead of C * H (both twice, for keys and for values).
    """
    width, read = layer.width, layer.kv.shape[1]
    return rows * (layer.num_heads * read - width) < read * width


def feed_forward(layer: FusionLayer, x: Tensor) -> Tensor:
    """[R, H] -> [R, H]."""
    return layer.down(F.gelu(layer.up(x)), x)
