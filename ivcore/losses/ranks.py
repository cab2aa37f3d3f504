"""A batch that lies on several processes, seen whole by the contrastive loss.

Shapes: B rows on this process, W processes (ranks), the same B on each.
Source: InternVideo2 multi_modality, models/utils.py (allgather_wgrad).
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

Gradient = Literal["full", "local_slice"]


def gather(own: Tensor, gradient: Gradient = "full") -> Tensor:
    """[B, ...] of every rank -> [W*B, ...] in rank order; without a process group, `own` itself.

    Args:
        own: this rank's rows.
        gradient: what comes back to `own` when every rank takes the same loss of the gathered rows. full: the sum over
            the ranks, which DDP's mean of the parameters' gradients turns into the gradient of one process with the
            whole batch. local_slice: this rank's own part alone, upstream's way; after DDP's mean that is 1/W of it.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    if gradient == "local_slice":
        parts = _all(own.detach())
        parts[dist.get_rank()] = own
        return torch.cat(parts)
    whole: Tensor = _Gather.apply(own)  # type: ignore[no-untyped-call]
    return whole


def share(count: Tensor) -> Tensor:
    """W times this rank's share of a count over all ranks, float32: a mean of means, weighted so, is the mean of all.

    1 without a process group.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return torch.ones((), device=count.device)
    whole = count.clone()
    dist.all_reduce(whole)
    return dist.get_world_size() * count.float() / whole.clamp(min=1).float()


def _all(own: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.contiguous())
    return parts


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return torch.cat(_all(own))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous().clone()  # [W*B, ...]
        dist.all_reduce(whole)
        return whole.chunk(dist.get_world_size())[dist.get_rank()]
