"""The text and fusion tower of s2: BERT whose upper layers also read the video.

Shapes: B texts, L tokens, H hidden, V videos, N video tokens, P pairs, A heads, D = H / A.
The layers are transformers' own. Layers below `fusion_layer` read text alone; those above also attend to the video
between self-attention and feed-forward. A video's keys and values are projected once (`video_kv`) and read by every
text it is paired with. There is no pooler: position 0 speaks for the text. `encode` and `fuse` are the written form;
training takes `encode_unpadded` and `fuse_at`, the same for the tokens that count (ivcore/models/text_unpadded.py).
Source: InternVideo2 multi_modality, models/backbones/bert/xbert.py.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertAttention, BertEmbeddings, BertLayer, BertOnlyMLMHead

from ivcore.models import text_unpadded
from ivcore.models.dimensions import BertShape, PlainBertShape
from ivcore.models.layers import merge_heads, split_heads

KeyValue = tuple[Tensor, Tensor]  # two times [V, A, N, D]
MASKED = -10000.0  # added to the scores of padding; upstream's number, not minus infinity


def bert_config(shape: PlainBertShape) -> BertConfig:
    """These numbers as transformers wants them."""
    return BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings,
        type_vocab_size=shape.type_vocab_size,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        layer_norm_eps=shape.layer_norm_eps,
        hidden_act="gelu",  # exact, not the tanh form
        pad_token_id=0,
        attn_implementation="sdpa",  # type: ignore[call-arg]
    )


class BertTower(nn.Module):
    """The stack without heads; names as upstream's `text_encoder.bert`."""

    def __init__(self, shape: BertShape, config: BertConfig, video_width: int) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(BertLayer(config) for _ in range(shape.num_hidden_layers))}
        )
        self.num_text = shape.fusion_layer
        for layer in self.fusion():
            layer.crossattention = BertAttention(config, is_cross_attention=True)
            for name in ("key", "value"):
                setattr(layer.crossattention.self, name, nn.Linear(video_width, shape.hidden_size))

    def layers(self) -> list[Any]:
        """All layers, in order."""
        return list(cast(nn.ModuleList, self.encoder["layer"]))

    def text(self) -> list[Any]:
        """The layers that read text alone."""
        return self.layers()[: self.num_text]

    def fusion(self) -> list[Any]:
        """The layers that also read the video."""
        return self.layers()[self.num_text :]


