"""Frames by PyAV: from the key frame before each wanted frame, decoding only what the wanted frames refer to.

Frames are found by their time, not by counting, so a frame that comes out is the one asked for. Where that does not
give every frame (the table is unclear, a seek lands late, a picture is damaged), it is decoded from the beginning.
"""

import bisect
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type

from ivcore.video.decoders import Pictures, Wanted
from ivcore.video.probe import Unusable, Video, open_container

VERSION = f"pyav {av.__version__}"
NEVER_SKIP = ("libdav1d",)  # reads skip_frame once, when it is opened


class Missed(Exception):
    """Seeking did not give every wanted frame; the message says why."""


def decode(video: Video, wanted: Wanted) -> Pictures:
    """The wanted frames, by seeking where that is sure, else by `sequential`.

    Raises:
        Unusable: no frame could be decoded.
    """
    try:
        return _seeking(video, wanted)
    except (Missed, av.error.FFmpegError) as e:
        return sequential(video, wanted, f"decoded from the beginning: {e}")


def sequential(video: Video, wanted: Wanted, note: str = "") -> Pictures:
    """The wanted frames of a decode from the beginning: slow on long files, and by definition right.

    How many frames come out is known only at the end. The packet table's guess is decoded for; when it was wrong the
    file is decoded once more.

    Raises:
        Unusable: no frame could be decoded.
    """
    guess = wanted(video.table.pts_s) if video.table.pts else []
    found = _pass(video, set(guess))
    if not found.times:
        raise Unusable("unreadable", "not one frame could be decoded")
    index = wanted(found.times)
    if not set(index) <= found.pictures.keys():
        found = _pass(video, set(index))
    notes = [note, f"{found.ended} after {len(found.times)} frames" if found.ended else ""]
    damaged = len(found.damaged & set(index))
    notes += [f"{damaged} damaged pictures of {len(index)}" if damaged else ""]
    pictures = [found.pictures[i] for i in index]
    return Pictures(pictures, index, found.times, "; ".join(filter(None, notes)), damaged)


def _seeking(video: Video, wanted: Wanted) -> Pictures:
    """One seek for each group of pictures that holds wanted frames."""
    table = video.table
    if table.unclear:
        raise Missed(table.unclear)
    index = wanted(table.pts_s)
    keys = sorted(table.keys)
    groups: dict[int, set[int]] = defaultdict(set)
    for pts in {table.pts[i] for i in index}:
        groups[keys[bisect.bisect_right(keys, pts) - 1]].add(pts)
    _one_thread(video.stream)
    found: dict[int, np.ndarray] = {}
    for key in sorted(groups):
        found |= _group(video, key, groups[key])
    return Pictures([found[table.pts[i]] for i in index], index, table.pts_s)


def _group(video: Video, key: int, want: set[int]) -> dict[int, np.ndarray]:
    """The pictures of the times `want`, which follow the key frame at the time `key`; Missed when one is not there."""
    context, last = video.stream.codec_context, max(want)
    skips = context.name not in NEVER_SKIP
    begun, sure, newest = False, key not in video.table.shown, -math.inf
    found: dict[int, np.ndarray] = {}
    video.container.seek(video.table.keys[key], stream=video.stream)
    for packet in video.container.demux(video.stream):
        if not begun:
            begun = packet.is_keyframe and packet.pts == key
            if not begun and (packet.pts is None or (packet.is_keyframe and packet.pts > key)):
                raise Missed("a seek came after its key frame")
            if not begun:
                continue
        # What nothing refers to and nobody wants is not decoded.
        context.skip_frame = "NONREF" if skips and packet.size and packet.pts not in want else "DEFAULT"
        for frame in packet.decode():
            # A gradual refresh begins at a "key" that is no whole picture: what follows may be wrong.
            sure = sure or (frame.pts == key and frame.pict_type == av.video.frame.PictureType.I)
            if frame.pts is None or frame.pts > last or frame.pts <= newest:
                raise Missed("a frame did not come out at its time")
            newest = frame.pts
            if frame.is_corrupt:  # how it is mended depends on what was decoded before
                raise Missed("a damaged picture")
            if frame.pts in want:
                if not sure:
                    raise Missed("no whole key frame")
                found[frame.pts] = _picture(frame)
            if len(found) == len(want):
                return found
    raise Missed("frames ended early")


@dataclass
class _Pass:
    """What a decode from the beginning gave: some pictures by number, all times, numbers of damaged ones, its end."""

    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    ended: str = ""


def _pass(video: Video, keep: set[int]) -> _Pass:
    """Decode everything and keep the frames in `keep`. An error in the stream ends it.

    What follows a damaged picture may rest on it, until a whole key frame comes.
    """
    found, hurt = _Pass(), False
    times = found.times
    with open_container(video.path) as (container, stream):
        _one_thread(stream)
        rate = float(stream.average_rate or 25)
        try:
            for frame in container.decode(stream):
                hurt = frame.is_corrupt or (hurt and not frame.key_frame)
                if hurt:
                    found.damaged.add(len(times))
                if len(times) in keep:
                    found.pictures[len(times)] = _picture(frame)
                times.append(float(frame.time) if frame.time is not None else len(times) / rate)
        except av.error.FFmpegError as e:
            if not times:
                raise
            found.ended = f"ends with {type(e).__name__}"
    return found


def _one_thread(stream: av.VideoStream) -> None:
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1


def _picture(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3] as shown: turned to the nearest right angle and mirrored as its display matrix says."""
    picture = frame.reformat(format="rgb24", threads=1).to_ndarray()
    side_data: Any = frame.side_data  # its stubs know names, it is asked by type
    found = side_data.get(Type.DISPLAYMATRIX)
    if found is None:
        return picture
    matrix = np.frombuffer(found, np.int32).reshape(3, 3)  # of what is shown, a column each: right, down
    upright = abs(matrix[0, 0]) >= abs(matrix[0, 1])
    right, down = (matrix[0, 0], matrix[1, 1]) if upright else (matrix[1, 0], matrix[0, 1])
    picture = picture if upright else picture.transpose(1, 0, 2)
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
