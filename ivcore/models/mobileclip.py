"""clip's small text tower: MobileCLIP's text transformer, read at the end-of-text token.

Shapes: B texts, L tokens, H hidden, E embedding.
Source: upstream models/backbones/internvideo2/mobileclip (Apple's ml-mobileclip, text_encoder.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ivcore.models.dimensions import MobileClipShape
from ivcore.models.layers import LAYER_NORM_EPS, merge_heads, split_heads


class LayerNormFp32(nn.LayerNorm):
    """LayerNorm computed in float32 whatever comes in, cast back."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        out = F.layer_norm(input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return out.to(input.dtype)


class SelfAttention(nn.Module):
    """Multi-head attention with one packed projection, all with biases."""

    def __init__(self, width: int, num_heads: int, causal: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.causal = causal
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """[B, L, H], padding bool [B, L] (True = not read; a causal tower ignores it) -> [B, L, H]."""
        q, k, v = (split_heads(t, self.num_heads) for t in self.qkv_proj(x).chunk(3, dim=-1))
        readable = None if self.causal or padding is None else ~padding[:, None, None, :]  # [B, 1, 1, L]
        return self.out_proj(
            merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=readable, is_causal=self.causal))
        )


class Layer(nn.Module):
    """One pre-norm layer. The numbers in the names are upstream's; the gaps were dropout and activation."""

    def __init__(self, shape: MobileClipShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.pre_norm_mha = nn.ModuleDict(
            {
                "0": LayerNormFp32(width, eps=LAYER_NORM_EPS),
                "1": SelfAttention(width, shape.num_attention_heads, shape.causal),
            }
        )
        self.pre_norm_ffn = nn.ModuleDict(
            {
                "0": LayerNormFp32(width, eps=LAYER_NORM_EPS),
                "1": nn.Linear(width, shape.intermediate_size),
                "4": nn.Linear(shape.intermediate_size, width),
            }
        )

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """[B, L, H] -> [B, L, H]."""
        mha, ffn = self.pre_norm_mha, self.pre_norm_ffn
        x = x + mha["1"](mha["0"](x), padding)
        return x + ffn["4"](F.gelu(ffn["1"](ffn["0"](x))))


class PositionTable(nn.Module):
    """A learned table [1, 1, L, H]; shorter texts get it resized (bilinear over length), as upstream."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, length, width))

    def forward(self, length: int) -> Tensor:
        """[1, length, H]."""
        table: Tensor = self.pos_embed
        if length != table.shape[2]:
            table = F.interpolate(table, size=(length, table.shape[3]), mode="bilinear", align_corners=False)
        return table[0]


class MobileClipTower(nn.Module):
    """int ids [B, L] -> [B, E]; the end of text is the highest id of its vocabulary, 0 pads behind it."""

    def __init__(self, shape: MobileClipShape, embed_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.projection_layer = nn.Parameter(torch.zeros(shape.hidden_size, embed_dim))
        self.embedding_layer = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.positional_embedding = nn.ModuleDict(
            {"pos_embed": PositionTable(shape.max_position_embeddings, shape.hidden_size)}
        )
        self.transformer = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.final_layer_norm = LayerNormFp32(shape.hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """int [B, L], padding bool [B, L] or None -> [B, E], not normalised: read at the highest id of each row.

        As upstream's code: ids of another length than the table's get it stretched. The models call `read`.
        """
        return self.project(self._at_end(ids, padding))

    def read(self, ids: Tensor) -> Tensor:
        """int [B, L] -> [B, H], before the projection; padded to the table's length, so that a text has one vector."""
        return self._at_end(F.pad(ids, (0, max(0, self.shape.max_position_embeddings - ids.shape[-1]))), None)

    def _at_end(self, ids: Tensor, padding: Tensor | None) -> Tensor:
        states = self.states(ids, padding)  # [B, L, H]
        end = ids.argmax(dim=-1)  # [B]
        return states[torch.arange(len(ids), device=ids.device), end]

    def project(self, read: Tensor) -> Tensor:
        """[B, H] -> [B, E]."""
        return read @ self.projection_layer

    def states(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """int [B, L] -> [B, L, H] after the final norm.

        Raises:
            ValueError: if the text is longer than the position table.
        """
        if ids.ndim != 2 or ids.shape[1] > self.shape.max_position_embeddings:
            raise ValueError(f"ids are [B, L] with L <= {self.shape.max_position_embeddings}, got {list(ids.shape)}")
        x = self.embedding_layer(ids) + self.positional_embedding["pos_embed"](ids.shape[1])
        for layer in self.transformer:
            x = layer(x, padding)
        return self.final_layer_norm(x)
