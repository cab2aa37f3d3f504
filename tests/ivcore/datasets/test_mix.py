"""A mix of data sets: ids that never collide, equal videos once, images as clips of one frame, weights in training."""

import csv

import numpy as np
import pytest
from PIL import Image

from ivcore import config, steps
from ivcore.config import DataConfig, EvalConfig, PartConfig
from ivcore.datasets.captions import Captions
from ivcore.datasets.shapes.drawing import encode
from ivcore.errors import UserError
from ivcore.models.vision import VisionTower
from ivcore.retrieval import slices
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from ivcore.train.random_draws import Draws
from ivcore.video import images
from ivcore.video.frames import Frames
from ivcore.video.probe import Unusable


def _videos(root, shades):
    root.mkdir()
    with (root / "captions.csv").open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["path", "caption", "split", "clip_id"])
        for n, shade in enumerate(shades):
            encode(root / f"{n}.mp4", np.full((6, 32, 48, 3), shade, np.uint8), 5)
            table.writerow([f"{n}.mp4", f"shade {shade} in {root.name}", "train" if n else "test", f"id{n}"])
    return {"root": str(root), "annotations": str(root / "captions.csv")}


def _images(root, num):
    root.mkdir()
    with (root / "captions.csv").open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["path", "caption", "split"])
        for n in range(num):
            name = f"{n}.{('jpg', 'png')[n % 2]}"
            Image.new("RGB", (40, 30), (20 * n, 0, 200)).save(root / name)
            table.writerow([name, f"still number {n}", "train"])
    return {"root": str(root), "annotations": str(root / "captions.csv")}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """(store, run) of two video sets with the same ids, of which the second comes by twice, and one of images."""
    top = tmp_path_factory.mktemp("mix")
    parts = [
        {"name": "web", **_videos(top / "a", [10, 40, 70, 100, 130, 160])},
        {"name": "own", "weight": 2, **_videos(top / "b", [20, 50, 80, 110, 100])},  # the last is web's fourth
        {"name": "stills", **_images(top / "c", 4)},
    ]
    values = {
        "data": {"dataset": "mix", "mix": parts},
        "frames": {"workers": 1},
        "train": {"threads": 1, "s2": {"batch_size": 4, "phases": [{"name": "p", "epochs": 3, "warmup_steps": 1}]}},
    }
    return Store(top / "ws"), config.parse(values)


@pytest.fixture(scope="module")
def made(mixed):
    store, run = mixed
    manifest = steps.run(steps.ingest(store, run.data), store)
    return manifest, steps.run(steps.decode(store, run.data, run.frames, manifest), store)


def test_ids_never_collide_and_say_where_they_come_from(made):
    rows = list(schemas.rows(made[0].path / "manifest.parquet", schemas.MANIFEST))
    assert len(rows) == len({r["clip_id"] for r in rows}) == 6 + 5 + 4
    assert {r["clip_id"] for r in rows if r["clip_id"].endswith("id1")} == {"web/id1", "own/id1"}
    for row in rows:
        assert row["clip_id"].startswith(f"{row['source']}/") and row["family"].startswith(f"{row['source']}/")
        assert row["weight"] == (2 if row["source"] == "own" else 1)
        assert row["media"] == ("image" if row["source"] == "stills" else "video")
    twins = [r["clip_id"] for r in rows if r["error"] == "duplicate"]
    assert twins == ["web/id3"]  # or own/id4: one of the two, the other stays with both captions
    texts = [t for _, clip, t in Captions(made[0]).texts("en", "short", "train") if clip == "own/id4"]
    assert texts == ["shade 100 in b", "shade 100 in a"]


def test_an_image_is_a_clip_of_one_frame(made, mixed):
    source = Frames(mixed[0], made[1])
    stills = [n for n, clip in enumerate(source.clip_ids) if clip.startswith("stills/")]
    videos = [n for n, clip in enumerate(source.clip_ids) if not clip.startswith("stills/")]
    assert source.batch(stills).shape == (4, 1, 32, 32, 3) and source.batch(videos[:2]).shape == (2, 8, 32, 32, 3)
    first = source.batch(source.rows_of(["stills/1.png"]))[0, 0]
    assert first.reshape(-1, 3).unique(dim=0).tolist() == [[20, 0, 200]]
    with pytest.raises(ValueError, match="videos or images"):
        source.batch([stills[0], videos[0]])


