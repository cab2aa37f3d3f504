"""Near-duplicate captions: what counts as one, and hand-worked ranks."""

import numpy as np
import pyarrow as pa
import pytest

from ivcore.store import schemas
from ivcore.store.artifacts import Store
from ivcore.verdict.near_duplicates import adjusted, form, said


@pytest.mark.parametrize(
    ("one", "two", "language", "same"),
    [
        ("A dog runs.", "the dog runs", "en", True),
        ("A dog is running", "a DOG, running!", "en", True),
        ("red circle above blue square", "blue square above red circle", "en", False),
        ("a dog runs", "a cat runs", "en", False),
        ("Un perro está corriendo", "el perro corriendo", "es", True),
        ("红色 圆形。", "红色圆形", "zh", True),
        ("红色圆形", "圆形红色", "zh", False),
        ("the", "a", "en", False),  # nothing but articles: compared as they are
    ],
)
def test_form(one, two, language, same):
    assert (form(one, language) == form(two, language)) is same


@pytest.fixture
def known(tmp_path):
    texts = [("a0", "a", "A dog runs."), ("a1", "a", "other"), ("b0", "b", "the dog runs"), ("c0", "c", "fish")]
    rows = [dict(zip(("caption_id", "clip_id", "caption"), t), language="en", text_class="short") for t in texts]
    rows.append({**rows[3], "caption_id": "b9", "clip_id": "b", "language": "es"})  # another language does not count
    with Store(tmp_path).write("manifest", "m", 1, {}, {}) as draft:
        schemas.write(draft.path / "captions.parquet", rows, schemas.CAPTIONS)
        draft.count(len(rows))
    return said(draft.artifact)


def table(*rows):
    return pa.table({n: [r[i] for r in rows] for i, n in enumerate(("query_id", "candidate_id", "score"))})


def test_text_to_video(known):
    found = table(
        ("a0", "b", 0.9), ("a0", "c", 0.8), ("a0", "a", 0.7),  # b is said the same of: right at rank 1 instead of 3
        ("a1", "c", 0.9), ("a1", "b", 0.9), ("a1", "a", 0.1),  # said of nobody else: stays 3
        ("c0", "a", 0.5), ("c0", "b", 0.5), ("c0", "c", 0.5),  # all tie: the wrong ones first, stays 3
    )  # fmt: skip
    assert adjusted(found, np.array([3, 3, 3]), "t2v", known).tolist() == [1, 3, 3]


def test_a_tie_with_a_near_duplicate_does_not_flatter(known):
    found = table(("b0", "c", 0.9), ("b0", "a", 0.9), ("b0", "b", 0.2))
    assert adjusted(found, np.array([3]), "t2v", known).tolist() == [2]  # c ties with a and goes first


def test_video_to_text_and_beyond_what_was_kept(known):
    found = table(("a", "c0", 0.9), ("a", "b0", 0.8), ("b", "c0", 0.9), ("b", "b0", -100.0))
    assert adjusted(found, np.array([7, 9]), "v2t", known).tolist() == [2, 2]
    assert known.doubtful == {"a0", "b0", "a", "b"}
