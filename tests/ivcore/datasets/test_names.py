"""Names and links as disks hold them: kept as they are, or a row that says why not; nothing stops the run."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from ivcore import steps
from ivcore.config import DataConfig
from ivcore.datasets.sets import folder
from ivcore.datasets.shapes.drawing import encode
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Store


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    _video(tmp_path / "videos" / "a.mp4")
    return tmp_path / "videos"


def _video(path: Path | bytes, shade: int = 0) -> None:
    plain = Path(os.fsdecode(path)).parent / "plain.mp4"
    encode(plain, np.full((6, 32, 32, 3), shade, np.uint8), 5)
    shutil.move(plain, os.fsdecode(path))


def _manifest(root: Path, csv: str | None = None, **more) -> dict[str, dict]:
    """Rows of the manifest by clip_id."""
    if csv is not None:
        (root.parent / "c.csv").write_text(csv, encoding="utf-8")
        more["annotations"] = str(root.parent / "c.csv")
    data = DataConfig(dataset="folder", root=str(root), **more)
    store = Store(root.parent / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    return {r["clip_id"]: r for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}


@pytest.mark.parametrize(
    "name",
    [
        "Screen Recording at 3.04.05\u202fPM.mov",
        "Snímek obrazovky v\u00a013.mov",
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467.mp4",
        "映像\u3000第1話.mp4",
        "فيديو\u200f 1.mp4",
        "two\nlines.mp4",
        "tab\there.mp4",
        "bell\x07.mp4",
        " begins with a blank.mp4",
        "soft\u00adhyphen and \ufeff.mp4",
        "100%25 #1 'q' \"d\".mp4",
    ],
)
def test_a_name_is_kept_as_it_is(root: Path, name: str) -> None:
    _video(root / name, 90)
    assert {n: r["error"] for n, r in _manifest(root).items()} == {"a.mp4": None, name: None}


@pytest.mark.parametrize("name, shown", [(b"caf\xe9.mp4", "caf\\xe9.mp4"), (b"\xff\xfe.mkv", "\\xff\\xfe.mkv")])
def test_a_name_that_no_table_holds_is_a_row(root: Path, name: bytes, shown: str) -> None:
    _video(os.fsencode(root) + b"/" + name, 90)
    found = _manifest(root)
    assert found[shown]["error"] == "bad_name" and "not UTF-8" in found[shown]["detail"]
    assert found[shown]["split"] == "" and found["a.mp4"]["error"] is None


def test_hidden_files_are_passed_over_and_nothing_else_is(root: Path) -> None:
    for name in ("._a.mp4", ".hidden.mp4", ".Trash/b.mp4", ".git/c.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"resource fork")
    (root / "sub.mp4").mkdir()  # a folder that is called like a video
    _video(root / "sub.mp4" / "d.mp4", 50)
    assert set(_manifest(root)) == {"a.mp4", "sub.mp4/d.mp4"}


@pytest.mark.parametrize(
    "given, there",
    [
        ("sub\\red.mp4", "sub/red.mp4"),
        ("sub/RED.MP4", "sub/red.mp4"),
        ("Sub/red.mp4 ", "sub/red.mp4"),
        (unicodedata.normalize("NFD", "café.mp4"), "café.mp4"),
        ("\u00a0straße.mp4", "straße.mp4"),
        ("ÉTÉ.mp4", unicodedata.normalize("NFD", "été.mp4")),
    ],
)
def test_a_missing_file_says_what_is_there_instead(root: Path, given: str, there: str) -> None:
    (root / there).parent.mkdir(exist_ok=True)
    _video(root / there, 90)
    row = _manifest(root, f'path,caption\na.mp4,x\n"{given}",y\n')[given]
    assert (row["error"], row["detail"]) == ("missing", f"{root / there} is there")


@pytest.mark.parametrize("given", ["other.mp4", "sub/none.mp4", "a.mp4/x.mp4", "s3://bucket/a.mp4", "x" * 300 + ".mp4"])
def test_a_missing_file_without_a_likeness_is_a_row_too(root: Path, given: str) -> None:
    row = _manifest(root, f"path,caption\na.mp4,x\n{given},y\n")[Path(given).as_posix()]
    assert row["error"] in ("missing", "unreadable") and row["detail"] and "is there" not in row["detail"]


@pytest.mark.parametrize("path", ["../b.mp4", "sub/../../b.mp4", "/etc/passwd", "link.mp4", "linked/b.mp4"])
def test_a_path_that_leaves_the_root_is_a_row_and_is_not_read(root: Path, path: str, monkeypatch) -> None:
    _video(root.parent / "b.mp4", 90)
    (root / "link.mp4").symlink_to(root.parent / "b.mp4")
    (root / "linked").symlink_to(root.parent)
    row = _manifest(root, f"path,caption\na.mp4,fine\n{path},x\n{path},y\n")[path]
    assert (row["error"], row["sha256"], row["bytes"], row["split"]) == ("outside", "", 0, "")
    assert "out of data.root" in row["detail"] or "leaves data.root" in row["detail"]
    with pytest.raises(UserError, match="nothing can be used"):
        _manifest(root, f"path,caption\n{path},x\n")


def test_links_that_lead_out_are_rows_until_their_end_is_a_root(root: Path) -> None:
    other = root.parent / "other"
    (other / "deep").mkdir(parents=True)
    _video(other / "b.mp4", 90)
    _video(other / "deep" / "c.mp4", 120)
    (other / "deep" / "up").symlink_to(other)  # a ring
    (root / "one.mp4").symlink_to(other / "b.mp4")
    (root / "more").symlink_to(other / "deep")
    (root / "self").symlink_to(root)
    (root / "gone.mp4").symlink_to(root / "nothing")
    found = _manifest(root, max_failed_share=0.9)
    errors = {n: r["error"] for n, r in found.items()}
    assert errors == {"a.mp4": None, "one.mp4": "outside", "more": "outside", "gone.mp4": "missing"}
    assert str(other / "deep") in found["more"]["detail"] and "data.link_roots" in found["more"]["detail"]
    found = _manifest(root, link_roots=(str(other),))
    assert {n: r["error"] for n, r in found.items() if r["error"] != "duplicate"} == {
        "a.mp4": None,
        "gone.mp4": "missing",
        "more/c.mp4": None,
        "more/up/b.mp4": None,  # or one.mp4: the same bytes
    }
    assert found["one.mp4"]["error"] == "duplicate"


def test_a_link_within_the_root_is_one_video_under_two_names(root: Path) -> None:
    (root / "real").mkdir()
    _video(root / "real" / "b.mp4", 90)
    (root / "alias").symlink_to(root / "real")
    (root / "again.mp4").symlink_to("real/b.mp4")
    assert {n: r["error"] for n, r in _manifest(root).items()} == {
        "a.mp4": None,
        "again.mp4": None,
        "real/b.mp4": "duplicate",
    }
    assert _manifest(root, "path\nalias/b.mp4\na.mp4\n")["alias/b.mp4"]["error"] is None


@pytest.mark.parametrize("below", ["", "clips"])
def test_a_snapshot_of_hugging_face_is_read(root: Path, below: str) -> None:
    top = root.parent / "datasets--me--clips"
    folder_ = top / "snapshots" / "abc" / below
    folder_.mkdir(parents=True)
    (top / "blobs").mkdir()
    _video(top / "blobs" / "0123", 90)
    (folder_ / "b.mp4").symlink_to(os.path.relpath(top / "blobs" / "0123", folder_))
    assert {n: r["error"] for n, r in _manifest(folder_).items()} == {"b.mp4": None}
    assert _manifest(folder_, "path,caption\nb.mp4,x\n")["b.mp4"]["error"] is None


def test_an_absolute_path_below_the_root_is_a_path_below_it(root: Path) -> None:
    assert set(_manifest(root, f"path,caption\n{root}/a.mp4,x\n")) == {"a.mp4"}


def test_a_root_that_is_none_is_said_at_once(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.link_roots = .* is no folder"):
        folder.recipe(Store(root.parent), DataConfig(dataset="folder", root=str(root), link_roots=("/nowhere",)))