def test_training_reads_both_and_features_hold_videos_alone(made, mixed):
    store, run = mixed
    phase = run.train.s2.phases[0].model_copy(
        update={"vtm": 1.0, "mlm": 1.0, "token_drop": 0.5, "image_token_drop": 0.5}
    )
    s2 = steps.run(steps.fit_s2(store, run.model, run.train, phase, *made, None), store)
    # An epoch: 5 + 2 * 3 + 2 of the shared one, less the test clips, by 4; and 4 images by 4.
    assert s2.record()["facts"]["steps"] == 3 * (3 + 1)
    features = steps.run(steps.featurize(store, run.features, run.train, made[1], s2), store)
    ids = schemas.read(features.path / "features.parquet", "features", ["clip_id"]).column(0).to_pylist()
    assert len(ids) == 10 and not any(i.startswith("stills/") for i in ids)


def test_a_video_of_one_frame_is_a_video_still(made, mixed):
    store, run = mixed
    frames = steps.run(steps.decode(store, run.data, run.frames.model_copy(update={"num_frames": 1}), made[0]), store)
    phase = run.train.s2.phases[0].model_copy(update={"name": "one", "token_drop": 0.5, "image_token_drop": 0.9})
    dropped, drop = set(), Draws.kept_tokens
    with pytest.MonkeyPatch.context() as patch:

        def kept(self, num, patches, ratio):
            dropped.add(ratio)
            return drop(self, num, patches, ratio)

        patch.setattr(Draws, "kept_tokens", kept)
        s2 = steps.run(steps.fit_s2(store, run.model, run.train, phase, made[0], frames, None), store)
        patch.setattr(VisionTower, "take_frames", lambda self, num: None)  # tiny's tubelets are of two frames
        features = steps.run(steps.featurize(store, run.features, run.train, frames, s2), store)
    assert dropped == {0.5, 0.9}
    ids = schemas.read(features.path / "features.parquet", "features", ["clip_id"]).column(0).to_pylist()
    assert len(ids) == 10 and not any(i.startswith("stills/") for i in ids)


def test_nothing_to_score_is_said_before_anything_is_trained(made):
    slices.check_split(*made, EvalConfig())
    for fields, said in (
        ({"split": "val"}, "split 'val' has no video that could be decoded; eval.split names another"),
        ({"languages": ("es",)}, "split 'test' has no captions in es"),
        ({"text_classes": ("long",)}, r"no captions in en, zh, es \(long\)"),
    ):
        with pytest.raises(UserError, match=said):
            slices.check_split(*made, EvalConfig(**fields))


def test_the_key_follows_weights_and_bytes_not_places(mixed, tmp_path):
    store, run = mixed
    key = steps.ingest(store, run.data).key
    heavier = [p.model_copy(update={"weight": 3}) if p.name == "web" else p for p in run.data.mix]
    assert steps.ingest(store, run.data.model_copy(update={"mix": tuple(heavier)})).key != key
    assert steps.ingest(Store(tmp_path), run.data).key == key


def test_mistakes_are_named(mixed):
    store, _ = mixed
    with pytest.raises(UserError, match=r"data\.mix is empty"):
        steps.ingest(store, DataConfig(dataset="mix"))
    with pytest.raises(UserError, match="a mix in a mix"):
        steps.ingest(store, DataConfig(dataset="mix", mix=(PartConfig(name="a", dataset="mix"),)))
    with pytest.raises(UserError, match="name twice"):
        config.parse({"data": {"mix": [{"name": "a"}, {"name": "a"}]}})


@pytest.mark.parametrize(
    "content, reason", [(b"", "empty"), (b"no picture", "unreadable"), ("cut", "truncated"), ("large", "too_large")]
)
def test_an_image_that_cannot_be_used_has_a_reason(tmp_path, monkeypatch, content, reason):
    file = tmp_path / "x.png"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        Image.effect_noise((64, 64), 50).save(file)
        if content == "cut":
            file.write_bytes(file.read_bytes()[:600])
        else:
            monkeypatch.setattr(images, "MAX_PIXELS", 4095)
    with pytest.raises(Unusable) as error:
        images.read(file)
    assert error.value.reason == reason
