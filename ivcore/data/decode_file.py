"""One clip to frames, in a worker process: choose the decoder, decode, resize. Imported by the fork server."""

import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from ivcore.data import sampling
from ivcore.data.decoders import pyav
from ivcore.data.preflight import Table, Unusable, preflight
from ivcore.data.resize import resize

try:
    from ivcore.data.decoders import decord
except (ImportError, OSError):  # no wheel for this machine
    decord = None  # type: ignore[assignment]

TICK = 1e-6  # seconds; times are rounded to binary fractions
STAMP = re.compile(r"^\[\d\d:\d\d:\d\d\] \S+: ")  # decord begins with the time of day: no two runs would be alike


@dataclass(frozen=True)
class Task:
    """One clip to decode; times are seconds from the first frame."""

    path: Path
    start_s: float | None
    end_s: float | None
    num_frames: int
    size_px: int
    antialias: bool
    decoder: str  # auto, decord or pyav


@dataclass(frozen=True)
class Decoded:
    """The frames of a clip, or why there are none."""

    frames: np.ndarray | None  # uint8 [T, S, S, 3]
    frame_index: list[int] | None = None
    pts_s: list[float] | None = None
    num_frames: int | None = None
    decoder: str | None = None
    error: str | None = None
    detail: str | None = None


def decode_file(task: Task) -> Decoded:
    """Decode one clip. What is wrong with the file comes back in `error`, it is not raised."""
    try:
        table = preflight(task.path)
        return _decode(task, table)
    except Unusable as e:
        return Decoded(None, error=e.reason, detail=e.detail[:300])
    except (av.error.FFmpegError, ValueError, RuntimeError, MemoryError) as e:
        return Decoded(None, error="unreadable", detail=f"{type(e).__name__}: {_words(e, task.path)}")


def _decode(task: Task, table: Table) -> Decoded:
    def wanted(times: list[float]) -> list[int]:
        return choose(times, task.start_s, task.end_s, task.num_frames)

    note = None
    if task.decoder != "pyav" and decord is not None and (table.clean or task.decoder == "decord"):
        try:
            return _decoded(task, decord.VERSION, decord.decode(task.path, table, wanted), None)
        except Exception as e:  # decord raises its own type for nearly everything
            if task.decoder == "decord" or (isinstance(e, Unusable) and e.reason == "empty_window"):
                raise (
                    e if isinstance(e, Unusable) else Unusable("unreadable", f"decord: {_words(e, task.path)}")
                ) from None
            note = f"decord failed: {_words(e, task.path)}"
    elif task.decoder == "decord":
        raise Unusable("unreadable", "decord is not installed on this machine; use decoder = auto or pyav")
    elif task.decoder == "auto":
        note = f"decord not used: {table.why or 'not installed'}"
    return _decoded(task, pyav.VERSION, pyav.decode(task.path, table, wanted), note)


def _decoded(task: Task, version: str, got: tuple[np.ndarray, list[int], list[float]], note: str | None) -> Decoded:
    frames, indices, times = got
    small = resize(frames, task.size_px, task.antialias)
    return Decoded(small, indices, [times[i] for i in indices], len(times), version, None, note)


def _words(error: Exception, path: Path) -> str:
    """What an error says, without what differs from run to run and from machine to machine; at most 200 characters."""
    return STAMP.sub("", str(error).strip()).replace(str(path), path.name)[:200]


def choose(times: list[float], start_s: float | None, end_s: float | None, num_frames: int) -> list[int]:
    """Frame numbers of a clip: the middle rule among the frames from start_s up to (not with) end_s.

    >>> choose([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 1.0, 2.0, 2)
    [2, 3]
    """
    first = times[0] if times else 0.0
    inside = [
        i
        for i, t in enumerate(times)
        if (start_s is None or t - first >= start_s - TICK) and (end_s is None or t - first < end_s - TICK)
    ]
    if not inside:
        raise Unusable("empty_window", f"no frame between {start_s} s and {end_s} s; the file has {len(times)}")
    return [inside[i] for i in sampling.middle(len(inside), num_frames)]
