"""Position tables of the vision tower: make them, read them for an image, resize them to other frames or pixels.

A table is [1, 1 + T*H*W, C]: slot 0 belongs to the class token, then frame by frame, row by row, column by column.
Shapes: T time steps of the grid, H rows, W columns, C width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int, int]  # (T, H, W)


def sincos(width: int, grid: Grid) -> Tensor:
    """The table a tower starts from: float32 [1, 1 + T*H*W, C], class slot zero.

    The first quarter of the channels codes time, the next 3/8 the column, the last 3/8 the row; a 1-D code of d
    channels is d/2 sines, then d/2 cosines of position * 10000^(-j / (d/2)).

    Raises:
        ValueError: if the width cannot be cut so (it must be a multiple of 16).
    """
    if width % 16:
        raise ValueError(f"a 3-D sine table needs a width divisible by 16, got {width}")
    num_t, num_h, num_w = grid
    time = _sincos_1d(width // 4, num_t)[:, None, None, :]  # [T, 1, 1, C/4]
    column = _sincos_1d(width * 3 // 8, num_w)[None, None, :, :]  # [1, 1, W, 3C/8]
    row = _sincos_1d(width * 3 // 8, num_h)[None, :, None, :]  # [1, H, 1, 3C/8]
    parts = [part.expand(num_t, num_h, num_w, -1) for part in (time, column, row)]
    patches = torch.cat(parts, dim=-1).flatten(0, 2)  # [T*H*W, C]
    return torch.cat([patches.new_zeros(1, width), patches])[None]  # [1, 1 + T*H*W, C]


def _sincos_1d(width: int, count: int) -> Tensor:
    # float64, then rounded once: at position 15 the phase of the fastest sine already costs float32 digits
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)  # [d/2]
    phase = torch.arange(count, dtype=torch.float64)[:, None] * frequency  # [count, d/2]
    return torch.cat([phase.sin(), phase.cos()], dim=-1).float()  # [count, d]


def image_table(table: Tensor, grid: Grid) -> Tensor:
    """A video table read for a single frame: class slot, then the mean over time; [1, 1 + H*W, C], differentiable."""
    num_t, num_h, num_w = grid
    patches = table[:, 1:].unflatten(1, (num_t, num_h * num_w)).mean(dim=1)  # [1, H*W, C]
    return torch.cat([table[:, :1], patches], dim=1)


def resize(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """The table of one grid as the table of another: [1, 1 + old, C] -> [1, 1 + new, C], same dtype.

    Time first (linear), then space (bicubic, no antialias), both with half-pixel centres; the class slot is copied.
    Computed in float32. Source: upstream models/backbones/internvideo2/pos_embed.py.

    Raises:
        ValueError: if the table does not have 1 + T*H*W slots of the old grid.
    """
    old_t, old_h, old_w = old
    new_t, new_h, new_w = new
    if table.ndim != 3 or table.shape[:2] != (1, 1 + old_t * old_h * old_w):
        raise ValueError(
            f"a table of grid {old} has shape [1, {1 + old_t * old_h * old_w}, C], got {list(table.shape)}"
        )
    width = table.shape[-1]
    patches = table[0, 1:].float()  # [T*H*W, C]
    if new_t != old_t:
        over_time = patches.unflatten(0, (old_t, old_h * old_w)).permute(1, 2, 0)  # [H*W, C, T]
        over_time = F.interpolate(over_time, size=new_t, mode="linear", align_corners=False)
        patches = over_time.permute(2, 0, 1).flatten(0, 1)  # [T'*H*W, C]
    if (new_h, new_w) != (old_h, old_w):
        frames = patches.view(new_t, old_h, old_w, width).permute(0, 3, 1, 2)  # [T', C, H, W]
        frames = F.interpolate(frames, size=(new_h, new_w), mode="bicubic", align_corners=False)
        patches = frames.permute(0, 2, 3, 1).flatten(0, 2)  # [T'*H'*W', C]
    return torch.cat([table[:, :1], patches[None].to(table.dtype)], dim=1)
