"""Look at a file before a decoder does: what it is, its packet table, and whether decord can be trusted with it.

A frame is a picture that FFmpeg shows when it decodes the stream; its time is that of its presentation. Times of a clip
count from the beginning of the file: the earliest of its streams, sound included. A stream of video is one that moves:
a cover picture is none, and neither it nor fonts and data are counted among the streams.

decord numbers frames by packets. Where the table is not clean (hidden frames, missing or repeated time stamps, frames
shown before their key frame) it gives wrong frames without a word, or hangs; such files go to PyAV. Where a packet may
be half a frame, the frames are counted by decoding.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from ivcore.video import h264, headers

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,ivf,nut,mxf,dv,swf"
)
CLEAN_FORMATS = ("mov", "matroska", "webm")
DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mjpeg", "mpeg1video", "mpeg2video", "prores"})
NARROWEST = 64  # decord copies rows of narrower pictures wrongly, or fails
MAX_PIXELS = 8192 * 4320  # 8K; a 16000 x 16000 picture of 0.8 MB takes 2 GB to decode
MAX_DURATION_S = 24 * 3600.0
MAX_STREAMS = 64  # of video and sound
DELAY_S = 0.2  # by which sound may precede the first picture, as encoders have it, and the file begins with the picture
MAX_FRAMES = 5_000_000  # a day at 50 a second, and what the table of packets may take of memory
VP8_SHOWN = 0x10  # bit of a VP8 packet's first byte; others are only referred to


class Unusable(Exception):
    """A file no decoder should open, or that gave nothing: `reason` goes to the error column, the rest to detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class PacketTable:
    """What the packets say. Times are presentation times in ticks of `base` seconds, in order."""

    pts: tuple[int, ...]  # of the frames that are meant to be shown
    keys: dict[int, int]  # time of each packet that decoding can begin at -> what to seek for
    base: float
    unclear: str  # why a time of this table does not name one frame, "" when it does
    unclean: str  # why decord cannot be trusted with the file, "" when it can
    facts: dict[str, Any]  # width, height, fps, duration_s, codec; pixel_aspect
    begins_s: float | None = None  # when the file begins, where that is well before its first picture

    @cached_property
    def shown(self) -> frozenset[int]:
        """`pts` as a set."""
        return frozenset(self.pts)

    @cached_property
    def pts_s(self) -> list[float]:
        """`pts` in seconds."""
        return [t * self.base for t in self.pts]


@dataclass(frozen=True)
class Video:
    """An open file, looked through and found fit to be decoded."""

    path: Path
    container: av.container.InputContainer
    stream: Any  # its best video stream
    table: PacketTable


def regular_file(path: Path) -> os.stat_result:
    """The file's stat; Unusable for what is missing, empty, no regular file (a FIFO blocks for ever) or not ours."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Unusable("missing", "no such file") from None
    except OSError as e:
        raise Unusable("unreadable", e.strerror or str(e)) from None
    if not stat.S_ISREG(found.st_mode):
        raise Unusable("not_a_file", f"{stat.filemode(found.st_mode)} is no regular file")
    if found.st_size == 0:
        raise Unusable("empty", "0 bytes")
    if not os.access(path, os.R_OK):
        raise Unusable("unreadable", "no permission to read")
    return found


@contextmanager
def open_container(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The open container and its best video stream; no playlists, no network. Errors come as Unusable."""
    size = regular_file(path).st_size
    if why := headers.cut_short(path, size):
        raise Unusable("truncated", why)
    try:
        container = av.open(
            str(path), metadata_errors="ignore", options={"protocol_whitelist": "file", "format_whitelist": FORMATS}
        )
    except (av.error.FFmpegError, ValueError, OSError) as e:
        if other := headers.no_video(path):
            raise Unusable("not_a_video", f"it is {other}") from None
        raise Unusable("unreadable", f"{type(e).__name__}: {getattr(e, 'strerror', None) or e}") from None
    with container:
        moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        num = len(moving) + len(container.streams.audio)
        if num > MAX_STREAMS:
            raise Unusable("too_large", f"{num} streams of video and sound are over {MAX_STREAMS}")
        best = container.streams.best("video")
        stream = best if best in moving else next(iter(moving), None)
        if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
            raise Unusable("no_video_stream", f"{container.format.name} without a video stream that can be decoded")
        if stream.width * stream.height > MAX_PIXELS:
            raise Unusable("too_large", f"{stream.width}x{stream.height} is over {MAX_PIXELS} pixels")
        if (_duration_s(container, stream) or 0.0) > MAX_DURATION_S:
            raise Unusable("too_large", f"{_duration_s(container, stream):.0f} s are over {MAX_DURATION_S:.0f} s")
        if container.format.name.startswith("mov"):
            end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
            if end > size:
                raise Unusable("truncated", f"its table reaches to byte {end}, the file has {size}")
        yield container, stream


