"""Which frames stand for a clip: index arithmetic alone, no video is opened.

Source: InternVideo2 multi_modality, dataset/video_utils.py (get_frame_indices, sample='middle').
"""

import itertools

import numpy as np


def middle(num_frames_in_file: int, num_frames: int) -> list[int]:
    """The middle frame of each of `num_frames` equal segments; a short video repeats its last index.

    The edges are linspace truncated to integers, as upstream has it: in floating point, so not quite i * n // k.

    Raises:
        ValueError: one of the counts is below 1.

    >>> middle(16, 8)
    [0, 2, 4, 6, 8, 10, 12, 14]
    >>> middle(250, 4)
    [30, 93, 155, 218]
    >>> middle(3, 5)
    [0, 1, 2, 2, 2]
    """
    if num_frames_in_file < 1 or num_frames < 1:
        raise ValueError(f"middle needs at least one frame of one, got {num_frames} of {num_frames_in_file}")
    num = min(num_frames, num_frames_in_file)
    edges = [int(edge) for edge in np.linspace(0, num_frames_in_file, num + 1).astype(int)]
    out = [(a + b - 1) // 2 for a, b in itertools.pairwise(edges)]
    return out + [out[-1]] * (num_frames - num)
