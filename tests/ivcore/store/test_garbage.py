import os

import pyarrow as pa
import pyarrow.parquet as pq

from ivcore.store import garbage
from ivcore.store.artifacts import Store


def _make(store, kind, key, inputs=(), shards=None, config=None):
    named = {id.partition("/")[0]: id for id in inputs}
    with store.write(kind, key, 1, config or {"n": key}, named) as draft:
        (draft.path / "data.bin").write_bytes(b"x" * 100)
        if shards:
            pq.write_table(pa.table({"shard": pa.array(shards, pa.string())}), draft.path / "index.parquet")
    return f"{kind}/{key}"


def test_what_a_root_stands_on_stays_with_its_shards_and_videos(tmp_path):
    store = Store(tmp_path)
    _make(store, "videos", "v1", config={"data": 1})
    _make(store, "videos", "v2", config={"data": 2})
    manifest = _make(store, "manifest", "m1", config={"data": 1})
    for name in ("a", "b", "old"):
        _make(store, "frame_shard", name)
    frames = _make(store, "frames", "f1", [manifest], ["frame_shard/a", "frame_shard/b", None])
    s2 = _make(store, "s2", "c1", [frames, manifest])
    _make(store, "s2", "c2", [frames, manifest])
    _make(store, "novel", "x")
    found = {a.id for a in garbage.garbage(store, [s2, "s2/gone"], 0)}
    assert found == {"videos/v2", "frame_shard/old", "s2/c2"}  # and not what this file does not know
    assert garbage.garbage(store, [], 3600) == []  # all too young


def test_what_is_removed_is_gone_whole(tmp_path):
    store = Store(tmp_path)
    _make(store, "s2", "c1")
    (found,) = garbage.garbage(store, [], 0)
    assert garbage.size(found.path) > 100
    garbage.remove(found.path)
    assert store.find("s2", "c1") is None and list((tmp_path / "artifacts" / "s2").iterdir()) == []


def _age(path):
    os.utime(path, (1, 1))


def test_what_a_run_has_just_found_stays_with_all_it_stands_on(tmp_path):
    store = Store(tmp_path)
    manifest = _make(store, "manifest", "m1", config={"data": 1})
    _make(store, "videos", "v1", config={"data": 1})
    _make(store, "frame_shard", "a")
    _make(store, "frames", "f1", [manifest], ["frame_shard/a"])
    _make(store, "s2", "old")
    for record in (tmp_path / "artifacts").rglob("record.json"):
        _age(record)
    assert len(garbage.garbage(store, [], 3600)) == 5  # to be listed is not to be used
    assert store.find("frames", "f1") is not None
    assert [a.id for a in garbage.garbage(store, [], 3600)] == ["s2/old"]


def test_states_of_abandoned_phases_and_damaged_artifacts_go_when_they_are_old(tmp_path):
    for name in ("cache/training/s2-abandoned/step-000010", "cache/training/s2-goes-on/step-000020", "damaged/s2/k"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "state.json").write_text("{}")
    assert garbage.leftovers(tmp_path, 3600) == []
    old = garbage.time.time() + 7200
    later = tmp_path / "cache" / "training" / "s2-goes-on" / "step-000020" / "state.json"
    os.utime(later, (old, old))
    assert [p.name for p in garbage.leftovers(tmp_path, -1)] == ["s2-abandoned", "k"]
