"""Frames read back from their shards, or decoded again for each batch; what a vision tower is given."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ivcore import steps
from ivcore.config import FramesConfig
from ivcore.errors import WorkError
from ivcore.store import schemas
from ivcore.video import shards
from ivcore.video.frames import Frames, normalise
from ivcore.video.resize import resize
from ivcore.video.sampling import middle
from tests.ivcore.video.made_up import index, sequential


def test_frames_equal_a_sequential_decode(made: tuple) -> None:
    store, data, manifest, artifact = made
    frames = Frames(store, artifact)
    rows = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
    assert frames.clip_ids == [r["clip_id"] for r in rows] and len(rows) == 24
    root = steps.module("ivcore.datasets.sets", "synthetic").root(store, data)
    batch = frames.batch(range(24))
    assert batch.shape == (24, 8, 32, 32, 3) and batch.dtype == torch.uint8
    for row, got in zip(rows, batch.numpy()):
        true = sequential(root / row["path"])
        assert np.array_equal(got, resize(true[middle(16, 8)], 32, antialias=True))
    entry = index(artifact)["test-00000"]
    assert entry["frame_index"] == [0, 2, 4, 6, 8, 10, 12, 14] and entry["num_frames"] == 16
    assert entry["pts_s"] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert entry["decoder"].startswith("pyav")
    assert artifact.record()["rows_ok"] == 24 and artifact.record()["measured"]["shards_made"] == 3


def test_rows_in_any_order(made: tuple) -> None:
    frames = Frames(made[0], made[3])
    rows = frames.rows_of(["train-00003", "test-00001", "train-00003"])
    batch = frames.batch(rows)
    assert torch.equal(batch[0], batch[2]) and not torch.equal(batch[0], batch[1])
    assert torch.equal(frames.batch([rows[1]])[0], batch[1])
    with pytest.raises(WorkError, match="'nobody' was not decoded"):
        frames.rows_of(["nobody"])


def test_a_batch_reads_its_clips_and_not_their_shards(made: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    store, data, manifest, _ = made
    clip = 4 * 32 * 32 * 3
    monkeypatch.setattr(shards, "GROUP_BYTES", 2 * clip)
    artifact = steps.run(steps.decode(store, data, FramesConfig(shard_clips=11, num_frames=4), manifest), store)
    whole, read = Frames(store, artifact).batch(range(24)), []
    opened = pq.ParquetFile.read_row_group

    def counted(self, number, **options):
        found = opened(self, number, **options)
        read.append(found.nbytes)
        return found

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    frames = Frames(store, artifact)
    assert torch.equal(frames.batch([23, 0, 12, 1]), whole[[23, 0, 12, 1]])
    assert len(read) == 3 and sum(read) <= 3 * 2 * clip + 100  # 0 and 1 lie together; 22 to 23 and 11 to 12
    assert torch.equal(frames.batch([12, 0]), whole[[12, 0]]) and len(read) == 3  # held
    monkeypatch.setattr("ivcore.video.frames.CACHE_BYTES", 4 * clip)
    frames = Frames(store, artifact)
    for row in range(24):
        assert torch.equal(frames.batch([row])[0], whole[row])
        assert frames._held <= 4 * clip


def test_frames_that_are_not_kept_are_decoded_for_each_batch(made: tuple) -> None:
    store, data, manifest, kept = made
    config = FramesConfig(shard_clips=10, cache=False, disk_gb=1e-9)
    artifact = steps.run(steps.decode(store, data, config, manifest), store)
    assert artifact.key != kept.key and artifact.rows == 24
    assert all(row["shard"] is None and row["error"] is None for row in index(artifact).values())
    frames = Frames(store, artifact)
    rows = frames.rows_of(["val-00001", "train-00002", "val-00001"])
    assert torch.equal(frames.batch(rows), Frames(store, kept).batch(rows))
    gone = steps.module("ivcore.datasets.sets", "synthetic").root(store, data) / "train/000/train-00002.mp4"
    assert gone.is_file()
    gone.rename(gone.with_suffix(".away"))
    try:
        with pytest.raises(WorkError, match=r"train-00002.mp4 could be decoded before and cannot be now: missing"):
            frames.batch(rows)
    finally:
        gone.with_suffix(".away").rename(gone)


def test_normalise() -> None:
    frames = torch.full((1, 2, 4, 5, 3), 255, dtype=torch.uint8)
    frames[..., 2] = 0
    out = normalise(frames)
    assert out.shape == (1, 2, 3, 4, 5) and out.dtype == torch.float32
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(out[0, 0, :, 0, 0], expected)
    with pytest.raises(ValueError, match="uint8"):
        normalise(frames.float())