class TextTower(nn.Module):
    """Ids -> states [B, L, H]; states + video -> fused states; fused states -> vocabulary logits."""

    def __init__(self, shape: BertShape, video_width: int) -> None:
        super().__init__()
        self.shape = shape
        config = bert_config(shape)
        self.bert = BertTower(shape, config, video_width)
        self.cls = BertOnlyMLMHead(config)

    def encode(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Text alone, layers below `fusion_layer`: ids int [B, L], mask [B, L] (1 = token) -> [B, L, H]."""
        return self.text_states(ids, mask)[-1]

    def encode_unpadded(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The same without computing padding, whose states come back as zeros; arguments as in `encode`."""
        where = mask.flatten().nonzero()[:, 0]  # [S]
        texts = text_unpadded.layout(where // mask.shape[1], len(mask))
        embedded = self.bert.embeddings(ids)  # [B, L, H]
        states = embedded.flatten(0, 1).index_select(0, where)  # [S, H]
        for layer in self.bert.text():
            states = self._run(text_unpadded.text_layer, layer, states, texts)
        out = states.new_zeros(mask.numel(), states.shape[1]).index_copy(0, where, states)
        return out.unflatten(0, mask.shape)  # [B, L, H]

    def text_states(self, ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Embedding output, then the output of each text layer: 1 + fusion_layer times [B, L, H].

        Raises:
            ValueError: if the text is longer than the position table, or the mask does not fit.
        """
        if ids.ndim != 2 or ids.shape[1] > self.shape.max_position_embeddings:
            raise ValueError(f"ids are [B, L] with L <= {self.shape.max_position_embeddings}, got {list(ids.shape)}")
        mask = torch.ones_like(ids) if mask is None else mask
        if mask.shape != ids.shape:
            raise ValueError(f"the mask is {list(mask.shape)}, the ids are {list(ids.shape)}")
        found = [self.bert.embeddings(ids)]
        bias = _bias(mask, found[0])
        for layer in self.bert.text():
            found.append(self._run(_text_layer, layer, found[-1], bias))
        return found

    def video_kv(self, tokens: Tensor) -> list[KeyValue]:
        """Keys and values of the fusion layers: tokens [V, N, width] -> (k, v) a layer, each [V, A, N, D]."""
        heads = self.shape.num_attention_heads
        found = []
        for layer in self.bert.fusion():
            cross = layer.crossattention.self
            found.append((split_heads(cross.key(tokens), heads), split_heads(cross.value(tokens), heads)))
        return found

    def fuse(
        self,
        states: Tensor,
        mask: Tensor,
        kv: list[KeyValue],
        video_index: Tensor | None = None,
        video_mask: Tensor | None = None,
    ) -> Tensor:
        """Text states that have read a video: [P, L, H] -> [P, L, H]; arguments as in `fusion_states`."""
        return self.fusion_states(states, mask, kv, video_index, video_mask)[-1]

    def fuse_at(
        self, states: Tensor, mask: Tensor, kv: list[KeyValue], video_index: Tensor | None, wanted: Tensor
    ) -> Tensor:
        """Fused states of the wanted tokens alone, without computing padding: [W, H], pair by pair.

        Args:
            states, mask, kv, video_index: as in `fusion_states`.
            wanted: bool [P, L], the tokens asked for; padding is never among them.
        """
        num_videos, (num_pairs, length) = len(kv[0][0]), mask.shape
        if video_index is None:
            _check_pairs(num_pairs, num_videos)
            video_index = torch.arange(num_pairs, device=mask.device) % num_videos
        where = mask.flatten().nonzero()[:, 0]  # [S]
        pair = where // length
        texts, videos = text_unpadded.layout(pair, num_pairs), text_unpadded.layout(video_index[pair], num_videos)
        found = states.flatten(0, 1).index_select(0, where)  # [S, H]
        *before, last = zip(self.bert.fusion(), kv, strict=True)
        for layer, (k, v) in before:
            found = self._run(text_unpadded.fusion_layer, layer, found, texts, k, v, videos)
        asked = wanted.flatten()[where].nonzero()[:, 0]  # [W], in the order of the S tokens
        ask_texts = text_unpadded.layout(pair[asked], num_pairs)
        ask_videos = text_unpadded.layout(video_index[pair[asked]], num_videos)
        layer, (k, v) = last
        return self._run(text_unpadded.fusion_layer, layer, found, texts, k, v, ask_videos, asked, ask_texts)  # [W, H]

    def fusion_states(
        self,
        states: Tensor,
        mask: Tensor,
        kv: list[KeyValue],
        video_index: Tensor | None = None,
        video_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """The given states, then the output of each fusion layer: 1 + layers times [P, L, H].

        Args:
            states: [P, L, H] from `encode`, one row a pair.
            mask: [P, L], 1 = token, of the text.
            kv: from `video_kv`.
            video_index: int [P], the video row of each pair; None: pair p reads video p (or the only video).
            video_mask: [V, N], 1 = may be read; None: all.

        Raises:
            ValueError: if texts, pairs and videos do not fit.
        """
        num_videos = len(kv[0][0])
        if video_index is None:
            _check_pairs(len(states), num_videos)
        if mask.shape != states.shape[:2]:
            raise ValueError(f"the mask is {list(mask.shape)}, the states are {list(states.shape)}")
        bias = _bias(mask, states)
        video_bias = None if video_mask is None else _bias(video_mask, states)
        if video_bias is not None and video_index is not None and num_videos > 1:
            video_bias = video_bias[video_index]
        found = [states]
        for layer, (k, v) in zip(self.bert.fusion(), kv, strict=True):
            found.append(self._run(_fusion_layer, layer, found[-1], bias, k, v, video_index, video_bias))
        return found

    def mlm_logits(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., vocabulary]."""
        return self.cls(states)

    def _run(self, step: Callable[..., Tensor], *args: object) -> Tensor:
        if self.training and self.shape.checkpoint_layers and torch.is_grad_enabled():
            return checkpoint(step, *args, use_reentrant=False)
        return step(*args)


def _bias(mask: Tensor, like: Tensor) -> Tensor:
    """[B, L], 1 = keep -> what is added to the attention scores, [B, 1, 1, L]."""
    return ((1.0 - mask.to(like.dtype)) * MASKED)[:, None, None, :]


def _check_pairs(num_pairs: int, num_videos: int) -> None:
    if num_videos not in (1, num_pairs):
        raise ValueError(f"{num_pairs} texts and {num_videos} videos: say which video each text reads")


def _text_layer(layer: BertLayer, states: Tensor, bias: Tensor) -> Tensor:
    return layer.feed_forward_chunk(layer.attention(states, bias)[0])


def _fusion_layer(
    layer: BertLayer,
    states: Tensor,
    bias: Tensor,
    k: Tensor,
    v: Tensor,
    video_index: Tensor | None,
    video_bias: Tensor | None,
) -> Tensor:
    cross = layer.crossattention
    states = layer.attention(states, bias)[0]  # [P, L, H]
    q = split_heads(cross.self.query(states), cross.self.num_attention_heads)  # [P, A, L, D]
    dropout = cross.self.dropout.p if cross.self.training else 0.0
    if len(k) == 1:
        # One video, many texts: the queries do not see each other, so they line up as one long text; nothing is copied.
        long = q.transpose(0, 1).flatten(1, 2)[None]  # [1, A, P*L, D]
        read = F.scaled_dot_product_attention(long, k, v, attn_mask=video_bias, dropout_p=dropout)
        read = read[0].unflatten(1, (len(q), -1)).transpose(0, 1)  # [P, A, L, D]
    else:
        if video_index is not None:
            k, v = k[video_index], v[video_index]  # 2 x [P, A, N, D]
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=video_bias, dropout_p=dropout)  # [P, A, L, D]
    return layer.feed_forward_chunk(cross.output(merge_heads(read), states))
