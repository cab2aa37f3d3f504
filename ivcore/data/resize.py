"""Frames to the size a model reads: bicubic in float32, rounded and clamped to uint8; aspect ratio is not kept.

T frames, H by W in the file, S by S out.
"""

import numpy as np
import torch
import torch.nn.functional as F


def resize(frames: np.ndarray, size: int, antialias: bool) -> np.ndarray:
    """uint8 [T, H, W, 3] -> uint8 [T, S, S, 3].

    antialias=False is what the published models were evaluated with (torchvision 0.14), True what the same call gives
    since torchvision 0.17.
    """
    if frames.shape[1:3] == (size, size):
        return np.ascontiguousarray(frames)
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()  # [T, 3, H, W]
    x = F.interpolate(x.contiguous(), size=(size, size), mode="bicubic", align_corners=False, antialias=antialias)
    return x.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()  # [T, S, S, 3]
