"""The manifest: equal videos once, and nothing trained on that is validated on or scored."""

import json
import shutil
from pathlib import Path

import pytest

from ivcore import steps
from ivcore.config import DataConfig, FramesConfig, PartConfig
from ivcore.datasets import leakage
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from tests.ivcore.video.made_up import numbered


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    root.mkdir()
    numbered(root / "a.mp4")
    shutil.copy(root / "a.mp4", root / "b.mp4")
    numbered(root / "c.mp4", 30)
    return root


def _manifest(root: Path, rows: list[dict], **more) -> tuple[Store, DataConfig, Artifact]:
    (root.parent / "rows.json").write_text(json.dumps(rows))
    data = DataConfig(dataset="folder", root=str(root), annotations=str(root.parent / "rows.json"), **more)
    store = Store(root.parent / "store")
    return store, data, steps.run(steps.ingest(store, data), store)


def _errors(manifest: Artifact) -> dict[str, str | None]:
    return {r["clip_id"]: r["error"] for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}


def test_equal_videos_are_kept_once(root: Path) -> None:
    given = [("a.mp4", "train", "en", "one"), ("b.mp4", "test", "es", "uno"), ("c.mp4", "train", "en", "two")]
    rows = [{"path": p, "split": s, "language": lang, "caption": c} for p, s, lang, c in given]
    store, data, manifest = _manifest(root, rows, max_failed_share=0.1)
    assert _errors(manifest) == {"a.mp4": "duplicate", "b.mp4": None, "c.mp4": None}  # what is scored stays
    captions = schemas.rows(manifest.path / "captions.parquet", schemas.CAPTIONS)
    of = {c["caption"]: c["clip_id"] for c in captions}
    assert of == {"one": "a.mp4", "uno": "b.mp4", "two": "c.mp4"}  # a training caption becomes no query
    record = manifest.record()
    assert record["facts"]["duplicates"] == 1
    assert (record["rows_in"], record["rows_ok"], record["rows_failed"]) == (3, 2, 0)
    frames = steps.run(steps.decode(store, data, FramesConfig(), manifest), store)  # a duplicate is no fault
    assert frames.rows == 2 and frames.record()["facts"]["reasons"] == {"duplicate": 1}
    assert frames.record()["rows_failed"] == 0


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_captions_of_a_duplicate_follow_it_within_its_split(root: Path, split: str) -> None:
    rows = [{"path": f"{n}.mp4", "split": split, "caption": n} for n in "abc"]
    _, _, manifest = _manifest(root, rows)
    assert _errors(manifest) == {"a.mp4": None, "b.mp4": "duplicate", "c.mp4": None}
    captions = schemas.rows(manifest.path / "captions.parquet", schemas.CAPTIONS)
    assert {c["caption"]: c["clip_id"] for c in captions} == {"a": "a.mp4", "b": "a.mp4", "c": "c.mp4"}


@pytest.mark.parametrize(
    "train, test, left_out",
    [
        ((None, None), (1, 2), "overlap"),  # the whole file, and a window of it
        ((1, 2), (None, None), "overlap"),
        ((0, 1.5), (1, 2), "overlap"),
        ((None, 1.5), (1, 2), "overlap"),
        ((1.5, None), (1, 2), "overlap"),
        ((1.2, 1.3), (1, 2), "overlap"),
        ((0, None), (None, None), "duplicate"),
        ((0, 1000), (None, None), "duplicate"),
        ((None, 1), (0, 1), "duplicate"),
        ((0, 1), (1, 2), None),
        ((2, None), (1, 2), None),
        ((None, 1), (1, None), None),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "b.mp4"])
@pytest.mark.parametrize("held", ["test", "val"])
def test_what_overlaps_with_a_held_out_window_is_not_trained_on(
    root: Path, train: tuple, test: tuple, left_out: str | None, name: str, held: str
) -> None:
    rows = [
        {"path": "a.mp4", "split": held, "start_s": test[0], "end_s": test[1], "clip_id": "held"},
        {"path": name, "split": "train", "start_s": train[0], "end_s": train[1], "clip_id": "train"},
        {"path": "c.mp4", "split": "train", "clip_id": "other"},
    ]
    _, _, manifest = _manifest(root, rows)
    assert _errors(manifest) == {"held": None, "train": left_out, "other": None}
    facts = manifest.record()["facts"]
    assert (facts["duplicates"], facts["overlaps"]) == (left_out == "duplicate", left_out == "overlap")


def test_windows_of_one_video_are_a_family_unless_they_say_otherwise(root: Path) -> None:
    windows = [("a.mp4", 0, 1), ("a.mp4", 1, 2), ("b.mp4", 2, 3)]
    rows = [
        {"path": p, "split": "test", "start_s": s, "end_s": e, "clip_id": f"{n}"} for n, (p, s, e) in enumerate(windows)
    ]
    rows.append({"path": "c.mp4", "split": "test", "clip_id": "3", "family": "mine"})
    _, _, manifest = _manifest(root, rows)
    found = schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)
    assert [r["family"] for r in found] == ["a.mp4", "a.mp4", "a.mp4", "mine"]  # b.mp4 has the bytes of a.mp4


def test_windows_of_one_split_may_overlap(root: Path) -> None:
    rows = [{"path": "a.mp4", "split": s, "start_s": n / 4, "end_s": 1 + n / 4} for s in ("train",) for n in range(3)]
    _, _, manifest = _manifest(root, rows)
    assert set(_errors(manifest).values()) == {None}


def _row(clip_id: str, split: str, **more) -> dict:
    times = dict.fromkeys(("start_s", "end_s", "duration_s"))
    return {"clip_id": clip_id, "split": split, "sha256": "x", "error": None, **times, **more}


def test_a_published_protocol_keeps_all_its_clips() -> None:
    rows = [_row("a", "test", published=True), _row("b", "test", published=True), _row("c", "test"), _row("d", "train")]
    assert leakage.mark(rows) == {}  # no caption moves to a clip of the protocol
    assert [r["error"] for r in rows] == [None, None, "duplicate", "duplicate"]
    assert leakage.counts(rows) == {"duplicates": 2, "overlaps": 0, "duplicates_kept": 1}


def test_parts_of_a_mix_do_not_leak_into_each_other(root: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,caption,split\na.mp4,one,train\nc.mp4,two,train\n")
    (tmp_path / "h.csv").write_text("path,caption,split,start_s,end_s\nb.mp4,three,test,0.5,1\n")
    parts = tuple(PartConfig(name=n, root=str(root), annotations=str(tmp_path / f"{n}.csv")) for n in "th")
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, DataConfig(dataset="mix", mix=parts)), store)
    assert _errors(manifest) == {"h/b.mp4@0.5-1": None, "t/a.mp4": "overlap", "t/c.mp4": None}
    assert manifest.record()["facts"]["unlisted"] == 3  # videos that a part's folder holds and its csv does not name
