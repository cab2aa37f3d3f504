"""Augmented views of a clip, a pure function of seed, clip and view: the tokens of each can be kept, or made again.

View 0 is the plain clip. Every other one is a random resized crop, one for all frames, as published clips are trained
on (area 0.5-1 of the picture, sides 3:4 to 4:3). T frames, S by S pixels.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from ivcore.config import FeaturesConfig
from ivcore.video.resize import resize

AREA = (0.5, 1.0)
RATIO = (3 / 4, 4 / 3)  # width to height
TRIES = 10  # then the whole picture


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


@dataclass(frozen=True)
class Views:
    """How many views a clip has, the plain one included, and what they are drawn from."""

    num: int = 1
    flip: bool = False
    seed: int = 0

    @classmethod
    def of(cls, features: FeaturesConfig, seed: int) -> "Views":
        """Those that the config asks for."""
        return cls(features.views, features.flip, seed)

    def box(self, clip_id: str, view: int, size_px: int) -> Box:
        """Where this view (1 and up) looks in a square picture; how many views there are plays no part."""
        text = f"{self.seed}/{clip_id}/{view}"
        draw = np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
        flip = bool(draw.random() < 0.5) and self.flip
        for _ in range(TRIES):
            area = size_px**2 * draw.uniform(*AREA)
            ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if width <= size_px and height <= size_px:
                top, left = (int(draw.integers(size_px - edge + 1)) for edge in (height, width))
                return Box(top, left, height, width, flip)
        return Box(0, 0, size_px, size_px, flip)

    def cut(self, frames: np.ndarray, clip_id: str, view: int, antialias: bool) -> np.ndarray:
        """uint8 [T, S, S, 3] of a clip -> the same of one of its views."""
        if view == 0:
            return frames
        box = self.box(clip_id, view, frames.shape[1])
        part = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
        out = resize(part, frames.shape[1], antialias)
        return out[:, :, ::-1] if box.flip else out


PLAIN = Views()
