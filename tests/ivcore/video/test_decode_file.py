"""One clip to frames: those of a sequential decode, by either decoder."""

from pathlib import Path

import av
import numpy as np
import pytest

from ivcore.datasets.shapes.drawing import encode
from ivcore.video.decode_file import choose, decode_file
from ivcore.video.probe import Unusable, open_video
from ivcore.video.resize import resize
from ivcore.video.sampling import Sampling, middle
from tests.ivcore.video.made_up import numbered, sequential, task


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
def test_b_frames_and_windows(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "b.mp4"
    numbered(path)
    true = sequential(path)
    whole = decode_file(task(path, decoder, num=5))
    assert whole.error is None and whole.frame_index == middle(24, 5)
    assert np.array_equal(whole.frames, resize(true[whole.frame_index], 32, True))
    part = decode_file(task(path, decoder, num=3, start_s=0.5, end_s=1.0))  # frames 6 to 11
    assert part.frame_index == [6, 8, 10] and part.num_frames == 24
    assert np.array_equal(part.frames, resize(true[[6, 8, 10]], 32, True))
    assert decode_file(task(path, decoder, start_s=99.0)).error == "empty_window"


def test_what_decord_gets_wrong_goes_to_pyav(tmp_path: Path) -> None:
    for name in ("ts.ts", "avi.avi", "two.mkv"):
        numbered(tmp_path / name)
    for name in ("ts.ts", "avi.avi", "two.mkv"):
        got = decode_file(task(tmp_path / name, "other", size=48))
        true = sequential(tmp_path / name)
        assert got.error is None, got
        assert got.decoder.startswith("decord" if name == "two.mkv" else "pyav")
        assert got.num_frames == len(true)
        assert np.array_equal(got.frames, resize(true[middle(len(true), 8)], 48, True))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_rotation_is_applied(tmp_path: Path, decoder: str) -> None:
    flat, turned = tmp_path / "flat.mp4", tmp_path / "turned.mp4"
    picture = np.zeros((4, 32, 64, 3), np.uint8)
    picture[:, :16, :32] = (255, 0, 0)
    encode(flat, picture, 4)
    rotate(flat, turned)
    got = decode_file(task(turned, decoder, num=1, size=32)).frames[0].astype(int)
    still = decode_file(task(flat, decoder, num=1, size=32)).frames[0].astype(int)
    corner = {"flat": np.argwhere(still[..., 0] > 200).mean(0), "turned": np.argwhere(got[..., 0] > 200).mean(0)}
    assert corner["flat"].max() < 16 and corner["turned"][0] < 16 < corner["turned"][1]  # upper left -> upper right


def rotate(source: Path, target: Path) -> None:
    """A copy whose track matrix turns the picture by 90 degrees clockwise."""
    data = bytearray(source.read_bytes())
    one = (0x10000).to_bytes(4, "big")
    identity = one + bytes(12) + one + bytes(12) + (0x40000000).to_bytes(4, "big")
    spot = data.index(identity, data.index(b"tkhd"))
    quarter = bytes(4) + one + bytes(4) + (-0x10000).to_bytes(4, "big", signed=True) + bytes(16)
    data[spot : spot + 36] = quarter + (0x40000000).to_bytes(4, "big")
    target.write_bytes(data)


def test_what_decord_says_is_the_same_on_every_run(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    numbered(whole, 60)
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:  # no key frame: decord gives up
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and not packet.is_keyframe:
                packet.stream = stream
                target.mux(packet)
    got = decode_file(task(cut, "decord"))
    assert got.error == "unreadable" and got.detail.startswith("decord: ")
    assert str(tmp_path) not in got.detail and "/github" not in got.detail and not got.detail.startswith("decord: [")


def test_choose_and_open_video_say_what_is_wrong(tmp_path: Path) -> None:
    assert choose([0.0, 1.0, 2.0], None, None, Sampling("middle", 2)) == [0, 1]
    with pytest.raises(Unusable, match="no frame between 5 s"):
        choose([0.0, 1.0], 5, None, Sampling("middle", 2))
    with pytest.raises(Unusable, match=r"frames \[1, 2\] of 2"):
        choose([0.0, 1.0], None, None, (1, 2))
    with pytest.raises(Unusable, match="missing"), open_video(tmp_path / "none.mp4"):
        pass
