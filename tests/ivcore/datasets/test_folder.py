"""Your own videos: annotations of four kinds, paths that stay inside, mistakes named."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ivcore import steps
from ivcore.config import DataConfig
from ivcore.datasets.captions import Captions
from ivcore.datasets.sets import folder
from ivcore.datasets.shapes.drawing import encode
from ivcore.errors import UserError, WorkError
from ivcore.store import schemas
from ivcore.store.artifacts import Store


@pytest.fixture()
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    (root / "sub").mkdir(parents=True)
    for n, name in enumerate(["a.mp4", "sub/b.mp4", "c.MKV"]):
        encode(root / name, np.full((6, 32, 48, 3), 40 * n, np.uint8), 5)
    (root / "notes.txt").write_text("no video")
    return root


def annotated(videos: Path, text: str, name: str = "captions.csv") -> DataConfig:
    file = videos.parent / name
    file.write_text(text)
    return DataConfig(dataset="folder", root=str(videos), annotations=str(file))


def test_a_folder_alone(videos: Path, tmp_path: Path) -> None:
    data = DataConfig(dataset="folder", root=str(videos))
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    rows = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
    assert [r["clip_id"] for r in rows] == ["a.mp4", "c.MKV", "sub/b.mp4"]
    assert all(r["error"] is None and r["width"] == 48 and r["height"] == 32 and r["fps"] == 5.0 for r in rows)
    assert {r["split"] for r in rows} <= {"train", "val", "test"}
    assert steps.ingest(store, data).key == manifest.key
    (videos / "a.mp4").write_bytes((videos / "sub/b.mp4").read_bytes())
    assert steps.ingest(store, data).key != manifest.key  # other bytes, other manifest
    (videos / "c.MKV").unlink()
    manifest = steps.run(steps.ingest(store, data), store)
    split = {r["split"] for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
    assert len(split) == 1  # copies stay together


def test_the_key_does_not_know_where_the_folder_lies(videos: Path, tmp_path: Path) -> None:
    before = folder.recipe(Store(videos.parent), DataConfig(dataset="folder", root=str(videos)))
    videos.rename(tmp_path / "moved")
    assert folder.recipe(Store(videos.parent), DataConfig(dataset="folder", root=str(tmp_path / "moved"))) == before


def test_captions_of_a_csv(videos: Path, tmp_path: Path) -> None:
    long = "word " * 33
    text = (
        f"path,caption,language,split\na.mp4,one,en,test\na.mp4,uno,es,test\nsub/b.mp4,{long},,train\ngone.mp4,x,,val\n"
    )
    data = annotated(videos, text)
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    rows = {r["clip_id"]: r for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
    assert (rows["gone.mp4"]["error"], rows["gone.mp4"]["sha256"], rows["a.mp4"]["error"]) == ("missing", "", None)
    record = manifest.record()
    assert (record["rows_in"], record["rows_ok"], record["rows_failed"]) == (3, 2, 1)
    captions = Captions(manifest)
    assert [t[1:] for t in captions.texts("en", "short", "test")] == [("a.mp4", "one")]
    assert [t[1:] for t in captions.texts("es", "short", "test")] == [("a.mp4", "uno")]
    assert [t[1] for t in captions.texts("en", "long", "train")] == ["sub/b.mp4"]
    assert captions.clips("val") == [] and captions.family("a.mp4") == "a.mp4"


def test_a_chinese_caption_is_as_long_as_its_characters(videos: Path) -> None:
    text = f"path,caption,language\na.mp4,{'红' * 33},zh\na.mp4,{'红' * 32},zh\n"
    _, captions = folder.rows(annotated(videos, text), videos)
    assert [c["text_class"] for c in captions] == ["long", "short"]


def test_four_kinds_of_annotation_say_the_same(videos: Path) -> None:
    rows = [
        {"path": "a.mp4", "caption": "one", "split": "test", "start_s": 0.2, "end_s": 0.8},
        {"path": "c.MKV", "caption": "two", "split": "train", "start_s": None, "end_s": None},
    ]
    lines = [json.dumps(r) for r in rows]
    table = "path,caption,split,start_s,end_s\na.mp4,one,test,0.2,0.8\nc.MKV,two,train,,\n"
    pq.write_table(pa.Table.from_pylist(rows), videos.parent / "x.parquet")
    configs = [
        annotated(videos, table, "x.csv"),
        annotated(videos, "\n".join(lines), "x.jsonl"),
        annotated(videos, json.dumps(rows), "x.json"),
        DataConfig(dataset="folder", root=str(videos), annotations=str(videos.parent / "x.parquet")),
    ]
    read = [folder.rows(c, videos) for c in configs]
    assert read[0][0][0]["clip_id"] == "a.mp4@0.2-0.8" and read[0][1][1]["caption"] == "two"
    assert all(r == read[0] for r in read)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.csv", "path,caption\n", "has no rows"),
        ("x.csv", "caption\nhello\n", "row 1 has no path, only caption"),
        ("x.csv", "path,caption\na.mp4,one, two\n", "row 1 has more fields"),
        ("x.csv", "path,captions\na.mp4,one\n", "row 1 has 'captions', which is not read; .* 'caption'"),
        ("x.csv", "path,split\na.mp4,dev\n", "split = 'dev' is unknown"),
        ("x.csv", "path,language\na.mp4,fr\n", "language = 'fr' is unknown"),
        ("x.csv", "path,start_s,end_s\na.mp4,3,2\n", "end_s = 2 is not after start_s = 3"),
        ("x.csv", "path,start_s\na.mp4,soon\n", "start_s = 'soon'"),
        ("x.jsonl", '{"path": "a.mp4"\n', "cannot be read as jsonl"),
        ("x.json", "{}", "the outermost value is no list"),
        ("x.jsonl", "3\n", "row 1 is 3"),
        ("x.jsonl", '{"path": "a.mp4", "caption": 3}', "caption = 3"),
        ("x.parquet", "no parquet", "cannot be read as parquet"),
        ("x.xls", "path\n", "no known kind"),
    ],
)
def test_mistakes_are_named(videos: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        folder.rows(annotated(videos, text, name), videos)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (",lost", "row 2 has no path"),
        ("c.MKV,x,dev", "row 2: split = 'dev' is unknown"),
        ("c.MKV,x,,fr", "row 2: language = 'fr' is unknown"),
        ("c.MKV,x,,,3,2", "row 2: end_s = 2 is not after start_s = 3"),
        ("c.MKV,x,,,soon", "row 2: start_s = 'soon' is no number"),
        ("c.MKV,x,,,nan", "row 2: start_s = 'nan' is no number"),
        ("c.MKV,x,,,,,1", "row 2: clip '1' stands twice"),
        ("c.MKV,nan", "row 2: caption = 'nan' is an empty cell"),
        ("c.MKV,x,,,,,,y", "row 2 has more fields than the header"),
        ("c.MKV,\"['x' 'y']\"", "row 2 has caption = .* a printed list that cannot be read"),
    ],
)
def test_a_wrong_row_is_a_row_of_the_manifest(videos: Path, tmp_path: Path, row: str, said: str) -> None:
    head = "path,caption,split,language,start_s,end_s,clip_id"
    data = annotated(videos, f"{head}\na.mp4,one,test,,,,1\n{row}\nsub/b.mp4,two,train\n")
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    rows = {r["clip_id"]: r for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
    assert set(rows) == {"1", "sub/b.mp4", "captions.csv row 2"} and re.search(
        said, rows["captions.csv row 2"]["detail"]
    )
    assert {n: r["error"] for n, r in rows.items() if r["error"]} == {"captions.csv row 2": "bad_row"}
    captions = schemas.rows(manifest.path / "captions.parquet", schemas.CAPTIONS)
    assert [c["caption"] for c in captions] == ["one", "two"]


def test_videos_without_a_row_are_counted_and_said(videos: Path, tmp_path: Path, caplog) -> None:
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, annotated(videos, "path,caption\na.mp4,one\n")), store)
    assert manifest.record()["facts"]["unlisted"] == 2
    assert "2 videos of" in caplog.text and "such as c.MKV" in caplog.text


def test_broken_files_take_no_share_of_the_split(videos: Path, tmp_path: Path) -> None:
    for n in range(4):
        (videos / f"broken{n}.mp4").write_text(f"no video {n}")
    data = DataConfig(dataset="folder", root=str(videos), max_failed_share=0.6)
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    rows = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
    assert [bool(r["split"]) for r in rows] == [r["error"] is None for r in rows]
    assert sum(manifest.record()["facts"]["clips"].values()) == 3


def test_too_many_that_fail_stop_the_run_when_the_folder_is_read(videos: Path, tmp_path: Path) -> None:
    for n in range(4):
        (videos / f"broken{n}.mp4").write_text(f"no video {n}")
    store = Store(tmp_path / "store")
    with pytest.raises(
        WorkError, match=r"4 of 7 clips cannot be used \(4 not_a_video\), the first is broken0.mp4: it is"
    ):
        steps.run(steps.ingest(store, DataConfig(dataset="folder", root=str(videos))), store)


def test_root_and_annotations_must_be_there(videos: Path, tmp_path: Path) -> None:
    for data, said in [
        (DataConfig(dataset="folder"), "data.root is not set"),
        (DataConfig(dataset="folder", root=str(tmp_path / "none")), "is no folder"),
        (DataConfig(dataset="folder", root=str(videos / "sub" / "b.mp4")), "is no folder"),
        (DataConfig(dataset="folder", root=str(videos), annotations="none.csv"), "is no file"),
    ]:
        with pytest.raises(UserError, match=said):
            folder.recipe(Store(videos.parent), data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no video"):
        folder.recipe(Store(tmp_path), DataConfig(dataset="folder", root=str(tmp_path / "empty")))


def test_captions_that_lie_in_the_folder_are_found(videos: Path, tmp_path: Path) -> None:
    text = "path,caption\na.mp4,a grey square\nsub/b.mp4,a lighter one\n"
    (videos / "captions.csv").write_text(text)
    found = folder.rows(DataConfig(dataset="folder", root=str(videos)), videos)
    given = folder.rows(annotated(videos, text, "elsewhere.csv"), videos)
    assert found == given and [c["caption"] for c in found[1]] == ["a grey square", "a lighter one"]
    store = Store(tmp_path / "store")
    plain = folder.recipe(store, DataConfig(dataset="folder", root=str(videos)))
    assert plain == folder.recipe(store, annotated(videos, text, "elsewhere.csv"))


def test_windows_late_in_a_long_video_have_ids_of_their_own(videos: Path) -> None:
    times = [(12345.25, 12346.25), (12345.4, 12346.4), (1000001.0, 1000002.0), (1000002.0, 1000003.0), (2.0, 4.5)]
    lines = [f"a.mp4,window {n},{a},{b}" for n, (a, b) in enumerate(times)]
    clips, _ = folder.rows(annotated(videos, "path,caption,start_s,end_s\n" + "\n".join(lines)), videos)
    assert [(c["start_s"], c["end_s"]) for c in clips] == times
    assert clips[-1]["clip_id"] == "a.mp4@2-4.5"  # those of ordinary windows stay as they were


def test_line_separators_inside_a_json_line_are_text(videos: Path) -> None:
    said = ["one\u2028line", "another\u2029one", "next\u0085line"]
    lines = [json.dumps({"path": "a.mp4", "caption": text}, ensure_ascii=False) for text in said]
    _, captions = folder.rows(annotated(videos, "\n".join(lines), "x.jsonl"), videos)
    assert [c["caption"] for c in captions] == said
