"""Which frames stand for a clip: index arithmetic alone, no video is opened.

Source: InternVideo2 multi_modality, dataset/video_utils.py (get_frame_indices).
"""

import itertools
import random
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """A rule and its numbers. One rule serves training, scoring and search."""

    rule: str  # middle, rand or fps
    num_frames: int
    fps: float = 1.0  # of the rule fps
    seed: str = ""  # of the rule rand
    shift: float = 0.0  # of the rule middle

    def frames(self, num: int, rate: float) -> list[int]:
        """`num_frames` of the numbers 0 to num - 1, for a clip of `num` frames at `rate` a second.

        Raises:
            ValueError: the clip has no frame, or the rule is unknown.
        """
        if self.rule == "middle":
            return middle(num, self.num_frames, self.shift)
        if self.rule == "rand":
            return rand(num, self.num_frames, random.Random(self.seed))
        if self.rule == "fps":
            found = every(num, self.fps, rate, self.num_frames) or middle(num, 1)
            return found + [found[-1]] * (self.num_frames - len(found))
        raise ValueError(f"no sampling rule {self.rule!r}; there are middle, rand, fps")


def middle(num: int, num_frames: int, shift: float = 0.0) -> list[int]:
    """The middle frame of each of `num_frames` equal segments; a short clip repeats its last index.

    `shift`, a share of a segment, moves on from the middle and around within the segment: another sampling.

    >>> middle(16, 8)
    [0, 2, 4, 6, 8, 10, 12, 14]
    >>> middle(250, 4)
    [30, 93, 155, 218]
    >>> middle(3, 5)
    [0, 1, 2, 2, 2]
    >>> middle(16, 8, shift=0.5)
    [1, 3, 5, 7, 9, 11, 13, 15]
    """
    segments = _segments(num, num_frames)
    out = [a + ((b - a - 1) // 2 + round(shift * (b - a))) % (b - a) for a, b in segments]
    return out + [out[-1]] * (num_frames - len(out))


def rand(num: int, num_frames: int, chance: random.Random) -> list[int]:
    """One frame drawn from each of `num_frames` equal segments, never a segment's last one (as published).

    Where a segment has but one frame the whole set is a sorted draw without repeats; a short clip repeats its last.
    """
    segments = _segments(num, num_frames)
    if all(b - a > 1 for a, b in segments):
        return [chance.randrange(a, b - 1) for a, b in segments]
    out = sorted(chance.sample(range(num), len(segments)))
    return out + [out[-1]] * (num_frames - len(out))


def every(num: int, fps: float, rate: float, most: int | None = None) -> list[int]:
    """The frames at half a step and then every 1 / fps seconds, at most `most`; [] for a clip shorter than half a step.

    >>> every(75, 1.0, 25.0)
    [12, 38, 62]
    """
    if num < 1 or fps <= 0 or rate <= 0:
        raise ValueError(f"every needs frames and rates above 0, got {num} frames, {fps:g} of {rate:g} a second")
    step = 1 / fps
    instants = np.arange(step / 2, num / rate + step / 2, step)
    found = [int(i) for i in np.around(instants * rate) if i < num]
    return found[:most]


def _segments(num: int, num_frames: int) -> list[tuple[int, int]]:
    """min(num, num_frames) equal segments [a, b).

    The edges are linspace truncated to integers, as upstream has it: in floating point, so not quite i * n // k.
    """
    if num < 1 or num_frames < 1:
        raise ValueError(f"at least one frame of one is needed, got {num_frames} of {num}")
    edges = np.linspace(0, num, min(num, num_frames) + 1).astype(int).tolist()
    return list(itertools.pairwise(edges))
