"""Augmented views: drawn from seed, clip and view alone, kept or made again alike, met in turn."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ivcore import steps
from ivcore.checkpoints import checkpoint
from ivcore.config import FeaturesConfig, Phase, parse
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.features.reader import Features
from ivcore.store import schemas
from ivcore.store.catalog import query
from ivcore.train.batches import Batches
from ivcore.video.frames import Frames, normalise
from ivcore.video.views import Views
from tests.ivcore.train.test_batches import CLIPS, MadeUpCaptions


def test_a_box_hangs_on_seed_clip_and_view_alone():
    views = Views(3, seed=5)
    box = views.box("a", 1, 224)
    assert box == Views(3, seed=5).box("a", 1, 224) == Views(9, seed=5).box("a", 1, 224)
    others = [views.box("a", 2, 224), views.box("b", 1, 224), Views(3, seed=6).box("a", 1, 224)]
    assert len({box, *others}) == 4


def test_boxes_keep_to_the_published_scale_and_mirrors_are_asked_for():
    plain = [Views(2).box(f"clip-{n}", 1, 224) for n in range(500)]
    shares = [box.height * box.width / 224**2 for box in plain]
    assert 0.49 < min(shares) < 0.55 and 0.9 < max(shares) <= 1
    for box in plain:
        assert 3 / 4 - 0.01 < box.width / box.height < 4 / 3 + 0.01
        assert 0 <= box.top <= 224 - box.height and 0 <= box.left <= 224 - box.width
    assert len({(box.top > 0, box.left > 0) for box in plain}) > 1 and not any(box.flip for box in plain)
    mirrored = [Views(2, flip=True).box(f"clip-{n}", 1, 224) for n in range(500)]
    assert 200 < sum(box.flip for box in mirrored) < 300
    assert [(b.top, b.left, b.height, b.width) for b in mirrored] == [(b.top, b.left, b.height, b.width) for b in plain]


@pytest.mark.parametrize("antialias", [True, False])
def test_a_view_is_one_crop_of_every_frame_at_the_size_of_the_clip(antialias):
    clip = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    views = Views(9, flip=True)
    assert views.cut(clip, "a", 0, antialias) is clip
    for view in range(1, 9):
        box = views.box("a", view, 32)
        part = torch.from_numpy(clip)[:, box.top : box.top + box.height, box.left : box.left + box.width]
        part = part.permute(0, 3, 1, 2).float()
        slow = F.interpolate(part, size=(32, 32), mode="bicubic", antialias=antialias).round().clamp(0, 255)
        slow = slow.flip(-1) if box.flip else slow
        got = torch.from_numpy(views.cut(clip, "a", view, antialias).copy()).permute(0, 3, 1, 2)
        assert (got.float() - slow).abs().max() <= 1  # a value on the edge of rounding
        assert (got.float() != slow).float().mean() < 0.01
    assert {views.box("a", view, 32).flip for view in range(1, 9)} == {True, False}


def test_over_as_many_epochs_as_views_a_clip_shows_each_once():
    phase = Phase(name="p", steps=36)  # 9 batches of 4 an epoch
    batches = list(Batches(MadeUpCaptions(), CLIPS, phase, 4, 0, views=4))
    assert {view for b in batches[:9] for view in b.views} == {0}
    met = {}
    for batch in batches:
        for row, view in zip(batch.rows, batch.views, strict=True):
            met.setdefault(row, []).append(view)
    assert len(met) == 36 and all(views == [0, 1, 2, 3] for views in met.values())
    plain = list(Batches(MadeUpCaptions(), CLIPS, phase, 4, 0))
    assert [(b.rows, b.captions) for b in plain] == [(b.rows, b.captions) for b in batches]
    assert {view for b in plain for view in b.views} == {0}


def test_one_view_leaves_every_key_as_it_was(chain):
    c, many = chain.config, FeaturesConfig(views=2)
    assert FeaturesConfig().recipe() == {"dtype": "float16"}
    plain, two = (steps.featurize(chain.store, f, c.train, chain.frames, chain.first) for f in (c.features, many))
    assert set(plain.config) == {"dtype", "vision_digest", "dtype_compute", "threads"}
    assert set(two.config) - set(plain.config) == {"views", "seed"}
    keys = {steps.featurize(chain.store, f, c.train, chain.frames, chain.first, "test").key for f in (c.features, many)}
    assert len(keys) == 1  # scored alone: plain clips

    def key(inputs, features, trainable="clip"):
        phase = Phase(name="p", steps=3, trainable=trainable)
        arguments = (c.model, c.train, phase, chain.manifest, inputs, chain.last, features)
        return steps.fit_clip(chain.store, *arguments).key

    assert key(chain.features, many) == key(chain.features, c.features)  # the features' own key says it
    assert key(chain.frames, many, "clip_trunk") == key(chain.frames, c.features, "clip_trunk")
    flipped = FeaturesConfig(views=2, flip=True)
    assert len({key(chain.frames, f) for f in (c.features, many, flipped)}) == 3
    with pytest.raises(UserError, match=r"flip = true and views = 1"):
        parse({"features": {"flip": True}})


EXACT = FeaturesConfig(dtype="float32", views=3, flip=True, batch_size=7)


@pytest.fixture(scope="module")
def stored(chain):
    return chain.run(steps.featurize(chain.store, EXACT, chain.config.train, chain.frames, chain.last))


def test_kept_views_are_those_made_of_frames_and_of_training_clips_alone(chain, stored):
    train = set(Captions(chain.manifest).clips("train"))
    features, frames = Features(stored), Frames(chain.store, chain.frames, Views.of(EXACT, chain.config.train.seed))
    table = schemas.read(stored.path / "views.parquet", "views", ["clip_id", "view"]).to_pylist()
    assert len(table) == 2 * len(train)
    assert {(r["clip_id"], r["view"]) for r in table} == {(clip, view) for clip in train for view in (1, 2)}
    model = checkpoint.load(chain.last.path)[0]
    some = [clip for clip in features.clip_ids if clip in train][:6]
    rows, of_frames, views = features.rows_of(some), frames.rows_of(some), [0, 1, 2, 2, 1, 0]
    with torch.no_grad():
        made = model.encode_tokens(normalise(frames.batch(of_frames, views)))
    torch.testing.assert_close(features.tokens(rows, views), made, rtol=1e-4, atol=1e-4)
    plain = features.tokens(rows)
    assert [bool((a - b).abs().max() < 1e-3) for a, b in zip(plain, made)] == [view == 0 for view in views]


def test_who_reads_plain_clips_sees_no_other_view(chain, stored):
    one = FeaturesConfig(dtype="float32", batch_size=7)
    plain = chain.run(steps.featurize(chain.store, one, chain.config.train, chain.frames, chain.last))
    assert [p.name for p in plain.path.glob("*.parquet")] == ["features.parquet"] and plain.rows == stored.rows
    # Not by the byte: found in the store it may have been made in batches of another size, which moves the last bits.
    ours, others = Features(stored), Features(plain)
    assert ours.clip_ids == others.clip_ids
    rows = range(len(ours.clip_ids))
    torch.testing.assert_close(ours.tokens(rows), others.tokens(rows), rtol=1e-4, atol=1e-4)
    _, rows = query(
        chain.store.home, f"select count(*), count(distinct clip_id) from features where key='{stored.key}'"
    )
    assert rows == [(stored.rows, stored.rows)]


def test_kept_and_recomputed_views_train_to_the_same_weights(chain, stored):
    c = chain.config
    phase = Phase(name="views", epochs=3, warmup_steps=1, trainable="clip")

    def fit(inputs, features):
        arguments = (c.model, c.train, phase, chain.manifest, inputs, chain.last, features)
        return checkpoint.load(chain.run(steps.fit_clip(chain.store, *arguments)).path)[0].state_dict()

    kept, again, plain = fit(stored, EXACT), fit(chain.frames, EXACT), fit(chain.frames, FeaturesConfig())
    away = [max(float((kept[n] - other[n]).abs().max()) for n in kept) for other in (again, plain)]
    assert away[0] < 5e-4 < 5e-3 < away[1]
