"""Blocks against the plainest transcription of their formulas, in float64."""

import math

import pytest
import torch
from torch import Tensor

from ivcore.models.layers import AttentionPool, Block, DropPath, LayerScale, RMSNorm


def fill(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3 + (1.0 if p.ndim == 1 else 0.0))
    return module.double().eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def attention(x: Tensor, block: Block, per_head_norm: bool = False) -> Tensor:
    """One head at a time, one sample at a time."""
    a = block.attn
    width, dim = x.shape[-1], x.shape[-1] // a.num_heads
    out = torch.empty_like(x)
    for b, sample in enumerate(x):
        qkv = sample @ a.qkv.weight.T
        q, k, v = qkv[:, :width], qkv[:, width : 2 * width], qkv[:, 2 * width :]
        if not per_head_norm:
            q, k = rms(q, a.q_norm.weight), rms(k, a.k_norm.weight)
        for h in range(a.num_heads):
            part = slice(h * dim, (h + 1) * dim)
            qh, kh = q[:, part], k[:, part]
            if per_head_norm:
                qh, kh = rms(qh, a.q_norm.weight[part]), rms(kh, a.k_norm.weight[part])
            out[b, :, part] = (qh @ kh.T / math.sqrt(dim)).softmax(-1) @ v[:, part]
    return out @ a.proj.weight.T + a.proj.bias


def gelu(x: Tensor, kind: str) -> Tensor:
    if kind == "erf":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def transcribed(x: Tensor, block: Block, kind: str, per_head_norm: bool = False) -> Tensor:
    x = x + block.ls1.gamma * attention(rms(x, block.norm1.weight), block, per_head_norm)
    hidden = gelu(rms(x, block.norm2.weight) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias, kind)
    return x + block.ls2.gamma * (hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)


@pytest.mark.parametrize("kind", ["tanh", "erf"])
def test_block_is_its_formula(kind: str) -> None:
    block = fill(Block(24, 3, 40, kind, 1.0, False, 0.0))
    x = draw(2, 5, 24)
    torch.testing.assert_close(block(x), transcribed(x, block, kind), rtol=1e-11, atol=1e-11)


def test_norm_over_full_width_is_not_norm_per_head() -> None:
    block = fill(Block(24, 3, 40, "tanh", 1.0, False, 0.0))
    x = draw(2, 5, 24)
    assert (block(x) - transcribed(x, block, "tanh", per_head_norm=True)).abs().max() > 1e-2


def test_pool_is_its_formula() -> None:
    pool = fill(AttentionPool(24, 4, 10))
    x = draw(2, 7, 24)
    c = pool.cross_attn

    def norm(y: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
        y = y - y.mean(-1, keepdim=True)
        return y / (y.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias

    q = norm(x.mean(1), pool.norm1_q) @ c.q.weight.T + c.q_bias  # [B, C]
    k = norm(x, pool.norm1_k) @ c.k.weight.T + c.k_bias
    v = norm(x, pool.norm1_v) @ c.v.weight.T + c.v_bias
    read = torch.empty_like(q)
    for h in range(4):
        part = slice(6 * h, 6 * h + 6)
        scores = torch.einsum("bd,bnd->bn", q[:, part] * 6**-0.5, k[:, :, part])
        read[:, part] = torch.einsum("bn,bnd->bd", scores.softmax(-1), v[:, :, part])
    torch.testing.assert_close(pool(x), read @ c.proj.weight.T + c.proj.bias, rtol=1e-11, atol=1e-11)


def test_rms_norm_keeps_the_dtype_and_counts_in_float32() -> None:
    norm = RMSNorm(4)
    x = torch.tensor([[300.0, -300.0, 300.0, 300.0]], dtype=torch.float16)  # the square does not fit float16
    assert norm(x).dtype == torch.float16
    torch.testing.assert_close(norm(x), torch.tensor([[1.0, -1.0, 1.0, 1.0]], dtype=torch.float16))


def test_layer_scale_in_float32_rounds_once() -> None:
    scale = LayerScale(1, 1.001, fp32=True)  # 1.001 is 1.0 in bfloat16
    x = torch.full((1, 1), 1000.0, dtype=torch.bfloat16)
    assert scale(x).dtype == torch.bfloat16
    coarse = LayerScale(1, 1.003, fp32=False)
    assert coarse(x).item() == 1000.0
    assert LayerScale(1, 1.003, fp32=True)(x).item() == 1004.0


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    path = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    out = path(x)
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert (out.flatten(1).max(1).values == out.flatten(1).min(1).values).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    assert path.eval()(x) is x
