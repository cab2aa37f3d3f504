"""Look at a file before a decoder does: what it is, its packet table, and whether decord can be trusted with it.

decord numbers frames by packets. Where the table is not clean (hidden frames, missing or repeated time stamps, frames
shown before their key frame) it gives wrong frames without a word, or hangs; such files go to PyAV.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,ivf,nut,mxf,dv,swf"
)
CLEAN_FORMATS = ("mov", "matroska", "webm")
DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mjpeg", "mpeg1video", "mpeg2video", "prores"})
MAX_PIXELS = 8192 * 4320  # 8K; a 16000 x 16000 picture of 0.8 MB takes 2 GB to decode


class Unusable(Exception):
    """A file no decoder should open, or that gave nothing: `reason` goes to the error column, the rest to detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Table:
    """What the packets say. `pts_s` are presentation times in order, seconds, of frames that are meant to be shown."""

    pts_s: tuple[float, ...]
    clean: bool
    why: str  # why it is not clean, "" when it is
    facts: dict[str, Any]  # width, height, fps, duration_s, codec


def regular(path: Path) -> os.stat_result:
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
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, Any]]:
    """The open container and its best video stream; no playlists, no network. Errors come as Unusable."""
    size = regular(path).st_size
    try:
        container = av.open(
            str(path), metadata_errors="ignore", options={"protocol_whitelist": "file", "format_whitelist": FORMATS}
        )
    except (av.error.FFmpegError, ValueError, OSError) as e:
        raise Unusable("unreadable", f"{type(e).__name__}: {getattr(e, 'strerror', None) or e}") from None
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise Unusable("no_video_stream", f"{container.format.name} without a video stream that can be decoded")
        if stream.width * stream.height > MAX_PIXELS:
            raise Unusable("too_large", f"{stream.width}x{stream.height} is over {MAX_PIXELS} pixels")
        if container.format.name.startswith("mov"):
            end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
            if end > size:
                raise Unusable("truncated", f"its table reaches to byte {end}, the file has {size}")
        yield container, stream


def probe(path: Path) -> dict[str, Any]:
    """width, height (as shown, pixels), fps, duration_s, codec, from the header alone; Unusable when it has none."""
    with opened(path) as (container, stream):
        return _facts(container, stream)


def preflight(path: Path) -> Table:
    """The packet table of a file, read without decoding; Unusable when there is not one packet of video."""
    with opened(path) as (container, stream):
        facts = _facts(container, stream)
        why = "" if container.format.name.split(",")[0] in CLEAN_FORMATS else f"format {container.format.name}"
        if stream.codec_context.name not in DECORD_CODECS:
            why = why or f"codec {stream.codec_context.name}"
        if facts["duration_s"] is None:
            why = why or "no duration"
        times: list[int] = []
        num, newest_key = 0, None
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                num += 1
                if num == 1 and not packet.is_keyframe:
                    why = why or "does not begin with a key frame"
                if packet.is_discard or packet.is_corrupt:
                    why = why or "packets marked discard or corrupt"
                if packet.pts is None:
                    why = why or "packets without a time"
                    continue
                if packet.is_keyframe:
                    newest_key = packet.pts
                elif newest_key is not None and packet.pts < newest_key:
                    why = why or "frames shown before their key frame"
                if not packet.is_discard:
                    times.append(packet.pts)
        except av.error.FFmpegError as e:
            why = why or f"packets end with {type(e).__name__}"
        if num == 0:
            raise Unusable("unreadable", "not one packet of video")
        if len(set(times)) != len(times):
            why = why or "a time twice"
        if stream.frames and stream.frames != num:
            why = why or f"header says {stream.frames} frames, packets are {num}"
        base = float(stream.time_base or 1)
        return Table(tuple(sorted(t * base for t in times)), not why, why, facts)


def _facts(container: Any, stream: Any) -> dict[str, Any]:
    duration = None
    if stream.duration:
        duration = float(stream.duration * stream.time_base)
    elif container.duration:
        duration = container.duration / av.time_base
    rate = stream.average_rate
    return {
        "width": stream.width,
        "height": stream.height,
        "fps": float(rate) if rate else None,
        "duration_s": duration,
        "codec": stream.codec_context.name,
    }
