"""What will not fit on the disk is refused before it begins."""

import json
from pathlib import Path

import pytest

from ivcore import steps
from ivcore.config import FramesConfig
from ivcore.errors import WorkError
from ivcore.store.artifacts import Artifact
from ivcore.video import disk_plan


def test_what_does_not_fit_is_refused_before_it_begins(made: tuple, tmp_path: Path) -> None:
    store, data, manifest, frames = made
    tight = FramesConfig(size_px=64, disk_gb=1e-3)
    with pytest.raises(WorkError, match=r"new frames of 24 clips: at most 0.00 GB, and frames.disk_gb allows 0.001"):
        steps.run(steps.decode(store, data, tight, manifest), store)
    assert steps.run(steps.decode(store, data, FramesConfig(shard_clips=10, disk_gb=1e-9), manifest), store) == frames
    with pytest.raises(WorkError, match="make room or give --home elsewhere"):
        disk_plan.check("features", 10, 1e9, tmp_path)
    encoder = Artifact("s2", "k", tmp_path, 1)
    (tmp_path / "record.json").write_text(json.dumps({"config": {"model": {"size": "tiny"}}}))
    each = (1 + 4 * 16) * 96 * 2 + 128 * 4  # bytes of a clip: 65 tokens and the pooled vector
    assert disk_plan.features_of(frames, encoder, "float16") == pytest.approx(24 * each / 1e9)
    assert disk_plan.features_of(frames, encoder, "float16", 3) == pytest.approx(3 * 24 * each / 1e9)
    (tmp_path / "record.json").write_text(json.dumps({"config": {}}))
    assert disk_plan.features_of(frames, encoder, "float16") is None
    huge = disk_plan.features_gb(10**9, 16, 448, "6B", "float32")
    assert huge == pytest.approx(10**9 * ((1 + 16 * 32**2) * 3200 * 4 + 768 * 4) / 1e9)
    with pytest.raises(WorkError, match=r"new frames of 24 clips: .* then features of a trunk: \d+.* make room"):
        steps.run(steps.decode(store, data, FramesConfig(size_px=48), manifest, huge, later_must=True), store)
    disk_plan.check("new frames", 24, 1e-6, tmp_path, later_gb=huge)  # they may be left out: it is said, not refused
