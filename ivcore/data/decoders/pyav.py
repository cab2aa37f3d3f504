"""Frames by decoding the file from its beginning: slower on long files, right for every file FFmpeg can read."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from ivcore.data.preflight import Table, Unusable, opened

VERSION = f"pyav {av.__version__}"

Wanted = Callable[[list[float]], list[int]]  # presentation times of all frames, seconds -> frame numbers


def decode(path: Path, table: Table, wanted: Wanted) -> tuple[np.ndarray, list[int], list[float]]:
    """The wanted frames, uint8 [T, H, W, 3] as shown (rotated), their numbers, and the times of all frames.

    How many frames come out is known only at the end. The packet table's guess is decoded for; when it was wrong the
    file is decoded once more.

    Raises:
        Unusable: no frame could be decoded.
    """
    guess = wanted(list(table.pts_s)) if table.pts_s else []
    pictures, times = _pass(path, set(guess))
    if not times:
        raise Unusable("unreadable", "not one frame could be decoded")
    indices = wanted(times)
    if not set(indices) <= pictures.keys():
        pictures, _ = _pass(path, set(indices))
    shapes = {pictures[i].shape for i in indices}
    if len(shapes) > 1:
        raise Unusable("size_changes", f"pictures of {len(shapes)} sizes")
    return np.stack([pictures[i] for i in indices]), indices, times


def _pass(path: Path, keep: set[int]) -> tuple[dict[int, np.ndarray], list[float]]:
    """Decode everything; the frames in `keep` as arrays, and the times of all. An error in the stream ends it."""
    pictures: dict[int, np.ndarray] = {}
    times: list[float] = []
    with opened(path) as (container, stream):
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        rate = float(stream.average_rate or 25)
        try:
            for frame in container.decode(stream):
                if len(times) in keep:
                    picture = frame.to_ndarray(format="rgb24")
                    pictures[len(times)] = np.rot90(picture, round(frame.rotation / 90)) if frame.rotation else picture
                times.append(float(frame.time) if frame.time is not None else len(times) / rate)
        except av.error.FFmpegError:
            if not times:
                raise
    return pictures, times
