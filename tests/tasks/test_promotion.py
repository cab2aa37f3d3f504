"""The champion's alias over made-up scores and a registry in a dict."""

import pytest

from ivcore.config import EvalConfig
from ivcore.errors import UserError, WorkError
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from tasks import promotion, registry, rescoring

EVALUATION = EvalConfig(bootstrap=200)
N = 40


@pytest.fixture
def versions(monkeypatch):
    """number -> checkpoint key, and the aliases."""
    keys, aliases, told = {}, {}, []

    def version(kind, name):
        number = max(keys, default=None) if name == "newest" else aliases.get(name, name)
        return (number, keys[number]) if number in keys else None

    def move(kind, alias, number, why):
        aliases[alias] = number

    monkeypatch.setattr(registry, "version", version)
    monkeypatch.setattr(registry, "move", move)
    monkeypatch.setattr(registry, "tell", lambda kind, what, number, why: told.append((what, number, why)))
    return keys, aliases, told


def _manifest(store, size=1):
    """Clips in families of `size`."""
    clips = [
        {**dict.fromkeys(c.name for c in schemas.MANIFEST.columns), "clip_id": f"v{i:02d}", "path": f"{i}.mp4"}
        | {"sha256": "", "bytes": 1, "split": "test", "family": f"v{i // size:02d}"}
        | {"source": "folder", "media": "video", "weight": 1}
        for i in range(N)
    ]
    texts = [
        {
            "caption_id": f"t{i:02d}",
            "clip_id": f"v{i:02d}",
            "language": "en",
            "text_class": "short",
            "caption": f"c {i}",
        }
        for i in range(N)
    ]
    with store.write("manifest", "m", 1, {}, {}) as draft:
        schemas.write(draft.path / "manifest.parquet", clips, schemas.MANIFEST)
        schemas.write(draft.path / "captions.parquet", texts, schemas.CAPTIONS)


def _scored(store, key, right, k=16):
    """A clip checkpoint whose first `right` queries find their video first."""
    if store.find("clip", key) is None:
        with store.write("clip", key, 1, {"n": key}, {"manifest": "manifest/m"}):
            pass
    asked = {"head": "sim", "direction": "t2v", "language": "en", "text_class": "short", "model": "clip"}
    rows = [
        {"query_id": f"t{i:02d}", "candidate_id": f"v{i:02d}", **asked, "rank": 1 if i < right else 2}
        | {"score": 0.5, "relevant": True}
        for i in range(N)
    ]
    inputs = {"manifest": "manifest/m", "checkpoint": f"clip/{key}"}
    with store.write("scores", f"of-{key}-{k}", 1, {"k": k}, inputs) as draft:
        schemas.write(draft.path / "scores.parquet", rows, schemas.SCORES)
    return draft.artifact


def _challenge(home, name="newest"):
    return promotion.promote(home, "clip", name, EVALUATION)


def test_the_alias_moves_only_to_a_clearly_better_one(tmp_path, versions):
    keys, aliases, told = versions
    store = Store(tmp_path)
    _manifest(store)
    for number, right in (("1", 20), ("2", 21), ("3", 35)):
        _scored(store, f"key{number}", right)
    keys["1"] = "key1"
    first = _challenge(tmp_path)
    assert first.promoted and first.champion is None and aliases == {"challenger": "1", "champion": "1"}
    keys["2"] = "key2"
    second = _challenge(tmp_path)  # one query more of forty: luck
    assert not second.promoted and aliases == {"challenger": "2", "champion": "1"}
    assert "not shown to be better" in second.why and told == [("challenged", "2", second.why)]
    keys["3"] = "key3"
    third = _challenge(tmp_path)
    assert third.promoted and aliases["champion"] == "3" and "+37.50 points" in third.why and "95 %" in third.why
    assert not _challenge(tmp_path, "3").promoted  # the champion against itself
    assert not _challenge(tmp_path, "1").promoted and aliases["champion"] == "3"  # a worse one


def test_a_champion_that_was_asked_something_else_is_scored_anew(tmp_path, versions, monkeypatch):
    keys, aliases, _ = versions
    store = Store(tmp_path)
    _manifest(store)
    _scored(store, "key1", 20)
    _scored(store, "key2", 40, k=4)
    keys.update({"1": "key1", "2": "key2", "3": "key3"})
    aliases["champion"] = "1"

    def like(store, scores, checkpoint, before):
        assert (scores.key, checkpoint.key, before.key) == ("of-key2-4", "key1", "of-key1-16")
        return _scored(store, "key1", 38, k=4)

    monkeypatch.setattr(rescoring, "like", like)
    assert not _challenge(tmp_path, "2").promoted  # 40 of 40 against 38, on the same questions
    monkeypatch.delattr(rescoring, "like")
    assert not _challenge(tmp_path, "2").promoted  # those scores are found
    with pytest.raises(WorkError, match="clip/key3 has no scores"):
        _challenge(tmp_path, "3")
    with pytest.raises(UserError, match="no version '9'"):
        _challenge(tmp_path, "9")
    assert aliases["champion"] == "1"


def test_few_families_promote_nobody_however_many_clips_they_have(tmp_path, versions):
    keys, aliases, _ = versions
    store = Store(tmp_path)
    _manifest(store, size=10)  # 40 queries of four families
    for number, right in (("1", 0), ("2", 40)):
        _scored(store, f"key{number}", right)
    keys.update({"1": "key1", "2": "key2"})
    aliases["champion"] = "1"
    found = _challenge(tmp_path)
    assert not found.promoted and aliases["champion"] == "1" and found.why.startswith("too few to tell: ")
