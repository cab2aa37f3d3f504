"""Contrast over two processes against one process with the whole batch."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from ivcore.losses.ranks import gather
from ivcore.losses.vtc import vtc_loss

IDS = torch.tensor([0, 1, 2, 1])  # 1 lies on both ranks


def whole() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Video and text inputs [4, 5], a weight [5, 3] that both towers share, and a temperature."""
    g = torch.Generator().manual_seed(0)
    weight, temp = torch.randn(5, 3, generator=g), torch.tensor(0.3)
    video, text = torch.randn(4, 5, generator=g), torch.randn(4, 5, generator=g)
    return video, text, weight.requires_grad_(True), temp.requires_grad_(True)


def on_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    own = slice(2 * rank, 2 * rank + 2)
    for gradient in ("full", "local_slice"):
        video, text, weight, temp = whole()
        sides = [gather(side[own] @ weight, gradient) for side in (video, text)]
        loss = vtc_loss(*sides, temp, gather(IDS[own]))
        loss.backward()
        for parameter in (weight, temp):  # as DDP does
            dist.all_reduce(parameter.grad)
            parameter.grad /= 2
        if rank == 0:
            torch.save([loss.detach(), weight.grad, temp.grad], f"{folder}/{gradient}.pt")
    dist.destroy_process_group()


def test_two_ranks_are_one_big_batch(tmp_path: Path) -> None:
    mp.spawn(on_one_of_two, (str(tmp_path),), nprocs=2)
    video, text, weight, temp = whole()
    loss = vtc_loss(video @ weight, text @ weight, temp, IDS)
    loss.backward()
    full = torch.load(tmp_path / "full.pt", weights_only=True)
    torch.testing.assert_close(full, [loss.detach(), weight.grad, temp.grad], rtol=1e-5, atol=1e-6)
    local = torch.load(tmp_path / "local_slice.pt", weights_only=True)
    torch.testing.assert_close(local, [loss.detach(), weight.grad / 2, temp.grad], rtol=1e-5, atol=1e-6)


def test_without_a_group_nothing_happens() -> None:
    rows = torch.randn(3, 2)
    assert gather(rows) is rows
