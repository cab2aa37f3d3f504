"""Published data sets: readers of real and of made-up annotations, videos that are not there."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ivcore import names, steps
from ivcore.config import DataConfig
from ivcore.datasets import cards
from ivcore.datasets.shapes.drawing import encode
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from tests.ivcore.datasets.made_up import PACKAGE, REAL, card, real, rows, texts, write


@real
@pytest.mark.parametrize("name, derived", [("msvd", "msvd_ret_test.json"), ("msvd_cn", "msvd_cn_ret_test.json")])
def test_released_files_say_what_upstreams_json_says(name, derived):
    """Same captions of the same videos in the same order, by two readers from two forms."""
    released = rows(name, REAL / "msvd" / next(iter(card(name).files)))
    json_ = rows("upstream", REAL / "msvd" / derived, language=card(name).languages[0])
    for one, two in zip(released, json_):
        keep = ("path", "caption", "language", "text_class")
        assert [{k: v for k, v in r.items() if k in keep} for r in one] == [
            {k: v for k, v in r.items() if k in keep} for r in two
        ]


@real
def test_1k_a_of_the_csv_is_that_of_the_json():
    wanted = [(e["video"], e["caption"]) for e in json.loads((REAL / "msrvtt/msrvtt_ret_test1k.json").read_text())]
    clips, captions = rows("msrvtt", REAL / "msrvtt" / "MSRVTT_JSFUSION_test.csv")
    assert [(c["path"], t["caption"]) for c, t in zip(clips, captions)] == wanted


@real
def test_didemo_joins_what_two_endings_of_one_video_say():
    clips, captions = rows("didemo", REAL / "didemo" / "test_data.json")
    text = {c["clip_id"]: c["caption"] for c in captions}
    assert text["18587146@N00_6146472848_ca77910fe4"] == (
        "we follow the largest wave as it comes in and crashes. we see structures on the right. "
        "camera zooms in and then back out on a distant wave."
    )
    assert {c["end_s"] for c in clips} == {30.0} and {c["text_class"] for c in captions} == {"long"}


def made_up(name: str, folder: Path) -> tuple[list[dict], list[dict]]:
    """Rows of a data set from an annotation in its own format, with two videos or three."""
    files = {
        "lsmdc": {"a.csv": "1_Film_00.01.002\t0\t1\t0\t1\tShe waits.\n1_Film_00.02.003\t0\t1\t0\t1\tHe goes.\n"},
        "activitynet": {"val_1.json": json.dumps({"v_x": {"sentences": ["One. ", " Two."], "duration": 3}})},
        "vatex_en": {
            "vatex_validation_v1.0.json": json.dumps(
                [{"videoID": v, "enCap": [f"en {v}"], "chCap": [f"zh {v}", "b"]} for v in "abc"]
            ),
        },
        "ssv2_mc": {
            "something-something-v2-validation.json": json.dumps(
                [
                    {"id": "7", "template": "Folding [something]"},
                    {"id": "8", "template": "Poking [part] of [something]"},
                ]
            ),
            "something-something-v2-labels.json": json.dumps(
                {"Poking part of something": "1", "Folding something": "0", "Moving something": "2"}
            ),
        },
        "charades": {
            "Charades_v1_test.csv": "id,actions\nAA,c001 1.0 2.0;c000 3.0 4.0;c001 5.0 6.0\nBB,\n",
            "Charades_v1_classes.txt": "c000 Holding some clothes\nc001 Opening a door\n",
        },
        "kinetics400": {
            "validate.csv": "label,youtube_id,time_start,time_end\nabseiling,x,1,11\nair drumming,y,2,12\n"
        },
        "ucf101": {"testlist01.txt": "ApplyEyeMakeup/v_1.avi\nYoYo/v_2.avi\n"},
        "hmdb51": {"brush_hair_test_split1.txt": "a.avi 2 \nb.avi 1 \n", "cartwheel_test_split1.txt": "c.avi 2 \n"},
    }[name]
    return rows(name, write(folder, **files), allow_unverified=True)


def test_readers_of_what_is_not_at_hand(tmp_path, monkeypatch):
    clips, captions = made_up("lsmdc", tmp_path)
    assert clips[0]["path"] == "1_Film/1_Film_00.01.002.avi" and captions[0]["caption"] == "She waits."
    assert {c["family"] for c in clips} == {"1_Film"} and clips[0]["clip_id"] == "1_Film_00.01.002"
    clips, captions = made_up("activitynet", tmp_path)
    assert texts(captions, "v_x") == ["One. Two."] and clips[0]["path"] == "v_x.mp4"
    clips, captions = made_up("ssv2_mc", tmp_path)
    assert [texts(captions, c) for c in ("7", "8")] == [["Folding something"], ["Poking part of something"]]
    assert [c["caption"] for c in captions] == ["Folding something", "Poking part of something", "Moving something"]
    clips, captions = made_up("charades", tmp_path)
    assert texts(captions, "AA") == ["Holding some clothes", "Opening a door"] and texts(captions, "BB") == []
    clips, captions = made_up("kinetics400", tmp_path)
    assert [c["path"] for c in clips] == ["x_000001_000011.mp4", "y_000002_000012.mp4"]
    assert texts(captions, "y_000002_000012") == ["air drumming"]
    clips, captions = made_up("ucf101", tmp_path)
    assert texts(captions, "ApplyEyeMakeup/v_1") == ["apply eye makeup"] and texts(captions, "YoYo/v_2") == ["yo yo"]
    clips, captions = made_up("hmdb51", tmp_path)
    assert [c["path"] for c in clips] == ["brush_hair/a.avi", "cartwheel/c.avi"]
    assert texts(captions, "brush_hair/a") == ["brush hair"]
    for name, read in (("vatex_en", ["en c"]), ("vatex_zh", ["zh c", "b"])):
        test = write(tmp_path, **{"test1k5_sec_list.txt": "c\na\n"})
        free = {**card(name).files, "test1k5_sec_list.txt": cards.sha256_file(test)}
        module = names.module(PACKAGE, name)
        monkeypatch.setattr(cards, "counted", lambda *a: None)
        monkeypatch.setitem(module.CARD.files, "test1k5_sec_list.txt", free["test1k5_sec_list.txt"])
        made_up("vatex_en", tmp_path)
        clips, captions = rows(name, tmp_path / "vatex_validation_v1.0.json", allow_unverified=True)
        assert [c["clip_id"] for c in clips] == ["c", "a"] and texts(captions, "c") == read
        assert {c["language"] for c in captions} == set(card(name).languages)


def test_a_file_of_another_shape_is_one_line(tmp_path):
    for name, text in (("activitynet", "[1, 2]"), ("charades", "x,y\n1,2\n"), ("kinetics400", "a,b\n1,2\n")):
        file = tmp_path / next(iter(card(name).files))
        file.write_text(text)
        (tmp_path / "Charades_v1_classes.txt").write_text("c000 a\n")
        with pytest.raises(UserError, match="cannot be read as"):
            rows(name, file, allow_unverified=True)


def test_missing_videos_are_rows_and_other_endings_are_found(tmp_path, monkeypatch):
    root = tmp_path / "videos"
    root.mkdir()
    encode(root / "video1.mp4", np.zeros((6, 32, 32, 3), np.uint8), 5)
    encode(root / "video2.webm.mkv", np.full((6, 32, 32, 3), 99, np.uint8), 5)
    (root / "video2.webm.mkv").rename(root / "video2.mkv")
    file = tmp_path / "MSRVTT_JSFUSION_test.csv"
    with file.open("w", newline="") as f:
        csv.writer(f).writerows(
            [["key", "vid_key", "video_id", "sentence"], *(["", "", f"video{n}", "x"] for n in "123")]
        )
    module = names.module(PACKAGE, "msrvtt")
    monkeypatch.setitem(module.CARD.files, file.name, cards.sha256_file(file))
    monkeypatch.setattr(cards, "counted", lambda *a: None)
    data = DataConfig(dataset="msrvtt", root=str(root), annotations=str(file))
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    found = {r["clip_id"]: r for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
    assert {n: r["error"] for n, r in found.items()} == {"video1": None, "video2": None, "video3": "missing"}
    assert found["video2"]["path"] == "video2.mkv"
    record = manifest.record()
    assert (record["rows_ok"], record["rows_failed"], record["facts"]["card"]["task"]) == (2, 1, "retrieval")
    before = steps.ingest(store, data).key
    encode(root / "video3.mp4", np.full((6, 32, 32, 3), 50, np.uint8), 5)
    assert steps.ingest(store, data).key != before
