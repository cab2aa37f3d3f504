"""This process among those that train one model together: torch's DDP or FSDP2 over the ranks that torchrun started."""

import contextlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ivcore.models import device as devices
from ivcore.models.layers import Block
from ivcore.train.objective import Objective

BUCKET = 1 << 25  # numbers that are sent at once


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `count`; a process on its own is rank 0 of 1 and talks to nobody."""

    rank: int = 0
    count: int = 1
    how: str = "ddp"

    @classmethod
    def join(cls, how: str, device: str) -> "Ranks":
        """Join the group that torchrun describes in the environment."""
        backend = "nccl" if devices.choose(device).type == "cuda" else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(backend)
        return cls(dist.get_rank(), dist.get_world_size(), how)

    def device(self, name: str) -> torch.device:
        """The device of this rank: its own where there is one a rank."""
        found = devices.choose(name)
        return torch.device("cuda", torch.cuda.current_device()) if found.type == "cuda" and self.count > 1 else found

    @property
    def sharded(self) -> bool:
        """Each rank holds a part of the parameters."""
        return self.count > 1 and self.how == "fsdp2"

    def wrap(self, objective: Objective, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
        """The objective whose backward leaves the mean gradient over the ranks; parameters may be shards after it.

        Sharded blocks are gathered in `dtype`, the arithmetic of the towers; their gradients are summed in float32.
        """
        if self.count == 1:
            return objective
        if not self.sharded:
            own = [device] if device.type == "cuda" else None
            # A step without matching and masked words leaves their parameters without a gradient.
            return DistributedDataParallel(objective, own, broadcast_buffers=False, find_unused_parameters=True)
        mesh = init_device_mesh(device.type, (self.count,))
        # Autocast decides of the inputs; a block that is computed in bfloat16 need not be sent in float32.
        in_dtype = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in [m for m in objective.modules() if isinstance(m, Block)]:
            fully_shard(block, mesh=mesh, mp_policy=in_dtype)
        # FSDP2 has no shards of a number: the temperature stays whole, and `average` takes its mean.
        return fully_shard(objective, mesh=mesh, reshard_after_forward=False, ignored_params={objective.model.temp})

    def hold_gradients(self, wrapped: Any, last: bool) -> Any:
        """Leave gradients where they are until the last part of a batch."""
        if self.sharded:
            wrapped.set_requires_gradient_sync(last)
        elif self.count > 1 and not last:
            return wrapped.no_sync()
        return contextlib.nullcontext()

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Gradients that no wrapper has looked after: their mean over the ranks, sent in few large pieces."""
        grads = [p.grad for p in parameters if p.grad is not None] if self.count > 1 else []
        sizes = itertools.accumulate(grad.numel() for grad in grads)
        for _, some in itertools.groupby(zip(sizes, grads, strict=True), lambda one: one[0] // BUCKET):
            bucket = [grad for _, grad in some]
            flat = self.mean(torch.cat([grad.flatten() for grad in bucket]))
            for grad, mean in zip(bucket, flat.split([grad.numel() for grad in bucket]), strict=True):
                grad.copy_(mean.view_as(grad))

    def clip(self, parameters: Iterable[Tensor], limit: float) -> Tensor:
        """Norm of all gradients, and these scaled down to `limit` (0: not)."""
        kept, most = [p for p in parameters if p.grad is not None], limit or math.inf
        if not self.sharded:
            norm: Tensor = nn.utils.clip_grad_norm_(kept, most)
            return norm
        shards = [p for p in kept if isinstance(p, DTensor)], [p for p in kept if not isinstance(p, DTensor)]
        norms = [nn.utils.get_total_norm([p.grad for p in part if p.grad is not None]) for part in shards if part]
        total: Tensor = torch.stack([whole(norm) for norm in norms]).norm()
        for part in shards:
            nn.utils.clip_grads_with_norm_(part, most, total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks, on every rank; NaN of one is NaN of all."""
        if self.count == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.count

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all ranks together, on rank 0; elsewhere nothing. On a device there is never more than one."""
        if not self.sharded:
            return dict(tensors)
        found = {}
        for name, value in tensors.items():
            value = whole(value)
            if self.rank == 0:
                found[name] = value.cpu()
        return found

    def any(self, *wishes: bool, device: torch.device) -> list[bool]:
        """For each wish whether one rank has it: what all have to do together is decided so."""
        if self.count == 1:
            return list(wishes)
        return [bool(v > 0) for v in self.mean(torch.tensor(wishes, dtype=torch.float32, device=device)).tolist()]

    @contextlib.contextmanager
    def gathered(self, wrapped: Any) -> Iterator[None]:
        """Inside, parts of the model may be called on their own: FSDP2 looks after whole forwards alone."""
        if self.sharded:
            wrapped.unshard()
        try:
            yield
        finally:
            if self.sharded:
                wrapped.reshard()


ALONE = Ranks()


def whole(value: Tensor) -> Tensor:
    """The tensor of all ranks together; every rank has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def shard_like(value: Tensor, own: Tensor) -> Tensor:
    """This rank's part of `value`, on the device of `own` and in its shards; nobody is asked."""
    value = value.to(own.device)
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
