"""Building blocks of the vision tower: RMS norm, attention, MLP, layer scale, stochastic depth, attention pooling.

Shapes: B videos, N tokens (class token included), C width, H heads, D = C / H, P pooled width.
Unusual here: query and key are normalised over the full width C before they are split into heads, and the pooling's
key bias exists although no output can depend on it (softmax is blind to it) - the published weights carry it.
Source: InternVideo2 multi_modality, models/backbones/internvideo2/internvideo2.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RMS_EPS = 1e-6  # upstream's RMSNorm default
LAYER_NORM_EPS = 1e-5  # torch's default, which upstream keeps in the pooling and the decoders


class RMSNorm(nn.Module):
    """[..., C] -> [..., C]: divided by the root mean square over C, then times a weight; statistics in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; the dtype stays."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), RMS_EPS)


class LayerScale(nn.Module):
    """[..., C] times one learned factor a channel; in float32 (s2) or in the activation dtype (clip)."""

    def __init__(self, width: int, init: float, fp32: bool) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init))
        self.fp32 = fp32

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels; the dtype stays."""
        if self.fp32:
            return (x.float() * self.gamma.float()).to(x.dtype)
        return x * self.gamma.to(x.dtype)


class DropPath(nn.Module):
    """Stochastic depth: in training a sample's whole branch is zeroed with probability `rate`, else scaled up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]; the identity in eval mode."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate  # drawn, like torch's own dropout, from the device's global generator
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep).div_(keep)


class Attention(nn.Module):
    """Full self-attention [B, N, C] -> [B, N, C] with query and key RMS-normalised over the whole width."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = RMSNorm(width)
        self.k_norm = RMSNorm(width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # 3 x [B, N, C]
        q, k, v = (split_heads(t, self.num_heads) for t in (self.q_norm(q), self.k_norm(k), v))  # 3 x [B, H, N, D]
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))  # [B, N, C]


class MLP(nn.Module):
    """[B, N, C] -> [B, N, C] through one hidden layer; GELU is "tanh" (published fused weights) or "erf" (exact)."""

    def __init__(self, width: int, hidden: int, gelu: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.approximate = {"tanh": "tanh", "erf": "none"}[gelu]

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class Block(nn.Module):
    """One pre-norm transformer block: x + ls1(attn(norm1 x)), then x + ls2(mlp(norm2 x))."""

    def __init__(
        self, width: int, num_heads: int, hidden: int, gelu: str, scale_init: float, scale_fp32: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attn = Attention(width, num_heads)
        self.ls1 = LayerScale(width, scale_init, scale_fp32)
        self.norm2 = RMSNorm(width)
        self.mlp = MLP(width, hidden, gelu)
        self.ls2 = LayerScale(width, scale_init, scale_fp32)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class CrossAttention(nn.Module):
    """One query reads all tokens: [B, 1, C] x [B, N, C] -> [B, 1, P]; the biases are vectors beside the matrices."""

    def __init__(self, width: int, num_heads: int, out_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.k_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, out_width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, 1, C], [B, N, C], [B, N, C] -> [B, 1, P]."""
        q = split_heads(F.linear(query, self.q.weight, self.q_bias), self.num_heads)  # [B, H, 1, D]
        k = split_heads(F.linear(key, self.k.weight, self.k_bias), self.num_heads)  # [B, H, N, D]
        v = split_heads(F.linear(value, self.v.weight, self.v_bias), self.num_heads)  # [B, H, N, D]
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))  # [B, 1, P]


class AttentionPool(nn.Module):
    """The "clip_projector": the mean of all tokens asks, all tokens answer; [B, N, C] -> [B, P], not normalised."""

    def __init__(self, width: int, num_heads: int, out_width: int) -> None:
        super().__init__()
        self.norm1_q = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm1_k = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm1_v = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.cross_attn = CrossAttention(width, num_heads, out_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, P]."""
        query = self.norm1_q(tokens.mean(dim=1, keepdim=True))  # [B, 1, C]
        return self.cross_attn(query, self.norm1_k(tokens), self.norm1_v(tokens)).squeeze(1)  # [B, P]


class Decoder(nn.Module):
    """An alignment decoder: Linear, LayerNorm, unit length; [..., C] -> [..., out]. Only for distillation."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, out_width)
        self.norm = nn.LayerNorm(out_width, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., out], unit vectors."""
        x = self.norm(self.head(x))
        return x / x.norm(dim=-1, keepdim=True)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, N, C] -> [B, H, N, D]."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, N, D] -> [B, N, C]."""
    return x.transpose(1, 2).flatten(2)
