"""Whether to train again: decided by what is new to learn from, counted by content since the models were trained."""

import pytest

from ivcore.config import parse
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from ivcore.train import retraining


def manifest(store, name, train, test=("t0", "t1"), broken=()):
    """A manifest of clips whose bytes are told by their names; times and paths play no part."""
    splits = {"train": train, "test": test}
    empty = {c.name: None for c in schemas.MANIFEST.columns}
    given = {"bytes": 1, "source": "made up", "weight": 1, "media": "video"}
    rows = [
        {**empty, **given, "clip_id": n, "path": n, "family": n, "split": split, "sha256": n.removesuffix("-copy")}
        for split, names in splits.items()
        for n in names
    ]
    for row in rows:
        row["error"] = "unreadable" if row["clip_id"] in broken else None
    with store.write("manifest", name, 1, {}, {}) as draft:
        schemas.write(draft.path / "manifest.parquet", rows, schemas.MANIFEST)
        draft.count(len(rows))
    return draft.artifact


@pytest.fixture
def store(tmp_path):
    """A store in which s2/k and clip/k were trained on 20 clips, by the config `run()`."""
    store = Store(tmp_path)
    for kind in ("s2", "clip"):
        with store.write(kind, "k", 1, {}, {}) as draft:
            draft.count(1)
    first = manifest(store, "first", CLIPS)
    assert retraining.choose(store, run("never"), first) == retraining.Choice((), first, 0, "")
    retraining.remember(store, run("never"), first, MODELS)
    return store


CLIPS = [f"c{n}" for n in range(20)]
MODELS = (("s2/k", "s2/k"), ("clip/k", "s2/k"))  # both on the trunk of s2


def run(how, **values):
    return parse({"train": {"policy": how, **values.pop("train", {})}, **values})


@pytest.mark.parametrize(
    "how, new, held",
    [
        ("always", 1, False),
        ("never", 50, True),
        ("when_data_grows_by", 1, True),  # 5 % of 20
        ("when_data_grows_by", 2, False),  # 10 %: grows_by is reached
    ],
)
def test_held_back_or_not(store, how, new, held):
    grown = manifest(store, "grown", [*CLIPS, *(f"new{n}" for n in range(new))])
    found = retraining.choose(store, run(how), grown)
    assert found.models == (MODELS if held else ()) and found.new_clips == new
    assert found.trained_on.key == ("first" if held else "grown")
    assert f"{new} new training clips, {new / 20:.1%} of the 20" in found.why and how in found.why


def test_what_is_no_new_thing_to_learn_from(store):
    """Other names, clips that are scored, clips that cannot be read, clips that went."""
    other = [f"{name}-copy" for name in CLIPS[:10]]
    grown = manifest(store, "grown", [*other, "broken"], ["t0", "t1", "t2", "t3"], broken=["broken"])
    assert retraining.choose(store, run("when_data_grows_by", train={"grows_by": 0.01}), grown).new_clips == 0


def test_clips_that_are_scored_now_and_were_learned_from_are_told(store):
    moved = manifest(store, "moved", CLIPS[2:], ["t0", "t1", *CLIPS[:2]])
    assert "2 of the clips that are scored now were learned from" in retraining.choose(store, run("never"), moved).why


def test_the_note_is_of_what_is_trained_and_of_nothing_else(store):
    grown = manifest(store, "grown", [*CLIPS, "new"])
    for values in ({"eval": {"k": 3}}, {"train": {"save_every_min": 1.0}}, {"frames": {"workers": 1}}):
        assert retraining.choose(store, run("never", **values), grown).models == MODELS
    other = ({"train": {"seed": 1}}, {"data": {"root": "/elsewhere"}}, {"frames": {"num_frames": 4}}, {"run": "demo"})
    for values in other:
        assert retraining.choose(store, run("never", **values), grown).models == ()


def test_models_that_are_gone_are_trained_anew(store):
    grown = manifest(store, "grown", [*CLIPS, "new"])
    assert set(retraining.noted(store.home)) == {"s2/k", "clip/k"}  # which `iv gc` keeps
    store.path("clip", "k").rename(store.home / "gone")
    assert retraining.choose(store, run("never"), grown).models == ()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"manifest": "manifest/first", "models": [["s2/k", "words"]]}', '{"manifest": 1, "models": []}']
)
def test_a_note_that_cannot_be_read_is_named_with_the_cure(store, text):
    """Neither is it taken for no note, since `iv gc` would let go of what it keeps."""
    (note,) = (store.home / "trained").iterdir()
    note.write_text(text)
    for read in (
        lambda: retraining.choose(store, run("never"), store.get("manifest/first")),
        lambda: [*retraining.noted(store.home)],
    ):
        with pytest.raises(UserError, match=rf"{note.name} is no note .* delete it"):
            read()


def test_the_trunk_a_model_stands_on_is_found_by_its_digest(tmp_path):
    store = Store(tmp_path)

    def write(kind, key, config, inputs, digest=""):
        with store.write(kind, key, 1, config, inputs) as draft:
            draft.facts["vision_digest"] = digest
        return draft.artifact

    s2 = write("s2", "one", {"phase": {"name": "pretrain"}}, {}, "trunk")
    moved = write("clip", "two", {"phase": {"name": "deep"}}, {"init": s2.id}, "moved")
    pooled = write("clip", "three", {"phase": {"name": "pooler"}}, {"init": s2.id}, "trunk and another pooler")
    features = {digest: write("features", digest, {"vision_digest": digest}, {}) for digest in ("trunk", "moved")}
    assert retraining.trunk_of(store, s2, features["trunk"]) == s2
    assert retraining.trunk_of(store, pooled, features["trunk"]) == s2
    assert retraining.trunk_of(store, moved, features["moved"]) == moved
    assert (retraining.phase_name(pooled), retraining.phase_name(write("s2", "adopted", {}, {}))) == (
        "pooler",
        "imported",
    )
