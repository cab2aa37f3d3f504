"""One clip to frames, in a worker process: choose the decoder, decode, resize. Imported by the fork server."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from ivcore.video import images
from ivcore.video.decoders import Pictures, pyav
from ivcore.video.probe import Unusable, Video, open_video
from ivcore.video.resize import resize
from ivcore.video.sampling import Sampling

try:
    from ivcore.video.decoders import decord
except (ImportError, OSError):  # no wheel for this machine
    decord = None  # type: ignore[assignment]

TICK = 1e-6  # seconds; times are rounded to binary fractions
STAMP = re.compile(r"^\[\d\d:\d\d:\d\d\] \S+: ")  # decord begins with the time of day: no two runs would be alike


@dataclass(frozen=True)
class Task:
    """One clip to decode; times are seconds from the beginning of the file."""

    path: Path
    which: Sampling | tuple[int, ...]  # a rule, or frame numbers
    size_px: int
    antialias: bool = True
    crop: bool = False
    decoder: str = "auto"  # auto and pyav; decord; sequential (PyAV without seeking); other (decord, or sequential)
    damaged: str = "keep"  # keep or drop
    start_s: float | None = None
    end_s: float | None = None
    deadline_s: float = 20.0  # its worker is killed then


@dataclass(frozen=True)
class Decoded:
    """The frames of a clip, or why there are none."""

    frames: np.ndarray | None  # uint8 [T, S, S, 3]
    frame_index: list[int] | None = None
    pts_s: list[float] | None = None
    num_frames: int | None = None
    pixel_aspect: float | None = None
    decoder: str | None = None
    error: str | None = None
    detail: str | None = None


def decode_file(task: Task) -> Decoded:
    """Decode one clip. What is wrong with the file comes back in `error`, it is not raised.

    Raises:
        MemoryError: this process may have no more memory.
    """
    try:
        if images.is_image(task.path):
            picture = images.read(task.path)[None]  # [1, H, W, 3]
            small = resize(picture, task.size_px, task.antialias, task.crop)
            return Decoded(small, [0], [0.0], 1, 1.0, images.DECODER)
        with open_video(task.path) as video:
            decoder, got = _pictures(task, video)
            if got.damaged and task.damaged == "drop":
                raise Unusable("damaged", got.note)
            small = resize(got.frames, task.size_px, task.antialias, task.crop)
            times = [got.times[i] for i in got.index]
            aspect = video.table.facts["pixel_aspect"]
            return Decoded(small, got.index, times, len(got.times), aspect, decoder, None, got.note or None)
    except Unusable as e:
        return Decoded(None, error=e.reason, detail=_words(e.detail, task.path))
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError, RuntimeError) as e:
        return Decoded(None, error="unreadable", detail=f"{type(e).__name__}: {_words(e, task.path)}")


def _pictures(task: Task, video: Video) -> tuple[str, Pictures]:
    """The decoder that gave the frames, with its version, and what it gave."""

    def wanted(times: list[float]) -> list[int]:
        return choose(times, task.start_s, task.end_s, task.which, video.table.begins_s)

    asked = task.decoder
    if asked == "other":
        asked = "sequential" if video.table.unclean or decord is None else "decord"
    if asked != "decord":
        return pyav.VERSION, (pyav.sequential if asked == "sequential" else pyav.decode)(video, wanted)
    if decord is None:
        raise Unusable("unreadable", "decord is not installed on this machine; use decoder = auto")
    try:
        return decord.VERSION, decord.decode(video, wanted)
    except Unusable:
        raise
    except Exception as e:  # decord raises its own type for nearly everything
        raise Unusable("unreadable", f"decord: {_words(e, task.path)}") from None


def _words(error: Exception | str, path: Path) -> str:
    """What an error says, without what differs from run to run and from machine to machine; at most 200 characters."""
    return STAMP.sub("", str(error).strip()).replace(str(path), path.name)[:200]


def choose(
    times: Sequence[float],
    start_s: float | None,
    end_s: float | None,
    which: Sampling | tuple[int, ...],
    begins_s: float | None = None,
) -> list[int]:
    """Frame numbers of a clip: `which` among the frames from start_s up to (not with) end_s.

    Both count from `begins_s`, the beginning of the file; None: from the first frame.

    Raises:
        Unusable: there is no such frame.

    >>> choose([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 1.0, 2.0, Sampling("middle", 2))
    [2, 3]
    """
    first = begins_s if begins_s is not None else times[0] if times else 0.0
    inside = [
        i
        for i, t in enumerate(times)
        if (start_s is None or t - first >= start_s - TICK) and (end_s is None or t - first < end_s - TICK)
    ]
    if not inside:
        raise Unusable("empty_window", f"no frame between {start_s} s and {end_s} s; the file has {len(times)}")
    if not isinstance(which, Sampling):
        if not all(0 <= i < len(inside) for i in which):
            raise Unusable("empty_window", f"frames {list(which)} of {len(inside)}")
        return [inside[i] for i in which]
    span = times[inside[-1]] - times[inside[0]]
    rate = (len(inside) - 1) / span if span > 0 else 1.0
    return [inside[i] for i in which.frames(len(inside), rate)]
