"""The folded attention pooling against the form it is written in: keys and values of every token."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ivcore.models.layers import AttentionPool, merge_heads, split_heads

SIZES = [(2, 7, 24, 4, 10), (3, 65, 96, 4, 128), (2, 257, 384, 16, 768), (1, 206, 1408, 16, 768)]  # B, N, C, H, P


def written(pool: AttentionPool, tokens: Tensor) -> Tensor:
    """[B, N, C] -> [B, P] as published: three norms, three matrices with biases beside them, attention, a matrix."""
    attn = pool.cross_attn
    query = pool.norm1_q(tokens.mean(dim=1, keepdim=True))
    sides = ((query, "q"), (pool.norm1_k(tokens), "k"), (pool.norm1_v(tokens), "v"))
    q, k, v = (
        split_heads(F.linear(x, getattr(attn, n).weight, getattr(attn, f"{n}_bias")), attn.num_heads) for x, n in sides
    )
    return attn.proj(merge_heads((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v)).squeeze(1)


def filled(width: int, num_heads: int, out_width: int) -> AttentionPool:
    pool, draw = AttentionPool(width, num_heads, out_width), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in pool.named_parameters():
            spread = 0.2 if p.ndim == 1 else width**-0.5
            p.copy_(torch.randn(p.shape, generator=draw) * spread + ("norm" in name and name.endswith("weight")))
    return pool


def tokens_of(batch: int, num: int, width: int) -> Tensor:
    """Tokens as a trunk without a last norm leaves them: far from zero mean, of unequal size, some channels large."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, num, width, generator=draw) * torch.rand(batch, num, 1, generator=draw).mul(5).add(0.5)
    return x + torch.randn(width, generator=draw) * 2 + 0.7


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_same_output_and_same_gradients(size):
    batch, num, width, num_heads, out_width = size
    pool, plain = filled(width, num_heads, out_width), filled(width, num_heads, out_width)
    tokens, seen = tokens_of(batch, num, width), tokens_of(batch, num, width)
    pull = torch.randn(batch, out_width, generator=torch.Generator().manual_seed(2))
    ours, expected = pool(tokens.requires_grad_()), written(plain, seen.requires_grad_())
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    (ours * pull).mean().backward()
    (expected * pull).mean().backward()
    names = dict(plain.named_parameters())
    assert len(names) == 14
    for name, parameter in [*pool.named_parameters(), ("tokens", tokens)]:
        gradient = seen.grad if name == "tokens" else names[name].grad
        torch.testing.assert_close(
            parameter.grad, gradient, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"gradient of {n}: {m}"
        )
        assert name in ("cross_attn.k_bias", "norm1_k.bias") or gradient.abs().max() > 1e-5, name  # not all zeros


def test_in_float64_nothing_is_left_of_the_difference():
    pool, tokens = filled(96, 4, 32).double(), tokens_of(2, 33, 96).double()
    torch.testing.assert_close(pool(tokens), written(pool, tokens), rtol=1e-12, atol=1e-12)


def test_bias_of_the_keys_gets_a_gradient_of_zero():
    pool = filled(24, 4, 10)
    pool(tokens_of(2, 7, 24)).sum().backward()
    for unseen in (pool.cross_attn.k_bias, pool.norm1_k.bias):  # None would be a parameter that DDP waits for
        assert torch.equal(unseen.grad, torch.zeros_like(unseen))


@pytest.mark.parametrize("autocast", [False, True], ids=["pure", "autocast"])
def test_bfloat16_is_no_further_from_the_truth_than_the_written_form(autocast):
    pool, tokens = filled(384, 16, 768), tokens_of(2, 257, 384)
    truth = written(filled(384, 16, 768).double(), tokens.double())
    if not autocast:
        pool, tokens = pool.bfloat16(), tokens.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours, plain = pool(tokens), written(pool, tokens)
    assert ours.dtype == plain.dtype == torch.bfloat16
    error, allowed = ((x.double() - truth).norm() / truth.norm() for x in (ours, plain))
    assert error <= max(1.1 * allowed, 4e-3)  # 4e-3: one rounding to bfloat16 (2**-8)
    assert (ours.double() - plain.double()).norm() / truth.norm() < 2e-2


def test_nothing_as_large_as_the_tokens_is_made():
    pool, tokens = filled(384, 16, 768), tokens_of(2, 1025, 384)
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.data_ptr() != tokens.data_ptr():  # a view of them costs nothing
                made.append((out.numel(), str(func)))
            return out

    with Watch():
        pool(tokens)
    largest, name = max(made)
    assert 0 < largest < tokens.numel(), name
