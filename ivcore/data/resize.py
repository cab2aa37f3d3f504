"""Frames to the size a model reads: bicubic in float32, rounded and clamped to uint8.

H by W in the file, S by S out.
"""

from collections.abc import Sequence

import numpy as np

AT_ONCE = 1 << 20  # pixels; larger pictures one by one, since in float32 they take 12 bytes a pixel


def resize(frames: np.ndarray | Sequence[np.ndarray], size: int, antialias: bool, crop: bool = False) -> np.ndarray:
    """T pictures, uint8 [H, W, 3] each -> uint8 [T, S, S, 3].

    antialias=False is what the published models were evaluated with (torchvision 0.14), True what the same call gives
    since torchvision 0.17. crop takes the largest square of the middle; without it the aspect ratio is not kept.
    """
    if len({f.shape for f in frames}) > 1 or len(frames) * frames[0][..., 0].size > AT_ONCE:
        return np.concatenate([_resize(f[None], size, antialias, crop) for f in frames])
    return _resize(np.asarray(frames), size, antialias, crop)


def _resize(frames: np.ndarray, size: int, antialias: bool, crop: bool) -> np.ndarray:
    if crop:
        high, wide = frames.shape[1:3]
        edge = min(high, wide)
        top, left = (high - edge) // 2, (wide - edge) // 2
        frames = frames[:, top : top + edge, left : left + edge]
    if frames.shape[1:3] == (size, size):
        return np.ascontiguousarray(frames)
    import torch  # here, so that who only hands out work does without: 200 MB and a second and a half

    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()  # [T, 3, H, W]
    scaled = torch.nn.functional.interpolate
    x = scaled(x.contiguous(), size=(size, size), mode="bicubic", align_corners=False, antialias=antialias)
    return x.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()  # [T, S, S, 3]
