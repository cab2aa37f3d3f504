"""What the decode benchmark decodes, and the plain loops it is held against: full-size frames, the same resize."""

import importlib
import itertools
from pathlib import Path

import av
import numpy as np

from ivcore.video.decode_file import Decoded
from ivcore.video.probe import open_video
from ivcore.video.resize import resize
from ivcore.video.sampling import middle

RATE, T, EDGE = 25, 8, 224
LONGEST_S = 10  # of the film; longer videos repeat it


def videos(folder: Path, width: int, height: int, seconds: int, num: int) -> None:
    """`num` H.264 files of one film and other bytes: a texture under a moving camera, noise in a quarter of it.

    Nothing refers to 46 to 50 % of its frames; of 45 real clips that share is 46 % in the median.
    """
    folder.mkdir()
    chance = np.random.default_rng(0)
    small = chance.integers(0, 252, (height // 8, width // 4, 3), np.uint8)
    large = np.kron(small, np.ones((16, 8, 1), np.uint8))
    film = folder / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(min(seconds, LONGEST_S) * RATE):
            x, y = int(width / 2 * (1 + np.sin(n / 100))), int(height / 2 * (1 + np.cos(n / 140)))
            picture = large[y : y + height, x : x + width].copy()
            picture[: height // 4] += chance.integers(0, 4, (height // 4, width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    for n in range(num):
        _repeated(film, folder / f"{n:03}.mp4", -(-seconds // LONGEST_S), f"copy {n}")
    film.unlink()


def _repeated(film: Path, path: Path, times: int, title: str) -> None:
    with av.open(str(film)) as given, av.open(str(path), "w") as container:
        container.metadata["title"] = title
        source = given.streams.video[0]
        stream = container.add_stream_from_template(source)
        for turn in range(times):
            given.seek(0)
            for packet in given.demux(source):
                if packet.size:
                    later = int(turn * LONGEST_S / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, stream
                    container.mux(packet)


def _small(pictures: list[np.ndarray], index: list[int], num: int, name: str) -> Decoded:
    return Decoded(resize(pictures, EDGE, True), index, [0.0] * T, num, 1.0, name)


def decord(path: Path) -> Decoded:
    """VideoReader and get_batch."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    index = middle(len(reader), T)
    return _small(list(reader.get_batch(index).asnumpy()), index, len(reader), "decord")


def seek(path: Path) -> Decoded:
    """PyAV: a seek for every frame, and decoding up to it."""
    pictures = []
    with av.open(str(path)) as container:
        stream = _single(container)
        index = middle(stream.frames, T)
        for wanted in [int(i / stream.average_rate / stream.time_base) for i in index]:
            container.seek(wanted, stream=stream)
            frame = next(f for f in container.decode(stream) if f.pts >= wanted)
            pictures.append(frame.to_ndarray(format="rgb24"))
        return _small(pictures, index, stream.frames, "seek")


def sequential(path: Path) -> Decoded:
    """PyAV from the beginning to the last wanted frame."""
    with av.open(str(path)) as container:
        stream = _single(container)
        index = middle(stream.frames, T)
        found = (f for n, f in enumerate(container.decode(stream)) if n in index)
        pictures = [f.to_ndarray(format="rgb24") for f in itertools.islice(found, T)]
        return _small(pictures, index, stream.frames, "sequential")


def torchcodec(path: Path) -> Decoded:
    """VideoDecoder as it is by default (exact) and get_frames_at."""
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    index = middle(len(reader), T)
    return _small(list(reader.get_frames_at(index).data.numpy()), index, len(reader), "torchcodec")


def floor(path: Path) -> Decoded:
    """FFmpeg's decoder on the wanted frames and those they refer to; nothing is converted."""
    with open_video(path) as video:
        pts, keys = video.table.pts, sorted(video.table.keys)
        wanted = {pts[i] for i in middle(len(pts), T)}
        _single(video.container)
        for key, end in itertools.zip_longest(keys, keys[1:], fillvalue=pts[-1] + 1):
            group = {t for t in wanted if key <= t < end}
            if not group:
                continue
            video.container.seek(key, stream=video.stream)
            for packet in video.container.demux(video.stream):
                video.stream.codec_context.skip_frame = "DEFAULT" if packet.pts in group else "NONREF"
                if any(frame.pts == max(group) for frame in packet.decode()):
                    break
    return Decoded(np.zeros((T, EDGE, EDGE, 3), np.uint8), [0] * T, [0.0] * T, 0, 1.0, "floor")


def installed() -> dict[str, object]:
    """The plain loops that can run here, by name."""
    loops = {"decord": decord, "seek": seek, "sequential": sequential}
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError):
        return loops
    return {**loops, "torchcodec": torchcodec}


def _single(container: av.container.InputContainer) -> av.VideoStream:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream
