"""What is frozen is computed once: a clip phase that reads stored tokens never runs the trunk."""

import math
import threading

import pytest
import torch

from ivcore import steps
from ivcore.checkpoints import checkpoint
from ivcore.datasets.captions import Captions
from ivcore.errors import WorkError
from ivcore.features import featurize
from ivcore.features.featurize import write_features
from ivcore.features.reader import Features
from ivcore.models.vision import VisionTower
from ivcore.store.artifacts import Draft
from ivcore.video.frames import Frames
from tasks.data import _kept
from tasks.step import Where
from tasks.training import _source


@pytest.fixture
def trunk_runs(monkeypatch):
    """How often any vision tower was run."""
    runs, forward = [], VisionTower.forward
    monkeypatch.setattr(VisionTower, "forward", lambda *a, **k: runs.append(1) or forward(*a, **k))
    return runs


def fit(chain, inputs, **stage):
    c, phase = chain.config, chain.config.train.clip.phases[1]
    train = c.train.model_copy(update={"clip": c.train.clip.model_copy(update=stage)})
    step = steps.fit_clip(chain.store, c.model, train, phase, chain.manifest, inputs, chain.last)
    return chain.run(step)


def test_another_rate_or_batch_size_runs_the_trunk_zero_times(chain, trunk_runs):
    c = chain.config
    again = steps.featurize(chain.store, c.features, c.train, chain.frames, chain.last)
    assert chain.store.find("features", again.key) is not None  # the phase before left the tower alone
    made = [fit(chain, chain.features, **stage) for stage in ({"lr": 1e-4}, {"lr": 3e-4}, {"batch_size": 8})]
    assert len({artifact.key for artifact in made}) == 3
    assert trunk_runs == []


def test_recomputed_tokens_train_to_the_same_weights(chain, trunk_runs):
    """Stored in float32 the two differ by the order of sums alone; in float16 by its rounding."""
    c = chain.config
    features = c.features.model_copy(update={"dtype": "float32"})
    exact = chain.run(steps.featurize(chain.store, features, c.train, chain.frames, chain.last))
    trunk_runs.clear()
    cached = fit(chain, exact)
    assert trunk_runs == []
    recomputed = fit(chain, chain.frames)
    assert len(trunk_runs) == c.train.clip.phases[1].steps
    coarse = fit(chain, chain.features)
    one, two, three = (checkpoint.load(a.path)[0].state_dict() for a in (cached, recomputed, coarse))
    frozen = {n for n in one if n.startswith("vision_encoder.blocks")}
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(one[name], three[name], rtol=0, atol=2e-2, msg=lambda m, n=name: f"{n}: {m}")
        assert name not in frozen or torch.equal(one[name], two[name])


def test_a_plan_to_recompute_stores_the_scored_split_and_trains_on_frames(chain, monkeypatch):
    c, where = chain.config, Where(str(chain.store.home))
    part = chain.run(steps.featurize(chain.store, c.features, c.train, chain.frames, chain.last, "test"))
    some, whole = Features(part), Features(chain.features)
    assert some.clip_ids == Captions(chain.manifest).clips("test")
    rows = whole.rows_of(some.clip_ids)
    torch.testing.assert_close(some.tokens(range(len(rows))), whole.tokens(rows), rtol=1e-3, atol=2e-2)
    for inputs, read in ((part, "frames"), (chain.features, "features"), (chain.frames, "frames")):
        assert _source(where, {"kind": inputs.kind, "key": inputs.key}).kind == read

    def kept(cache, gb):
        features = c.features.model_copy(update={"cache": cache})
        return _kept(where, features, c.train, chain.frames, chain.last, gb)[0]

    assert kept("always", 1e6) and not kept("never", 1e-6)
    assert kept("auto", 0.5)  # small: no question, and the demo's is smaller
    monkeypatch.setattr("tasks.data.plan.disk_speed", lambda home: (1e8, 1e3))  # slower than any trunk
    assert not kept("auto", 52.0)
    monkeypatch.setattr("tasks.data.plan.disk_speed", lambda home: (1e12, 1e12))
    assert not kept("auto", 52.0)  # the next night decides alike, however busy the machine is then


def written(chain, folder, features):
    """The bytes that featurize writes of the chain's frames, by file."""
    folder.mkdir()
    draft, c = Draft(folder), chain.config
    write_features(draft, chain.store, features, c.train, chain.frames, chain.first, lambda *_: None, {"none": 1})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_threads_that_read_and_write_give_the_same_bytes(chain, tmp_path, monkeypatch):
    features = chain.config.features.model_copy(update={"batch_size": 10, "views": 2})
    plain = written(chain, tmp_path / "plain", features)
    monkeypatch.setattr(featurize, "overlaps", lambda device: True)
    assert set(plain) == {"features.parquet", "views.parquet"}
    assert written(chain, tmp_path / "threads", features) == plain


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8), ("float32", 24)])
def test_tokens_come_back_in_the_type_they_are_stored_in(chain, tmp_path, dtype, bits):
    """Each is within half a place of what the tower gives."""
    c, features = chain.config, chain.config.features.model_copy(update={"dtype": dtype})
    read = Features(chain.run(steps.featurize(chain.store, features, c.train, chain.frames, chain.first)))
    exact = c.features.model_copy(update={"dtype": "float32"})
    whole = Features(chain.run(steps.featurize(chain.store, exact, c.train, chain.frames, chain.first)))
    ours, theirs = (one.tokens(range(3)) for one in (read, whole))
    assert torch.allclose(ours, theirs, rtol=2.0**-bits, atol=1e-7)
    assert (ours != theirs).any() == (dtype != "float32") and read.clip_ids == whole.clip_ids


@pytest.mark.parametrize("large", [math.nan, 7e4])  # 65,504 is the largest number of float16
def test_features_that_are_no_numbers_name_their_clip(chain, tmp_path, monkeypatch, large):
    encode, clip_id = VisionTower.pool, Frames(chain.store, chain.frames).clip_ids[1]

    def damaged(self, tokens):
        pooled = encode(self, tokens)
        tokens[1, 3, 2] = large
        return pooled

    features = chain.config.features.model_copy(update={"batch_size": 10})
    monkeypatch.setattr(VisionTower, "pool", damaged)
    with pytest.raises(WorkError, match=rf"features of 1 clips of a batch are not finite \({clip_id}\).*float16"):
        written(chain, tmp_path / "out", features)


def test_what_fails_in_the_writing_thread_stops_the_step(chain, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(featurize, "overlaps", lambda device: True)
    monkeypatch.setattr(featurize, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        written(chain, tmp_path / "out", chain.config.features)
    assert not [t for t in threading.enumerate() if t.name.startswith("iv-")]