def probe(path: Path) -> dict[str, Any]:
    """width, height (as stored, pixels), fps, duration_s, codec, from the header alone; Unusable when it has none."""
    with open_container(path) as (container, stream):
        return _facts(container, stream)


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """The open file with its packet table, read without decoding; Unusable when there is not one packet of video."""
    with open_container(path) as (container, stream):
        turned = headers.turned(path, path.stat().st_size)
        yield Video(path, container, stream, _packet_table(container, stream, turned))


def _packet_table(container: Any, stream: Any, turned: str) -> PacketTable:
    facts = _facts(container, stream)
    by_pts = container.format.name.split(",")[0] in CLEAN_FORMATS  # others seek by decoding time
    unclean = turned if by_pts else f"format {container.format.name}"
    if facts["codec"] not in DECORD_CODECS:
        unclean = unclean or f"codec {facts['codec']}"
    if facts["width"] < NARROWEST:
        unclean = unclean or f"{facts['width']} pixels wide"
    if facts["duration_s"] is None:
        unclean = unclean or "no duration"
    times: list[int] = []
    keys: dict[int, int] = {}
    newest_key = first_key = 0
    unclear, num = "", 0
    if facts["codec"] == "h264" and h264.may_hold_fields(stream.codec_context.extradata):
        unclear = "pictures may come in two fields"
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            num += 1
            if num > MAX_FRAMES:
                raise Unusable("too_large", f"more than {MAX_FRAMES} frames")
            if packet.pts is None:
                unclear = unclear or "packets without a time"
                continue
            if packet.is_keyframe:
                newest_key = packet.pts
                first_key = first_key if keys else newest_key
                keys[newest_key] = newest_key if by_pts or packet.dts is None else packet.dts
            elif not keys:
                unclear = unclear or "does not begin with a key frame"
            elif packet.pts < first_key:
                unclear = unclear or "frames shown before the first key frame"
            elif packet.pts < newest_key:
                unclean = unclean or "frames shown before their key frame"
            if packet.is_corrupt:
                unclear = unclear or "packets marked corrupt"
            if packet.is_discard:
                unclean = unclean or "packets that are not to be shown"
            elif facts["codec"] != "vp8" or bytes(packet)[0] & VP8_SHOWN:
                times.append(packet.pts)
            else:
                unclean = unclean or "packets that are not to be shown"
    except av.error.FFmpegError as e:
        unclear = unclear or f"packets end with {type(e).__name__}"
    if num == 0:
        raise Unusable("unreadable", "not one packet of video")
    if container.format.name == "avi" and len(keys) < num:
        unclear = unclear or "avi has no presentation times"
    if len(set(times)) != len(times):
        unclear = unclear or "a time twice"
    if stream.frames and stream.frames != num:
        unclean = unclean or f"header says {stream.frames} frames, packets are {num}"
    base = float(stream.time_base or 1)
    begins_s = container.start_time / av.time_base if container.start_time is not None else None
    if begins_s is None or not times or min(times) * base - begins_s < DELAY_S:
        begins_s = None
    return PacketTable(tuple(sorted(times)), keys, base, unclear, unclear or unclean, facts, begins_s)


def _duration_s(container: Any, stream: Any) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if not container.duration:
        return None
    # Matroska counts from 0, not from where the file begins.
    late = max(0, container.start_time or 0) if container.format.name.startswith("matroska") else 0
    return float(container.duration - late) / av.time_base


def _facts(container: Any, stream: Any) -> dict[str, Any]:
    rate = stream.average_rate
    return {
        "width": stream.width,
        "height": stream.height,
        "fps": float(rate) if rate else None,
        "duration_s": _duration_s(container, stream),
        "codec": stream.codec_context.name,
        "pixel_aspect": float(stream.sample_aspect_ratio or 1),
    }
