"""A folder that grows: only what is new is decoded and encoded, and comes out as if all had been made at once."""

import shutil

import numpy as np
import pytest
import torch

from ivcore import steps
from ivcore.config import (
    DataConfig,
    FeaturesConfig,
    FramesConfig,
    ModelConfig,
    Phase,
    StageConfig,
    TrainConfig,
)
from ivcore.datasets.shapes.drawing import encode
from ivcore.features.reader import Features
from ivcore.store.artifacts import Store
from ivcore.video.frames import Frames
from tests import own_videos

FRAMES = FramesConfig(shard_clips=4, workers=1)
PHASE = Phase(name="pretrain", steps=1, warmup_steps=0)
TRAIN = TrainConfig(threads=1, s2=StageConfig(batch_size=4, phases=(PHASE,)))
VIEWS = FeaturesConfig(views=2)
NEW = ("00-first.mp4", "05.mp4", "zz-last.mp4")  # one by name before all others, one replaced, one behind


def prepared(store, root):
    """Manifest and frames of all that is in the folder."""
    data = DataConfig(dataset="folder", root=str(root), annotations=str(root / "captions.csv"), shares=(0.6, 0.0, 0.4))
    manifest = steps.run(steps.ingest(store, data), store)
    return manifest, steps.run(steps.decode(store, data, FRAMES, manifest), store)


def encoded(store, frames, s2, features=VIEWS):
    return steps.run(steps.featurize(store, features, TRAIN, frames, s2), store)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The folder; a store that saw it before and after two videos came and one was replaced; one that saw it after."""
    root, store, fresh = (tmp_path_factory.mktemp(name) for name in ("videos", "store", "fresh"))
    own_videos.make(root, 11)
    store, fresh = Store(store), Store(fresh)
    manifest, frames = prepared(store, root)
    s2 = steps.run(steps.fit_s2(store, ModelConfig(), TRAIN, PHASE, manifest, frames, None), store)
    encoded(store, frames, s2)
    shards = {a.id for a in store.all("frame_shard")}
    for name, grey in zip(NEW, (90, 140, 200)):
        encode(root / name, np.full((8, 48, 64, 3), grey, np.uint8), 4)
    with (root / "captions.csv").open("a") as f:
        f.writelines(f"{name},a grey picture,en\n" for name in (NEW[0], NEW[2]))
    shutil.copytree(store.home / "artifacts" / "s2", fresh.home / "artifacts" / "s2")
    return {"store": store, "fresh": fresh, "s2": s2, "shards": shards, "root": root}


@pytest.fixture(scope="module")
def frames(grown):
    """Of the folder as it is now, in both stores."""
    return prepared(grown["store"], grown["root"])[1], prepared(grown["fresh"], grown["root"])[1]


def test_only_new_videos_are_decoded(grown, frames):
    (new,) = [a for a in grown["store"].all("frame_shard") if a.id not in grown["shards"]]
    assert [clip[0] for clip in new.record()["config"]["clips"]] == list(NEW)
    assert [f.record()["measured"]["clips_made"] for f in frames] == [3, 13] and frames[0].key == frames[1].key
    ours, alone = Frames(grown["store"], frames[0]), Frames(grown["fresh"], frames[1])
    assert ours.clip_ids == alone.clip_ids and len(ours.clip_ids) == 13
    assert torch.equal(ours.batch(range(13)), alone.batch(range(13)))


def test_only_new_videos_are_encoded(grown, frames, monkeypatch):
    seen, batch = [], Frames.batch
    with monkeypatch.context() as patch:
        patch.setattr(Frames, "batch", lambda self, rows, views=(): seen.extend(rows) or batch(self, rows, views))
        grew = encoded(grown["store"], frames[0], grown["s2"])
    assert {Frames(grown["store"], frames[0]).clip_ids[row] for row in seen} == set(NEW)
    assert grew.record()["measured"]["clips_made"] == 3
    whole = encoded(grown["fresh"], frames[1], grown["s2"])
    assert whole.record()["measured"]["clips_made"] == 13 and whole.key == grew.key
    ours, alone = Features(grew), Features(whole)
    held = [[(n, v) for n in found.clip_ids for v in (0, 1, 2) if found.holds(n, v)] for found in (ours, alone)]
    assert ours.clip_ids == alone.clip_ids and held[0] == held[1] and len(held[0]) > len(ours.clip_ids)
    for view in (0, 1):
        rows = [n for n, name in enumerate(ours.clip_ids) if ours.holds(name, view)]
        # Within one step of float16: a trunk adds up a batch of another size in another order.
        torch.testing.assert_close(
            ours.tokens(rows, [view] * len(rows)), alone.tokens(rows, [view] * len(rows)), rtol=2e-3, atol=1e-3
        )
    torch.testing.assert_close(ours.pooled(range(13)), alone.pooled(range(13)))


@pytest.mark.parametrize("other", [FeaturesConfig(), FeaturesConfig(views=2, dtype="float32")])
def test_features_of_another_recipe_are_no_use(grown, frames, other):
    made = encoded(grown["store"], frames[0], grown["s2"], other)
    assert made.record()["measured"]["clips_made"] == 13
