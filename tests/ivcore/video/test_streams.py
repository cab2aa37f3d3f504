"""What a frame is, when the file begins, and which of its streams is the video."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ivcore.video import h264
from ivcore.video.decode_file import Task, decode_file
from ivcore.video.probe import Unusable, open_video, probe
from ivcore.video.sampling import Sampling
from tests.ivcore.video import zoo

CASES = Path(__file__).parents[5] / "shared" / "cases"
HIGH = {"profile": "high", "x264-params": "cqm=jvt:8x8dct=1"}  # with scaling lists before the bit that is looked for


@pytest.mark.parametrize("ext", ["mp4", "mkv", "mov", "ts", "h264", "avi"])
@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"bf": "3"}, False),
        ({"profile": "baseline"}, False),
        (HIGH, False),
        ({"x264-params": "interlaced=1"}, True),
        ({"x264-params": "tff=1:cqm=jvt:8x8dct=1"}, True),
    ],
)
def test_a_stream_says_whether_it_may_hold_fields(tmp_path: Path, ext: str, options: dict, fields: bool) -> None:
    path = zoo.write(tmp_path / f"a.{ext}", options=options, num=12)
    with open_video(path) as video:
        assert h264.may_hold_fields(video.stream.codec_context.extradata) == fields
        assert ("two fields" in video.table.unclear) == fields
    got = decode_file(Task(path, Sampling("middle", 4), 32))
    assert (got.error, got.num_frames) == (None, 12)


@pytest.mark.parametrize("data", [b"", b"\1\x64\0\x1e\xff\xe1\0\x09\x67", b"\0\0\1\x68\xee", b"\0\0\1\x67", bytes(40)])
def test_a_parameter_set_that_cannot_be_read_promises_nothing(data: bytes) -> None:
    assert h264.may_hold_fields(data)


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared here")
@pytest.mark.parametrize("name", ["paff.mkv", "paff.mp4", "paff.264"])
def test_two_fields_are_one_frame(tmp_path: Path, name: str) -> None:
    path = CASES / "01" / name
    if name.endswith(".264"):  # read by its ending
        path = tmp_path / "paff.h264"
        path.write_bytes((CASES / "01" / name).read_bytes())
    true, times = zoo.sequential(path)
    got = decode_file(Task(path, Sampling("middle", 8), 64))
    assert len(times) == got.num_frames == 40
    brightness = [int(frame.mean()) for frame in got.frames]
    assert brightness == [int(true[n].mean()) for n in got.frame_index]


def late(path: Path, video_s: float, sound_s: float = 0.0, num: int = 60) -> Path:
    """Twelve pictures a second from `video_s` on, and sound from `sound_s` on."""
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=12), container.add_stream("aac", rate=8000, layout="mono")
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 12)
        for n in range(round(8 * (num / 12 + 2))):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, round(sound_s * 8000) + n * 1000, Fraction(1, 8000)
            container.mux(sound.encode(frame))
        for n in range(num):
            frame = av.VideoFrame.from_ndarray(zoo.picture(n, 64, 64), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(video_s * 12) + n, Fraction(1, 12)
            container.mux(video.encode(frame))
        container.mux(sound.encode())
        container.mux(video.encode())
    return path


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("ext", ["mkv", "mp4", "mov", "ts"])
@pytest.mark.parametrize("begin", [0.0, 40.0])
def test_times_count_from_where_the_file_begins(tmp_path: Path, ext: str, decoder: str, begin: float) -> None:
    """The first picture is shown 2 s after the first sound: the second from 3 s on holds pictures 12 to 23."""
    path = late(tmp_path / f"late.{ext}", begin + 2, begin)
    got = decode_file(Task(path, Sampling("middle", 12), 32, decoder=decoder, start_s=3.0, end_s=4.0))
    assert got.error is None, got
    assert got.frame_index[0] in (11, 12, 13) and got.frame_index[-1] == got.frame_index[0] + 11  # sound has a delay
    early = decode_file(Task(path, Sampling("middle", 4), 32, decoder=decoder, start_s=0.0, end_s=1.5))
    assert early.error == "empty_window"


@pytest.mark.parametrize("ext", ["mkv", "mp4", "ts"])
def test_a_little_sound_before_the_first_picture_moves_no_window(tmp_path: Path, ext: str) -> None:
    path = late(tmp_path / f"a.{ext}", 0.0)
    got = decode_file(Task(path, Sampling("middle", 12), 32, start_s=1.0, end_s=2.0))
    assert got.frame_index == list(range(12, 24))


@pytest.mark.parametrize("ext", ["mkv", "ts"])
def test_a_clock_that_begins_late_makes_no_video_long(tmp_path: Path, ext: str) -> None:
    path = late(tmp_path / f"a.{ext}", 25 * 3600.0, 25 * 3600.0)
    assert 4 < probe(path)["duration_s"] < 9  # of the pictures, or with the sound
    got = decode_file(Task(path, Sampling("middle", 12), 32, start_s=1.0, end_s=2.0))
    assert got.error is None and got.frame_index == list(range(12, 24))


def with_cover(path: Path, video: bool, front: bool = True) -> Path:
    """Sound and a cover picture, and perhaps a video, before it or behind."""
    made = late(path.with_name("made.mkv"), 0.0)
    with av.open(str(path.with_name("cover.png")), "w", format="image2") as out:
        still = out.add_stream("png", rate=1)
        still.width, still.height, still.pix_fmt = 640, 480, "rgb24"
        out.mux(still.encode(av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24")))
        out.mux(still.encode())
    with (
        av.open(str(made)) as given,
        av.open(str(path.with_name("cover.png"))) as picture,
        av.open(str(path), "w") as out,
    ):

        def cover() -> tuple:
            own = out.add_stream_from_template(picture.streams.video[0])
            own.disposition = av.stream.Disposition.attached_pic
            return picture.streams.video[0], own

        taken = [cover()] if front else []
        kinds = [given.streams.video[0], given.streams.audio[0]] if video else [given.streams.audio[0]]
        taken += [(stream, out.add_stream_from_template(stream)) for stream in kinds]
        taken += [] if front else [cover()]
        for source in (picture, given):
            for packet in source.demux([stream for stream, _ in taken if stream.container is source]):
                if packet.size:
                    packet.stream = dict((id(a), b) for a, b in taken)[id(packet.stream)]
                    out.mux(packet)
    return path


@pytest.mark.parametrize("ext", ["mp4", "mov"])
@pytest.mark.parametrize("front", [True, False])
def test_a_cover_picture_is_no_video(tmp_path: Path, ext: str, front: bool) -> None:
    alone = with_cover(tmp_path / f"alone.{ext}", video=False, front=front)
    beside = with_cover(tmp_path / f"beside.{ext}", video=True, front=front)
    with pytest.raises(Unusable, match="no_video_stream"):
        probe(alone)
    got = decode_file(Task(beside, Sampling("middle", 4), 32))
    assert (got.error, got.num_frames) == (None, 60)


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared here")
def test_sound_with_a_cover_is_no_video() -> None:
    assert decode_file(Task(CASES / "18" / "cover_audio.mp4", Sampling("middle", 4), 64)).error == "no_video_stream"
