import pyarrow as pa
import pytest

from ivcore.store import known_files, schemas, soundness
from ivcore.store.artifacts import INDEX, Store, key
from ivcore.store.soundness import Damaged

KEY = key("frame_shard", 1, {}, {})


def shard(store):
    """A small frame shard, as one of any size: its table is read by page."""
    rows = [{"clip_id": f"c{n}", "frames": bytes(range(n, n + 9))} for n in range(3)]
    with store.write("frame_shard", KEY, 1, {}, {}) as draft:
        schemas.write(draft.path / "frames.parquet", rows, schemas.FRAME_SHARD, write_statistics=False)
        (draft.path / "notes.txt").write_text("as written")
        draft.count(3)
    return draft.artifact.path


def test_no_byte_of_a_table_read_by_page_can_change_unnoticed(tmp_path):
    path = shard(Store(tmp_path)) / "frames.parquet"
    good, whole = path.read_bytes(), schemas.read(path, schemas.FRAME_SHARD)
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            assert schemas.read(path, schemas.FRAME_SHARD).equals(whole), f"byte {at}"
        except Damaged:
            (tmp_path / "damaged" / "frame_shard" / KEY).rename(path.parent)


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    store, read = Store(tmp_path), []
    path = shard(store) / "notes.txt"
    monkeypatch.setattr(soundness, "SETTLED_S", -1)
    monkeypatch.setattr(soundness, "sha256_file", lambda p: read.append(p.name) or known_files.sha256_file(p))
    soundness.check(path)
    soundness.check(path)
    soundness._sound.clear()  # another process
    soundness.check(path)
    assert read == ["notes.txt"]
    path.write_text("as writteN")
    with pytest.raises(Damaged, match=rf"{KEY} is damaged: notes\.txt is not as it was written; .* set aside"):
        soundness.check(path)
    assert not path.exists() and (tmp_path / "damaged" / "frame_shard" / KEY / "notes.txt").exists()
    assert store.find("frame_shard", KEY) is None


def test_what_is_gone_or_damaged_twice_is_set_aside_too(tmp_path):
    for name in (KEY, f"{KEY}-2"):
        path = shard(Store(tmp_path)) / "notes.txt"
        path.unlink()
        with pytest.raises(Damaged, match=r"notes\.txt is gone"):
            soundness.check(path)
        assert (tmp_path / "damaged" / "frame_shard" / name).is_dir()


def test_what_is_no_artifact_is_not_looked_at(tmp_path):
    (tmp_path / "notes.txt").write_text("a user's own")
    soundness.check(tmp_path / "notes.txt")
    soundness.check_all(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]  # neither moved nor remembered


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_record_is_set_aside(tmp_path, at, caplog):
    store = Store(tmp_path)
    path = shard(store) / "record.json"
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)
    assert list(store.all()) == [] and "record.json is not as it was written; it is set aside" in caplog.text
    assert store.find("frame_shard", KEY) is None


def test_frames_whose_shard_is_gone_are_made_again(tmp_path):
    store = Store(tmp_path)
    with store.write("frames", key("frames", 1, {}, {}), 1, {}, {}) as draft:
        table = pa.table({"shard": [f"frame_shard/{KEY}", None]})
        pa.parquet.write_table(table, draft.path / INDEX)
    made = draft.artifact
    shard(store)
    assert store.complete(made.kind, made.key) == made
    (tmp_path / "artifacts" / "frame_shard").rename(tmp_path / "gone")
    assert store.complete(made.kind, made.key) is None and store.find(made.kind, made.key) is None


def test_all_bytes_are_read_when_asked(tmp_path):
    folder = shard(Store(tmp_path))
    assert soundness.fault(folder) is None
    data = bytearray((folder / "frames.parquet").read_bytes())
    data[10] ^= 1
    (folder / "frames.parquet").write_bytes(data)
    assert soundness.fault(folder) == "frames.parquet"
