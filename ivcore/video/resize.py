"""Frames to the size a model reads: bicubic in float32, rounded and clamped to uint8.

H by W in the file, S by S out.
"""

from collections.abc import Sequence

import numpy as np


def resize(frames: np.ndarray | Sequence[np.ndarray], size: int, antialias: bool, crop: bool = False) -> np.ndarray:
    """T pictures, uint8 [H, W, 3] each -> uint8 [T, S, S, 3].

    antialias=False is what the published models were evaluated with (torchvision 0.14), True what the same call gives
    since torchvision 0.17. crop takes the largest square of the middle; without it the aspect ratio is not kept.
    """
    out = np.empty((len(frames), size, size, 3), np.uint8)
    planes = np.empty((1, 3, 0, 0), np.float32)  # one for all pictures: new memory costs more than the copy into it
    for picture, small in zip(frames, out):
        if crop:
            picture = _square(picture)
        high, wide = picture.shape[:2]
        if (high, wide) == (size, size):
            small[:] = picture
            continue
        import torch  # here, so that who only hands out work does without: 200 MB and a second and a half

        if planes.shape != (1, 3, high, wide):
            planes = np.empty((1, 3, high, wide), np.float32)
        np.copyto(planes[0], picture.transpose(2, 0, 1))
        scaled = torch.nn.functional.interpolate(
            torch.from_numpy(planes), size=(size, size), mode="bicubic", align_corners=False, antialias=antialias
        )
        small[:] = scaled[0].round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return out


def _square(picture: np.ndarray) -> np.ndarray:
    high, wide = picture.shape[:2]
    edge = min(high, wide)
    top, left = (high - edge) // 2, (wide - edge) // 2
    return picture[top : top + edge, left : left + edge]
