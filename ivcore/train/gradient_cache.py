"""Gradient caching: the exact loss of a large batch in the memory of a small one (Gao et al. 2021, arXiv 2101.06983).

The batch goes through the towers in chunks without a graph; the loss of all vectors gives each vector its gradient;
then every chunk goes through once more, with a graph and the same random numbers, and its gradient is handed in.
Two forwards instead of one is the price. What compares vectors of the whole batch (contrast) is exact. Losses that
need the fusion layers (matching, masked words) are taken chunk by chunk in the second pass, so their negatives come
from the chunk: the published form draws them from a rank's own clips alone, and a chunk takes the place of a rank.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")
Losses = dict[str, Tensor]


def cached_backward(
    encode: Callable[[Chunk], tuple[tuple[Tensor, ...], Any]],
    chunks: Sequence[Chunk],
    loss: Callable[..., Losses],
    total: Callable[[Losses], Tensor],
    local: Callable[[Chunk, tuple[Tensor, ...], Any], Losses] | None = None,
) -> Losses:
    """Losses by name, unweighted and detached; the gradient of their `total` is added to the parameters' `.grad`.

    Args:
        encode: a chunk -> (its vectors, e.g. video [b, E] and text [b, E]; the rest that `local` needs, e.g. tokens).
            Called twice a chunk, so it seeds what it draws. Under autocast it opens the context itself.
        chunks: the batch in parts, in order; any sizes.
        loss: the vectors of the whole batch, concatenated, one argument a kind -> losses. Parameters that it reads
            itself (the temperature) receive their gradient here.
        total: losses -> their weighted sum.
        local: a chunk, its vectors and its rest -> losses of the chunk, called in the second pass. What is returned is
            summed over the chunks, so a mean has to come weighted with the chunk's share.
    """
    with torch.no_grad():
        parts = [encode(chunk)[0] for chunk in chunks]
    torch.clear_autocast_cache()  # or the second pass would meet weights that were cast without a graph

    whole = [torch.cat(kind).requires_grad_() for kind in zip(*parts, strict=True)]
    sizes = [len(vectors[0]) for vectors in parts]
    del parts
    found = loss(*whole)
    torch.autograd.backward(total(found))
    losses = {name: value.detach() for name, value in found.items()}
    gradients = [[None] * len(sizes) if one.grad is None else torch.split(one.grad, sizes) for one in whole]

    for chunk, *given in zip(chunks, *gradients, strict=True):
        vectors, rest = encode(chunk)
        ends = [(v, g) for v, g in zip(vectors, given, strict=True) if v.requires_grad and g is not None]
        if local is not None:
            own = local(chunk, vectors, rest)
            if (summed := total(own)).requires_grad:
                ends.append((summed, torch.ones_like(summed)))
            losses.update({name: losses.get(name, 0.0) + value.detach() for name, value in own.items()})
        del rest
        if ends:
            torch.autograd.backward([v for v, _ in ends], [g for _, g in ends])
    return losses
