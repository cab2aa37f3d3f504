"""Published data sets: cards that check their files, readers on made-up annotations, videos that are not there."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ivcore import names, steps
from ivcore.config import DataConfig
from ivcore.datasets import cards, published
from ivcore.datasets.shapes.drawing import encode
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Store

PACKAGE = "ivcore.datasets.sets"
NAMES = names.names(PACKAGE)
REAL = (Path(__file__).parents[3] / "../shared/data/annotations").resolve()
AT_HAND = {"msrvtt": "msrvtt", "msvd": "msvd", "msvd_cn": "msvd", "didemo": "didemo", "youcook2": "youcook2"}
WRONG = {
    "msrvtt": "msrvtt/msrvtt_ret_test1k.json",
    "didemo": "didemo/didemo_ret_test.json",
    "youcook2": "msrvtt/MSRVTT_JSFUSION_test.csv",
}
real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the annotation files")


def card(name: str) -> cards.Card:
    return names.module(PACKAGE, name).CARD


def rows(name: str, annotations: Path, **more) -> tuple[list[dict], list[dict]]:
    data = DataConfig(dataset=name, root=str(annotations.parent), annotations=str(annotations), **more)
    return names.module(PACKAGE, name).rows(data, annotations.parent)


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_a_whole_card(name):
    found = card(name)
    assert all((found.name, found.split, found.caption_rule, found.licence, found.citation, found.main_score))
    assert set(found.languages) <= {"en", "zh", "es"}
    for digest in found.files.values():
        assert digest == cards.UNVERIFIED or (len(digest) == 64 and int(digest, 16))
    assert found.checksum == "none" or found.url.startswith("https://")
    json.dumps(found.facts())


def test_which_cards_are_verified():
    by = {c: {n for n in NAMES if card(n).checksum == c} for c in ("sha256", "unverified", "none")}
    assert by["sha256"] == set(AT_HAND)
    assert by["none"] == {"folder", "mix", "synthetic", "upstream", "upstream_actions", "upstream_mc"}
    assert by["unverified"] >= {"lsmdc", "activitynet", "vatex_en", "vatex_zh", "ssv2_mc", "charades", "hmdb51"}


@real
@pytest.mark.parametrize("name", sorted(AT_HAND))
def test_a_card_fits_its_real_annotation(name):
    counts = published.counts(name, str(REAL / AT_HAND[name]))
    assert counts == {"videos": card(name).num_videos, "captions": card(name).num_captions}


@real
@pytest.mark.parametrize("name", sorted(WRONG))
def test_another_split_is_refused_and_both_are_named(name):
    file = REAL / WRONG[name]
    with pytest.raises(UserError) as error:
        published.counts(name, str(file))
    assert next(iter(card(name).files.values())) in str(error.value)
    assert cards.sha256_file(file) in str(error.value)


@real
def test_one_byte_more_is_refused(tmp_path):
    for file in ("captions_msvd.json", "test_list.txt"):
        (tmp_path / file).write_bytes((REAL / "msvd" / file).read_bytes())
    assert published.counts("msvd", str(tmp_path))["videos"] == 670
    (tmp_path / "test_list.txt").open("a").write("\n")
    with pytest.raises(UserError, match="another split"):
        published.counts("msvd", str(tmp_path))


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


def test_unverified_is_refused_until_it_is_allowed(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("m_1\t0\t0\t0\t0\tShe waits.\nm_2\t0\t0\t0\t0\tHe  goes.\n")
    with pytest.raises(UserError, match=r"unverified.*--allow-unverified"):
        published.counts("lsmdc", str(file))
    assert published.counts("lsmdc", str(file), allow_unverified=True) == {"videos": 2, "captions": 2}


def test_a_count_that_is_not_the_cards_is_said(tmp_path, caplog):
    file = tmp_path / "mine.csv"
    file.write_text("m_1\t0\t0\t0\t0\tShe waits.\n")
    published.counts("lsmdc", str(file), allow_unverified=True)
    assert "the card says 1000 videos, the annotation has 1" in caplog.text
    with pytest.raises(UserError, match="the card says 1000 videos"):
        cards.counted("msrvtt", card("msrvtt"), 999, 1000)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / next(iter(files))


def texts(captions: list[dict], clip_id: str) -> list[str]:
    """True texts of a clip, its own and those that pairs name."""
    return [
        c["caption"]
        for c in captions
        if (c["clip_id"] == clip_id) or [clip_id, True] in [list(p) for p in c.get("pairs", ())]
    ]


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


ENTRIES = [
    {"video": "a.mp4", "caption": ["one", "two"]},
    {"video": "sub/b.mp4", "caption": "three"},
    {"video": "a.mp4", "caption": "four"},
]


def test_upstreams_retrieval_json(tmp_path):
    file = write(tmp_path, **{"r.json": json.dumps(ENTRIES)})
    clips, captions = rows("upstream", file)
    assert [c["clip_id"] for c in clips] == ["a.mp4", "sub/b.mp4"]
    assert texts(captions, "a.mp4") == ["one", "two", "four"]
    _, captions = rows("upstream", file, caption_rule="paragraph", language="zh")
    assert texts(captions, "a.mp4") == ["one two four"] and {c["language"] for c in captions} == {"zh"}


def test_several_videos_of_a_caption(tmp_path):
    file = write(tmp_path, **{"r.json": json.dumps([{"video": ["a.mp4", "b.mp4"], "caption": "x"}, ENTRIES[1]])})
    clips, captions = rows("upstream", file)
    assert [(c["clip_id"], c.get("pairs", [])) for c in captions] == [
        ("a.mp4", [("b.mp4", True)]),
        ("sub/b.mp4", []),
    ]
    assert len(clips) == 3


def test_upstreams_choices(tmp_path):
    own = [{"video": "a.mp4", "option": ["x", "y"], "answer": 1}, {"video": "a.mp4", "option": ["y", "z"], "answer": 0}]
    clips, captions = rows("upstream_mc", write(tmp_path, **{"m.json": json.dumps(own)}))
    assert [c["clip_id"] for c in clips] == ["a.mp4", "a.mp4#2"] and {c["family"] for c in clips} == {"a.mp4"}
    assert [(c["caption"], c["pairs"]) for c in captions] == [
        ("x", [("a.mp4", False)]),
        ("y", [("a.mp4", True)]),
        ("y", [("a.mp4#2", True)]),
        ("z", [("a.mp4#2", False)]),
    ]
    several = [{"video": v, "option": ["x", "y", "z"], "answer": a} for v, a in (("a", [1, 0, 1]), ("b", [0, 0, 0]))]
    _, captions = rows("upstream_mc", write(tmp_path, **{"m.json": json.dumps(several)}))
    assert texts(captions, "a") == ["x", "z"] and texts(captions, "b") == []
    assert [c["caption"] for c in captions] == ["x", "y", "z"]  # once, not once a video


def test_upstreams_actions(tmp_path):
    entries = [{"video": v, "caption": c} for v, c in (("a", "run"), ("b", "jump"), ("c", "run"))]
    _, captions = rows("upstream_actions", write(tmp_path, **{"c.json": json.dumps(entries)}))
    assert [c["caption"] for c in captions] == ["jump", "run"] and texts(captions, "c") == ["run"]


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("upstream", "{", "cannot be read as json"),
        ("upstream", "{}", "no list"),
        ("upstream", '[{"video": "a"}]', "entry 1: caption = None"),
        ("upstream", '[{"caption": "a"}]', "must have a video"),
        ("upstream_mc", '[{"video": "a", "option": ["x", "y"], "answer": 2}]', "answer = 2"),
        ("upstream_mc", '[{"video": "a", "option": ["x", "y"], "answer": [1]}]', "neither a place"),
        ("upstream_actions", '[{"video": "a", "caption": ""}]', "neither a text"),
        ("upstream", '[{"video": "../a", "caption": "x"}]', "leaves data.root"),
    ],
)
def test_wrong_entries_are_named(tmp_path, name, text, told):
    with pytest.raises(UserError, match=told):
        rows(name, write(tmp_path, **{"r.json": text}))


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


def test_the_command_lists_shows_and_checks(tmp_path):
    from flows.cli import main

    def iv(*words: str):
        return CliRunner().invoke(main, ["datasets", *words])

    assert all(name in iv().output for name in NAMES)
    listed = json.loads(iv("--json").output)["datasets"]
    assert listed["msvd"]["num_captions"] == 27763 and set(listed) == set(NAMES)
    assert "Chen, Dolan" in iv("msvd").output
    file = tmp_path / "a.csv"
    file.write_text("m_1\t0\t0\t0\t0\tShe waits.\n")
    refused = iv("lsmdc", "--check", str(file))
    assert refused.exit_code == 2 and "--allow-unverified" in refused.output
    passed = iv("lsmdc", "--check", str(file), "--allow-unverified", "--json")
    assert passed.exit_code == 0 and '"videos": 1' in passed.output
    assert iv("nowhere").exit_code == 2 and iv("folder", "--check", str(file)).exit_code == 2


def test_the_allowance_reaches_the_config():
    from flows.cli import load

    assert load("demo", (), None, True).data.allow_unverified and not load("demo", (), None).data.allow_unverified
