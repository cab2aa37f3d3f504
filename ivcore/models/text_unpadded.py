"""The layers of s2's text tower without padding: texts of unequal length lie one after the other, token by token.

Shapes: P texts (or pairs), S tokens of all texts together, W tokens that are asked for, H hidden, A heads, D = H / A,
V videos, N video tokens, G groups.
Projections and feed-forward, nearly all of the arithmetic, see [S, H]. Attention alone needs rows: tokens are laid out
by text to read each other, and by video to read a video, so that texts of one video line up as one long query and a
video's keys and values are read where they lie, however many texts it has.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.bert.modeling_bert import BertLayer

from ivcore.models.layers import merge_heads, split_heads


@dataclass(frozen=True)
class Layout:
    """Where each of S tokens lies when groups of them stand in rows padded to the longest."""

    slots: Tensor  # int64 [S], group * length + place in the group
    groups: int
    length: int

    def spread(self, x: Tensor, num_heads: int) -> Tensor:
        """[S, H] -> [G, A, length, D], zeros where no token lies."""
        rows = x.new_zeros(self.groups * self.length, x.shape[-1]).index_copy(0, self.slots, x)
        return split_heads(rows.unflatten(0, (self.groups, self.length)), num_heads)

    def collect(self, x: Tensor) -> Tensor:
        """The reverse: [G, A, length, D] -> [S, H]."""
        return merge_heads(x).flatten(0, 1).index_select(0, self.slots)

    def readable(self) -> Tensor:
        """bool [G, 1, 1, length], True where a token lies."""
        lies = torch.zeros(self.groups * self.length, dtype=torch.bool, device=self.slots.device)
        return lies.index_fill(0, self.slots, True).unflatten(0, (self.groups, 1, 1, self.length))


def layout(group: Tensor, groups: int) -> Layout:
    """Tokens by their group, int64 [S] below `groups`, in the order they come.

    >>> layout(torch.tensor([1, 0, 1, 1]), 2).slots.tolist()  # rows of 3: token 1 | tokens 0, 2 and 3
    [3, 0, 4, 5]
    """
    counts = torch.bincount(group, minlength=groups)  # [G]
    order = group.argsort(stable=True)
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group[order]]
    length = int(counts.max())
    return Layout(group * length + place, groups, length)


def text_layer(layer: BertLayer, states: Tensor, texts: Layout) -> Tensor:
    """A layer that reads text alone: [S, H] -> [S, H]."""
    return layer.feed_forward_chunk(_read_text(layer, states, states, texts, texts))


def fusion_layer(
    layer: BertLayer,
    states: Tensor,
    texts: Layout,
    k: Tensor,
    v: Tensor,
    videos: Layout,
    wanted: Tensor | None = None,
    wanted_texts: Layout | None = None,
) -> Tensor:
    """A layer that also reads a video: [S, H] -> [S, H], or [W, H] of the tokens `wanted` alone.

    Args:
        states: [S, H].
        texts: of the S tokens, by text.
        k, v: [V, A, N, D] of this layer.
        videos: of the tokens that come out, by video.
        wanted: int64 [W], the tokens that come out; None: all.
        wanted_texts: of these, by text.
    """
    asking = states if wanted is None else states.index_select(0, wanted)
    asking = _read_text(layer, asking, states, wanted_texts or texts, texts)
    cross = layer.crossattention
    q = videos.spread(cross.self.query(asking), cross.self.num_attention_heads)  # [V, A, length, D]
    read = F.scaled_dot_product_attention(q, k, v, dropout_p=_dropout(cross.self))
    return layer.feed_forward_chunk(cross.output(videos.collect(read), asking))


def _read_text(layer: BertLayer, asking: Tensor, states: Tensor, asking_texts: Layout, texts: Layout) -> Tensor:
    """Self-attention and its residual: tokens [W, H] read the tokens [S, H] of their own text."""
    own = layer.attention.self
    heads = own.num_attention_heads
    q = asking_texts.spread(own.query(asking), heads)
    k, v = texts.spread(own.key(states), heads), texts.spread(own.value(states), heads)
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=texts.readable(), dropout_p=_dropout(own))
    return layer.attention.output(asking_texts.collect(read), asking)


def _dropout(attention: torch.nn.Module) -> float:
    return attention.dropout.p if attention.training else 0.0  # type: ignore[union-attr, return-value]
