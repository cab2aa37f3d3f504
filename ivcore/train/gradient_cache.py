"""Gradient caching: the exact loss of a large batch in the memory of a small one (Gao et al. 2021, arXiv 2101.06983).

The batch goes through the towers in chunks without a graph; the loss of all vectors gives each vector its gradient;
then every chunk goes through once more, with a graph and the same random draws, and its gradient is handed in.
Two forwards instead of one is the price. What compares vectors of the whole batch (contrast) is exact. Losses that
need the fusion layers (matching, masked words) are taken chunk by chunk in the second pass, so their negatives come
from the chunk: the published form draws them from a rank's own clips alone, and a chunk takes the place of a rank.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")
Losses = Mapping[str, Tensor]


def cached_backward(
    encode: Callable[[Chunk], tuple[tuple[Tensor, ...], Any]],
    chunks: Sequence[Chunk],
    loss: Callable[..., Losses],
    local: Callable[[Chunk, tuple[Tensor, ...], Any], Losses] | None = None,
    weights: Mapping[str, float] | None = None,
    generators: Sequence[torch.Generator] = (),
) -> dict[str, Tensor]:
    """Losses by name, unweighted and detached; the gradient of their weighted sum is added to the parameters' `.grad`.

    Args:
        encode: a chunk -> (its vectors, e.g. video [b, E] and text [b, E]; the rest that `local` needs, e.g. tokens).
            Called twice a chunk with the same random draws. Under autocast it opens the context itself.
        chunks: the batch in parts, in order; any sizes.
        loss: the vectors of the whole batch, concatenated, one argument a kind -> losses. Parameters that it reads
            itself (the temperature) receive their gradient here.
        local: a chunk, its vectors and its rest -> losses of the chunk, called in the second pass. What is returned is
            summed over the chunks, so a mean has to come weighted with the chunk's share.
        weights: of each loss in the sum; 1 where it is not named.
        generators: what `encode` draws from beside torch's global generators; they are wound back for the second pass.
    """
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_draws(generators))
            parts.append(encode(chunk)[0])
    torch.clear_autocast_cache()  # or the second pass would meet weights that were cast without a graph

    whole = [torch.cat(kind).requires_grad_() for kind in zip(*parts, strict=True)]
    sizes = [len(vectors[0]) for vectors in parts]
    del parts
    found = loss(*whole)
    _weighted(found, weights).backward()
    losses = {name: value.detach() for name, value in found.items()}
    gradients = [[None] * len(sizes) if one.grad is None else one.grad.split(sizes) for one in whole]

    for chunk, state, *given in zip(chunks, states, *gradients, strict=True):
        _wind_back(state, generators)
        vectors, rest = encode(chunk)
        ends = [(v, g) for v, g in zip(vectors, given, strict=True) if v.requires_grad and g is not None]
        if local is not None:
            own = local(chunk, vectors, rest)
            total = _weighted(own, weights)
            if total.requires_grad:
                ends.append((total, torch.ones_like(total)))
            losses.update({name: losses.get(name, 0.0) + value.detach() for name, value in own.items()})
        del rest
        if ends:
            torch.autograd.backward(*zip(*ends, strict=True))
    return losses


def _weighted(losses: Losses, weights: Mapping[str, float] | None) -> Tensor:
    return torch.stack([(weights or {}).get(name, 1.0) * value for name, value in losses.items()]).sum()


def _draws(generators: Iterable[torch.Generator]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The state of every generator: the CPU's, each CUDA device's, the given ones."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda, [g.get_state() for g in generators]


def _wind_back(state: tuple[Tensor, list[Tensor], list[Tensor]], generators: Iterable[torch.Generator]) -> None:
    cpu, cuda, given = state
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    for generator, one in zip(generators, given, strict=True):
        generator.set_state(one)
