"""Any format: the frames of a decode from the beginning at the same numbers, by every decoder that may be chosen."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ivcore.video.decode_file import Task, decode_file
from ivcore.video.probe import open_video
from ivcore.video.resize import resize
from ivcore.video.sampling import Sampling, middle
from tests.ivcore.video import zoo

REAL = (Path(__file__).parents[3] / "../shared/data/real_videos").resolve()
# decord's older FFmpeg turns these into RGB a little differently: mean levels of 255 that its frames may be off.
COLOURS = {"h264_10bit.mp4": 2.0}
BY_DECORD = {
    *("h264_b.mp4", "h264_long_groups.mp4", "h264_fragmented.mp4", "h264_10bit.mp4"),
    *("h264_odd_size.mp4", "h264_vfr.mp4", "h264_vfr.mkv", "h264_turned.mp4", "h264_upside_down.mp4"),
    *("h264_wide_pixels.mp4", "hevc_closed_gop.mp4", "vp8.webm", "vp9.webm", "mpeg4.mov", "mjpeg.mov", "prores.mov"),
    *("one_frame.mp4", "two_frames.webm", "three_frames.mp4"),
}
LARGE = 400_000
FROM_THE_BEGINNING = {
    *("h264_intra_refresh.mp4", "h264_interlaced.mp4", "h264.avi", "h264.h264", "mpeg4_b.avi", "mpeg2.mpg")
}


def videos() -> list:
    """The real videos; the large ones in the long form of the tests, and one skip where there are none."""
    found = sorted(p for p in REAL.glob("*") if p.suffix in (".mp4", ".mkv", ".avi", ".webm", ".gif"))
    if not found:
        return [pytest.param(REAL, marks=pytest.mark.skip(reason=f"no real videos in {REAL}"))]
    return [pytest.param(p, marks=pytest.mark.chaos if p.stat().st_size > LARGE else ()) for p in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@pytest.mark.parametrize("name", zoo.FORMATS)
def test_frames_are_those_of_a_sequential_decode(name: str, folder: Path) -> None:
    path = zoo.FORMATS[name](folder / name)
    true, times = zoo.sequential(path)
    chance = random.Random(name)
    sets = [tuple(middle(len(true), 8)), (0,), (len(true) - 1,)]
    sets += [tuple(chance.randrange(len(true)) for _ in range(3)) for _ in range(4)]
    for decoder in ("auto", "other", "sequential"):
        for which in sets:
            got = decode_file(Task(path, which, 48, decoder=decoder))
            assert got.error is None and got.num_frames == len(true) and got.frame_index == list(which), got
            off = np.abs(got.frames.astype(int) - resize([true[i] for i in which], 48, True)).mean()
            assert off <= (COLOURS.get(name, 0.0) if got.decoder.startswith("decord") else 0.0), (decoder, which)
            if times[0] >= 0:
                assert np.allclose(got.pts_s, [times[i] for i in which], atol=1e-6)
            assert got.decoder.startswith("decord" if decoder == "other" and name in BY_DECORD else "pyav")
            if decoder == "auto" and name not in FROM_THE_BEGINNING:
                assert got.detail is None, got.detail  # every frame was reached by seeking


def test_a_picture_that_carries_its_number_says_so(folder: Path) -> None:
    """The truth itself: bars in the picture are read back, so order and rotation are not only what FFmpeg says."""
    for name in ("h264_open_gop.mp4", "h264_turned.mp4", "h264_edit_list.mp4", "hevc_open_gop.mp4", "h264.ts"):
        path = folder / name if (folder / name).exists() else zoo.FORMATS[name](folder / name)
        got = decode_file(Task(path, Sampling("middle", 8), 64))
        first = 7 if name == "h264_edit_list.mp4" else 0  # pictures that are hidden
        for frame, index in zip(got.frames, got.frame_index):
            upright = np.rot90(frame, -1) if name == "h264_turned.mp4" else frame
            bars = [upright[4:16, bit * 8 + 2 : bit * 8 + 6].mean() > 125 for bit in range(8)]
            assert sum(1 << bit for bit in range(8) if bars[bit]) == index + first, name


@pytest.mark.parametrize("ext", ["mp4", "mov", "mkv"])
def test_mirrored_and_turned_videos_are_shown_as_their_matrix_says(folder: Path, ext: str) -> None:
    for degrees in (0, 90, 180, -90):
        for mirror in ({}, {"hflip": True}, {"vflip": True}):
            path = folder / f"{degrees}{''.join(mirror)}.{ext}"
            zoo.write(path, num=6, size=(96, 64), options={"bf": "2"}, rotation=degrees, mirror=mirror)
            with av.open(str(path)) as container:
                stored = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][3]
            true = np.rot90(stored, degrees // 90)
            true = true[:, ::-1] if "hflip" in mirror else true[::-1] if "vflip" in mirror else true
            for decoder in ("auto", "other", "sequential"):
                got = decode_file(Task(path, (3,), 48, decoder=decoder))
                assert got.error is None and np.array_equal(got.frames, resize([true], 48, True)), (path, decoder)
            by_decord = (not mirror and ext != "mkv") or (degrees == 0 and not mirror)  # it would show others wrongly
            other = decode_file(Task(path, (3,), 48, decoder="other"))
            assert other.decoder.startswith("decord" if by_decord else "pyav")


@pytest.mark.parametrize(
    "name", ["h264_b.mp4", "h264_fragmented.mp4", "h264_vfr.mkv", "vp9.webm", "h264.avi", "mjpeg.avi"]
)
def test_a_file_that_was_cut_is_truncated(name: str, folder: Path) -> None:
    data = zoo.FORMATS[name](folder / f"whole-{name}").read_bytes()
    for n in range(1, 21):
        path = folder / f"cut-{n}-{name}"
        path.write_bytes(data[: min(len(data) * n // 20, len(data) - 1)])
        got = decode_file(Task(path, (0,), 32))
        assert got.error == "truncated" or (name, n, got.num_frames) == ("h264_fragmented.mp4", 20, 60)  # its last box
    assert decode_file(Task(folder / f"whole-{name}", (0,), 32)).error is None


@pytest.mark.parametrize("name", ["h264.ts", "h264.flv", "mpeg2.mpg", "live.mkv"])
def test_what_has_neither_length_nor_end_gives_the_frames_that_are_there(name: str, folder: Path) -> None:
    """Nothing in these says how long they were; a cut one is decoded as a short one."""
    make = zoo.FORMATS.get(name) or (lambda p: zoo.write(p, options=zoo.B, muxer={"live": "1"}))
    whole = make(folder / f"whole-{name}")
    true, _ = zoo.sequential(whole)
    path = folder / f"cut-{name}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    got = decode_file(Task(path, (0, 5), 32))
    assert got.error is None and 5 < got.num_frames < len(true)
    assert np.array_equal(got.frames, resize([true[0], true[5]], 32, True))


def test_wide_pixels_are_noted(folder: Path) -> None:
    path = zoo.FORMATS["h264_wide_pixels.mp4"](folder / "wide.mp4")
    for decoder in ("auto", "pyav"):
        assert decode_file(Task(path, (0,), 32, decoder=decoder)).pixel_aspect == pytest.approx(4 / 3)
    assert decode_file(Task(zoo.write(folder / "square.mp4"), (0,), 32)).pixel_aspect == 1.0


def test_a_damaged_key_frame_sends_the_file_to_a_decode_from_the_beginning(folder: Path) -> None:
    whole = zoo.write(folder / "whole.mp4", options={"g": "12", "bf": "0", "x264-params": "scenecut=0"})

    def damaged(packet: av.Packet, n: int) -> av.Packet:
        if n != 24:
            return packet
        data = bytearray(bytes(packet))
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        out = av.Packet(bytes(data))
        out.pts, out.dts, out.time_base, out.is_keyframe = packet.pts, packet.dts, packet.time_base, True
        return out

    path = zoo.remux(whole, folder / "damaged.mp4", damaged)
    true, _ = zoo.sequential(path)
    got = decode_file(Task(path, (10, 30, 50), 48))
    assert got.error is None and np.array_equal(got.frames, resize([true[i] for i in (10, 30, 50)], 48, True))
    assert got.detail == "decoded from the beginning: a damaged picture; 1 damaged pictures of 3"  # 24 to 35 rest on 24
    dropped = decode_file(Task(path, (10, 30, 50), 48, damaged="drop"))
    assert dropped.frames is None and (dropped.error, dropped.detail) == ("damaged", got.detail)
    assert decode_file(Task(path, (10, 50), 48, damaged="drop")).error is None


def test_clean_is_what_decord_is_right_on(folder: Path) -> None:
    for name in ("h264.ts", "h264_edit_list.mp4", "hevc_open_gop.mp4", "h264_b.mp4"):
        with open_video(zoo.FORMATS[name](folder / f"clean-{name}")) as video:
            assert (not video.table.unclean) == (name in BY_DECORD), video.table.unclean
            assert video.table.base == pytest.approx(float(Fraction(video.stream.time_base)))


@pytest.mark.parametrize("path", videos(), ids=lambda p: p.name)
def test_real_videos_equal_a_sequential_decode(path: Path) -> None:
    for decoder in ("auto", "other"):
        got = decode_file(Task(path, Sampling("middle", 8), 64, decoder=decoder))
        assert got.error is None, got
        true, times = zoo.sequential(path, set(got.frame_index))
        assert got.num_frames == len(times) and got.frame_index == middle(len(times), 8)
        assert np.array_equal(got.frames, resize([true[i] for i in got.frame_index], 64, True)), (
            got.decoder,
            got.detail,
        )
