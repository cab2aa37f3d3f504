"""Small videos of many formats, made on the fly. Every picture carries its number, so a wrong one shows."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def picture(n: int, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3]: a slope that wanders, and eight broad bars that are the bits of n."""
    y, x = np.mgrid[:height, :width]
    out = np.stack([(x * 2 + n * 5) % 160, (y * 2 + n * 3) % 160, (x + y + n) % 160], -1).astype(np.uint8)
    for bit in range(8):
        out[: height // 3, bit * width // 8 : (bit + 1) * width // 8] = 230 if n >> bit & 1 else 20
    return out


def write(
    path: Path,
    codec: str = "libx264",
    num: int = 60,
    size: tuple[int, int] = (64, 64),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    stamps: Callable[[int], int] = lambda n: n,
    rate: int = 12,
    rotation: int = 0,
    mirror: dict[str, bool] | None = None,
    aspect: Fraction | None = None,
    first: int = 0,
) -> Path:
    """A video of the pictures from number `first` on; the n-th is shown at stamps(n) / rate seconds."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation or mirror:
            stream.set_display_rotation(rotation, **mirror or {})
        for n in range(num):
            frame = av.VideoFrame.from_ndarray(picture(first + n, *size), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = stamps(n), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source: Path, target: Path, change: Callable, muxer: dict[str, str] | None = None) -> Path:
    """The same packets in another file; `change(packet, n)` alters one or returns None to leave it out."""
    with av.open(str(source)) as given, av.open(str(target), "w", options=muxer or {}) as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for n, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet = change(packet, n)
            if packet is not None:
                packet.stream = stream
                container.mux(packet)
    return target


def hidden(path: Path, num: int) -> Path:
    """An mp4 whose edit list hides the first `num` pictures, as a cut without re-encoding leaves it."""
    source = write(path.with_name(f"whole-{path.name}"), options={"g": "24", "bf": "2"})

    def earlier(packet: av.Packet, n: int) -> av.Packet:
        shift = int(Fraction(num, 12) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return packet

    return remux(source, path, earlier, {"avoid_negative_ts": "disabled"})


B = {"g": "12", "bf": "3"}
OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=6:bframes=3:b-pyramid=normal"}
QUIET265 = "log-level=none:keyint=16:min-keyint=8:bframes=3"

FORMATS: dict[str, Callable[[Path], Path]] = {
    "h264_b.mp4": lambda p: write(p, options=B),
    "h264_long_groups.mp4": lambda p: write(p, options={"g": "250", "bf": "3", "sc_threshold": "0"}, num=120),
    "h264_open_gop.mp4": lambda p: write(p, options=OPEN),
    "h264_open_gop.mkv": lambda p: write(p, options=OPEN),
    "h264_intra_refresh.mp4": lambda p: write(p, options={"x264-params": "intra-refresh=1:keyint=12:bframes=2"}),
    "h264_fragmented.mp4": lambda p: write(p, options=B, muxer={"movflags": "frag_keyframe+empty_moov"}),
    "h264_interlaced.mp4": lambda p: write(p, options={**B, "x264-params": "tff=1"}),
    "h264_10bit.mp4": lambda p: write(p, options=B, pix_fmt="yuv420p10le"),
    "h264_odd_size.mp4": lambda p: write(p, options=B, size=(67, 49), pix_fmt="yuv444p"),
    "h264_vfr.mp4": lambda p: write(p, options=B, stamps=lambda n: n + n // 3 + 7 * (n // 20)),
    "h264_vfr.mkv": lambda p: write(p, options=B, stamps=lambda n: n + n // 3 + 7 * (n // 20)),
    "h264_turned.mp4": lambda p: write(p, options=B, size=(96, 64), rotation=90),
    "h264_upside_down.mp4": lambda p: write(p, options=B, size=(96, 64), rotation=180),
    "h264_wide_pixels.mp4": lambda p: write(p, options=B, aspect=Fraction(4, 3)),
    "h264_edit_list.mp4": lambda p: hidden(p, 7),
    "h264.ts": lambda p: write(p, options=B),
    "h264.flv": lambda p: write(p, options=B),
    "h264.avi": lambda p: write(p, options=B),
    "h264.h264": lambda p: write(p, options=B),
    "hevc_open_gop.mp4": lambda p: write(p, "libx265", options={"x265-params": QUIET265}),
    "hevc_closed_gop.mp4": lambda p: write(p, "libx265", options={"x265-params": QUIET265 + ":open-gop=0"}),
    "hevc.mkv": lambda p: write(p, "libx265", options={"x265-params": QUIET265}),
    "hevc.ts": lambda p: write(p, "libx265", options={"x265-params": QUIET265}),
    "vp8.webm": lambda p: write(p, "libvpx", options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "vp9.webm": lambda p: write(p, "libvpx-vp9", options={"g": "20", "cpu-used": "8", "lag-in-frames": "16"}),
    "av1.mp4": lambda p: write(p, "libsvtav1", options={"g": "20", "preset": "12"}),
    "av1.mkv": lambda p: write(p, "libsvtav1", options={"g": "20", "preset": "12"}),
    "mpeg4_b.mp4": lambda p: write(p, "mpeg4", options=B),
    "mpeg4_b.avi": lambda p: write(p, "mpeg4", options=B),
    "mpeg4.mov": lambda p: write(p, "mpeg4", options={"g": "12"}),
    "mpeg2.mpg": lambda p: write(p, "mpeg2video", options={"g": "12", "bf": "2"}, rate=25),
    "mpeg2.ts": lambda p: write(p, "mpeg2video", options={"g": "12", "bf": "2"}, rate=25),
    "mjpeg.avi": lambda p: write(p, "mjpeg", pix_fmt="yuvj420p"),
    "mjpeg.mov": lambda p: write(p, "mjpeg", pix_fmt="yuvj420p"),
    "prores.mov": lambda p: write(p, "prores_ks", pix_fmt="yuv422p10le"),
    "gif.gif": lambda p: write(p, "gif", pix_fmt="rgb8"),
    "one_frame.mp4": lambda p: write(p, num=1),
    "two_frames.webm": lambda p: write(p, "libvpx-vp9", num=2, options={"cpu-used": "8"}),
    "three_frames.mp4": lambda p: write(p, num=3, options={"bf": "2"}),
}


def sequential(path: Path, only: set[int] | None = None) -> tuple[dict[int, np.ndarray], list[float]]:
    """Frames of a decode from the beginning as shown, by number (all, or these), and the times of all: the truth."""
    pictures, times = {}, []
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"  # threads mend damaged pictures in their own ways
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            if only is None or len(times) in only:
                pictures[len(times)] = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            times.append(float(frame.time) if frame.time is not None else -1.0)
    return pictures, times
