"""Annotations in upstream's own json: retrieval, choices, actions, and mistakes in them."""

import json

import pytest

from ivcore.errors import UserError
from tests.ivcore.datasets.made_up import rows, texts, write

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
