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
    """The matrices of the pooling's attention; the biases are vectors beside the matrices. Read by `AttentionPool`."""

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


class AttentionPool(nn.Module):
    """The "clip_projector": the mean of all tokens asks, all tokens answer; [B, N, C] -> [B, P], not normalised.

    As written, keys and values of all tokens are W(norm(x)) + b. With one query a video none of them is needed:
    W_k and its norm's weight move into the query, W_v and its norm stand behind the weighted sum, and what is left of
    the tokens' two norms is one number a token, 1 / deviation, since a query (or a sum) without a mean over its
    channels does not see the tokens' means. That is H * C products a token instead of 2 * C * C.
    """

    def __init__(self, width: int, num_heads: int, out_width: int) -> None:
        super().__init__()
        self.norm1_q = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm1_k = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm1_v = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.cross_attn = CrossAttention(width, num_heads, out_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, P]; in float32 up to the last product."""
        with torch.autocast(tokens.device.type, enabled=False):
            read = self._read(tokens.to(torch.promote_types(tokens.dtype, torch.float32)))  # [B, C]
        return self.cross_attn.proj(read.to(tokens.dtype))  # [B, P]

    def _read(self, x: Tensor) -> Tensor:
        """What the heads read, side by side: [B, N, C] -> [B, C]."""
        attn, heads = self.cross_attn, self.cross_attn.num_heads

        def wide(parameter: Tensor) -> Tensor:
            return parameter.to(x.dtype)

        scale = (x.var(dim=-1, correction=0) + LAYER_NORM_EPS).rsqrt()[:, None]  # [B, 1, N], 1 / deviation
        mean = F.layer_norm(
            x.mean(dim=1), x.shape[-1:], wide(self.norm1_q.weight), wide(self.norm1_q.bias), LAYER_NORM_EPS
        )
        query = F.linear(mean, wide(attn.q.weight), wide(attn.q_bias)).unflatten(-1, (heads, -1))  # [B, H, D]
        folded = torch.einsum("bhd,hdc->bhc", query, wide(attn.k.weight).unflatten(0, (heads, -1)))
        folded = _centred(folded * wide(self.norm1_k.weight)) * query.shape[-1] ** -0.5  # [B, H, C]
        # A key's bias adds the same to all scores of a head, which softmax does not see; the gradient is an exact zero.
        unseen = 0.0 * (wide(attn.k_bias).sum() + wide(self.norm1_k.bias).sum())
        weights = (folded @ x.transpose(1, 2) * scale + unseen).softmax(dim=-1)  # [B, H, N]
        value = _centred((weights * scale) @ x) * wide(self.norm1_v.weight) + wide(self.norm1_v.bias)  # [B, H, C]
        read = torch.einsum("bhc,hdc->bhd", value, wide(attn.v.weight).unflatten(0, (heads, -1)))  # [B, H, D]
        return read.flatten(1) + wide(attn.v_bias)


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


def _centred(x: Tensor) -> Tensor:
    """Less the mean over the last axis."""
    return x - x.mean(dim=-1, keepdim=True)
