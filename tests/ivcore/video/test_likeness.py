"""Copies that were encoded anew are found, other videos are not."""

from pathlib import Path

import av
import numpy as np
import pytest

from ivcore import steps
from ivcore.config import DataConfig, FramesConfig
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from ivcore.video import likeness


def _textured(seed: int, size: int = 96) -> np.ndarray:
    """Twelve frames of coloured patches that drift."""
    patches = np.random.default_rng(seed).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    whole = np.kron(patches, np.ones((size // 4, size // 4, 1), np.uint8))
    return np.stack([whole[n : n + size, 2 * n : 2 * n + size] for n in range(12)])


def _write(path: Path, video: np.ndarray, crf: int, codec: str = "libx264") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=6)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf)}
        for picture in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("copy", ["half", "poor", "other codec"])
def test_a_copy_encoded_anew_is_counted(tmp_path: Path, copy: str, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    for n in range(6):
        _write(root / f"{n}.mp4", _textured(n), 18)
    video = _textured(3)
    small = video.reshape(12, 48, 2, 48, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    how = {"half": (small, 23), "poor": (video, 36), "other codec": (video, 18, "mpeg4")}
    _write(root / "copy.mp4", *how[copy])
    lines = [f"{n}.mp4,x,train" for n in range(5)] + ["5.mp4,x,test", "copy.mp4,x,test"]
    (tmp_path / "c.csv").write_text("path,caption,split\n" + "\n".join(lines))
    data = DataConfig(dataset="folder", root=str(root), annotations=str(tmp_path / "c.csv"))
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    frames = steps.run(steps.decode(store, data, FramesConfig(num_frames=4, workers=1), manifest), store)
    found = frames.record()["facts"]["look_alike"]
    assert found == {"clips": 1, "first": [["copy.mp4", "3.mp4"]]}
    assert "1 clips of val or test look like a training clip, such as copy.mp4 and 3.mp4" in caplog.text
    index = schemas.rows(frames.path / "index.parquet", schemas.FRAMES)
    assert {len(row["sketch"]) for row in index} == {48}


def test_plain_pictures_are_alike_to_nothing() -> None:
    grey = [likeness.sketch(np.full((8, 32, 32, 3), shade, np.uint8)) for shade in (0, 90, 91)]
    assert likeness.pairs(grey[:1], grey) == [] and likeness.pairs([], grey) == [] and likeness.pairs(grey, []) == []


@pytest.mark.parametrize("size", [16, 33, 224])
@pytest.mark.parametrize("num", [1, 2, 8])
def test_a_sketch_of_any_size_and_number_of_frames(size: int, num: int) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (num, size, size, 3), dtype=np.uint8)
    noise = np.clip(frames.astype(int) + np.random.default_rng(1).integers(-2, 3, frames.shape), 0, 255).astype(
        np.uint8
    )
    one, other, mirrored = likeness.sketch(frames), likeness.sketch(noise), likeness.sketch(frames[:, :, ::-1])
    assert len(one) == 48 and likeness.pairs([mirrored, one], [other]) in ([(1, 0)], [])
    if size == 16:  # a larger picture of noise is plain in the mean
        assert likeness.pairs([mirrored, one], [other]) == [(1, 0)]
