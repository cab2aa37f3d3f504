"""One decoder a file, each with `VERSION` and `decode(video, wanted)`: full-size RGB frames of an open file.

`wanted` turns the presentation times of all frames (seconds) into the numbers of the frames to give.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Wanted = Callable[[list[float]], list[int]]


@dataclass(frozen=True)
class Pictures:
    """What a decoder gives: frames as shown (rotation applied), their numbers and the times of all frames."""

    frames: list[np.ndarray]  # T of uint8 [H, W, 3]
    index: list[int]
    times: list[float]  # seconds
    note: str = ""
    damaged: int = 0  # of the frames: made up in part by the decoder, or resting on such a one
