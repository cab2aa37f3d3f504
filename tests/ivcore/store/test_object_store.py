"""Workspaces that share artifacts through an object store: a real S3 server over HTTP, and a folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from ivcore import steps
from ivcore.config import DataConfig, FramesConfig
from ivcore.errors import UserError, WorkError
from ivcore.store import object_store, soundness
from ivcore.store.artifacts import Store, key
from tests import own_videos, s3

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server():
    with s3.server() as url:
        yield url


@pytest.fixture(params=["s3", "file"])
def shared(request, tmp_path, monkeypatch):
    """IV_REMOTE, set: a prefix of the bucket or a folder of this test's own."""
    there = f"{s3.BUCKET}/{tmp_path.name}" if request.param == "s3" else f"{tmp_path}/there"
    if request.param == "s3":
        request.getfixturevalue("server")
    monkeypatch.setenv(object_store.ADDRESS, f"{request.param}://{there}")
    return f"{request.param}://{there}"


def key_of(name: str = "k", inputs: dict | None = None, kind: str = "manifest") -> str:
    return key(kind, 1, {"x": name}, inputs or {})


K = key_of()


def make(home: Path, name: str = "k", inputs: dict | None = None, kind: str = "manifest", text: str = "some words"):
    store = Store(home)
    with store.write(kind, key_of(name, inputs, kind), 1, {"x": name}, inputs or {}) as draft:
        (draft.path / "a.txt").write_text(text)
        (draft.path / "train").mkdir()
        (draft.path / "train" / "b.bin").write_bytes(b"")
        draft.count(2, 1)
    return draft.artifact


def files(home: Path) -> dict[str, bytes]:
    """Everything below artifacts/, leftovers too."""
    return {p.relative_to(home).as_posix(): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file()}


def opened(address: str) -> tuple[fs.FileSystem, str]:
    return fs.FileSystem.from_uri(address)


def test_an_empty_workspace_gets_the_same_bytes(shared, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    made = make(one)
    found = Store(two).find("manifest", K)
    assert found is not None and found.rows == 2 and found.record()["rows_failed"] == 1
    assert files(two) == files(one) and len(files(two)) == 3
    assert Store(two).find("manifest", "other") is None and found.id == made.id
    assert list(Store(tmp_path / "three").all()) == []  # a list says what is here
    assert dict(Store(tmp_path / "three").records("manifest")) == {made.id: made.record()}


def test_a_step_that_another_machine_did_is_not_done_again(shared, tmp_path):
    step = steps.Step("ingest", "manifest", {"x": 1}, {}, lambda draft, log: draft.count(3))
    made = steps.run(step, Store(tmp_path / "one", {"prefect_run_id": "p1"}))

    def fail(draft, log):
        raise AssertionError("made again")

    again = steps.run(steps.Step("ingest", "manifest", {"x": 1}, {}, fail), Store(tmp_path / "two"))
    assert again.key == made.key and again.record() == made.record()


KILLED = """
import os, signal, sys
from ivcore.store import object_store, soundness
from ivcore.store.object_store import Remote
from ivcore.store.artifacts import Store
object_store.THREADS = 1  # in turn: a.txt has arrived when b.bin is on its way
whole, moment = Remote._put, sys.argv[2]

def put(self, source, target, sha256=None):
    if moment == "record" and sha256 is None:
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "file" and source.name == "b.bin":
        aside = target + ".tmp" if self._local else target
        if self._local:
            self._fs.create_dir(target.rpartition("/")[0])
        out = self._fs.open_output_stream(aside)
        out.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, source, target, sha256)

Remote._put = put
store = Store(sys.argv[1])
store.share(store.find("manifest", sys.argv[3]))
"""


@pytest.mark.parametrize("moment", ["file", "record"])
def test_a_killed_upload_is_never_seen_and_the_next_run_ends_it(shared, tmp_path, monkeypatch, moment):
    with monkeypatch.context() as alone:
        alone.delenv(object_store.ADDRESS)
        made = make(tmp_path / "one")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "one"), moment, K], env=env, timeout=120)
    assert done.returncode == -signal.SIGKILL
    there, base = opened(shared)
    sent = there.get_file_info(fs.FileSelector(base, recursive=True))
    assert [info.base_name for info in sent if info.base_name in ("a.txt", "record.json")] == ["a.txt"]
    two = Store(tmp_path / "two")
    assert two.find("manifest", K) is None and dict(two.records("manifest")) == {} and files(two.home) == {}
    Store(tmp_path / "one").share(made)
    assert two.find("manifest", K) is not None and files(two.home) == files(tmp_path / "one")


def test_a_damaged_file_is_refused_and_nothing_of_it_stays(shared, tmp_path):
    made = make(tmp_path / "one")
    there, base = opened(shared)
    spot = f"{base}/artifacts/{made.id}/{made.record()['files']['a.txt']}/a.txt"
    with there.open_output_stream(spot) as f:
        f.write(b"some wordS")
    two = Store(tmp_path / "two")
    with pytest.raises(
        WorkError, match=rf"a\.txt of manifest/{K} is damaged or gone; delete artifacts/manifest/{K} there"
    ):
        two.find("manifest", K)
    assert files(two.home) == {} and list((two.home / "artifacts" / "manifest").iterdir()) == []
    there.delete_file(spot)
    with pytest.raises(WorkError, match="damaged or gone"):
        two.find("manifest", K)
    there.delete_dir_contents(f"{base}/artifacts/{made.id}")  # the cure
    Store(tmp_path / "one").share(made)
    assert two.find("manifest", K) is not None


def test_a_record_cannot_write_outside_its_folder(shared, tmp_path):
    made = make(tmp_path / "one")
    there, base = opened(shared)
    record = made.record()
    record["files"] = {"../../../../escaped.txt": record["files"]["a.txt"]}
    with there.open_output_stream(f"{base}/artifacts/{made.id}/record.json") as f:
        f.write(json.dumps(soundness.sealed(record)).encode())
    with pytest.raises(WorkError, match="leaves its folder"):
        Store(tmp_path / "two").find("manifest", K)
    assert not (tmp_path / "escaped.txt").exists()


def test_what_is_there_stands_on_what_is_there(shared, tmp_path, monkeypatch):
    one = Store(tmp_path / "one")
    with monkeypatch.context() as alone:  # made before anything was shared
        alone.delenv(object_store.ADDRESS)
        make(one.home)
        shard = make(one.home, "s", kind="frame_shard").id
        of = {"manifest": f"manifest/{K}"}
        with one.write("frames", key("frames", 1, {}, of), 1, {}, of) as draft:
            pq.write_table(pa.table({"shard": [shard, None]}), draft.path / "index.parquet")
        not_needed = make(one.home, "not-needed").id
    frames = draft.artifact.id
    scores = make(one.home, "c", {"frames": frames, "gone": "s2/removed"}, kind="scores").id
    two = Store(tmp_path / "two")
    for id in (scores, frames, of["manifest"], shard):
        assert two.get(id).record() == one.get(id).record()
    with pytest.raises(WorkError, match=rf"{not_needed} is not in .*/two nor in (s3|file)://"):
        two.get(not_needed)


def test_a_data_set_that_grew_on_another_machine_decodes_only_what_is_new(tmp_path, monkeypatch):
    monkeypatch.setenv(object_store.ADDRESS, f"file://{tmp_path}/there")
    root = own_videos.make(tmp_path, 6)
    later = (root / "05.mp4").rename(tmp_path / "later")

    def frames(home):
        data, store = DataConfig(dataset="folder", root=str(root)), Store(tmp_path / home)
        manifest = steps.run(steps.ingest(store, data), store)
        return steps.run(steps.decode(store, data, FramesConfig(shard_clips=4, workers=1), manifest), store)

    assert frames("one").record()["measured"]["clips_made"] == 5
    later.rename(root / "05.mp4")
    grown = frames("two").record()
    assert (grown["measured"]["clips_made"], grown["rows_in"]) == (1, 6)


def test_errors_are_one_line_with_a_cure(server, tmp_path, monkeypatch):
    def find(address):
        monkeypatch.setenv(object_store.ADDRESS, address)
        with pytest.raises((UserError, WorkError)) as caught:
            Store(tmp_path).find("manifest", K)
        return caught

    assert find("s3://nobodys/x").match("there is no bucket nobodys; make it first")
    assert find("ftp://host/x").match(r"IV_REMOTE = ftp://host/x: Unrecognized filesystem.*write s3://bucket/prefix")
    for address in ("s3://somebody:hush@ours/x", "s3://ours/x?secret_key=hush", "abfss://c:hush@a.dfs/x"):
        told = find(address)
        assert told.match("holds a secret") and "hush" not in str(told.value) and "somebody" not in str(told.value)
    s3.ask(f"{server}/moto-api/reset-auth", data=b"0")  # from now on it knows nobody
    try:
        told = find("s3://ours/refused")
    finally:
        s3.ask(f"{server}/moto-api/reset-auth", data=b"inf")
    assert told.match("IV_REMOTE = s3://ours/refused cannot be opened: no right to do that; set AWS_ACCESS_KEY_ID")
    told = find("s3://ours/x?endpoint_override=127.0.0.1:1&scheme=http")
    assert told.match("^IV_REMOTE = s3://ours/x does not answer; run again when it does$")
    assert isinstance(told.value, object_store.Unreachable)


def test_a_finished_artifact_is_not_lost_when_it_cannot_be_sent(server, tmp_path, monkeypatch):
    monkeypatch.setenv(object_store.ADDRESS, f"s3://ours/{tmp_path.name}")
    object_store.connect(os.environ[object_store.ADDRESS])
    s3.ask(f"{server}/moto-api/reset-auth", data=b"0")
    try:
        with pytest.raises(WorkError, match="no right to do that"):
            make(tmp_path / "one")
    finally:
        s3.ask(f"{server}/moto-api/reset-auth", data=b"inf")
    made = Store(tmp_path / "one").find("manifest", K)
    assert made is not None
    Store(tmp_path / "one").share(made)
    assert Store(tmp_path / "two").find("manifest", K) is not None


def test_the_probe_writes_and_leaves_nothing(shared):
    object_store.connect(shared).probe()
    there, base = opened(shared)
    left = there.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    assert [info.path for info in left if info.type == fs.FileType.File] == []


@pytest.mark.parametrize("id", ["frame_shard/../../..", "s2/..", "../s2/k", "s2/a/b", "s2/", "", "s2/a\\b", "s2/.k"])
def test_an_id_that_leads_elsewhere_is_no_artifact(id, shared, tmp_path):
    make(tmp_path / "ws")
    with pytest.raises(WorkError, match="is no artifact; one is named KIND/KEY"):
        Store(tmp_path / "ws").get(id)


@pytest.mark.parametrize("forged", [{}, {"kind": "s2", "key": "asked for"}])
def test_a_record_that_belongs_to_another_artifact_is_not_taken(shared, tmp_path, forged):
    made = make(tmp_path / "one", kind="clip")
    other = key_of("another", kind="s2")
    there, base = opened(f"{shared}/artifacts")
    record = soundness.sealed({**made.record(), **{n: other if n == "key" else v for n, v in forged.items()}})
    there.create_dir(f"{base}/s2/{other}", recursive=True)
    with there.open_output_stream(f"{base}/s2/{other}/record.json") as f:
        f.write(json.dumps(record).encode())
    with pytest.raises(WorkError, match=f"artifacts/s2/{other} holds the record of (clip|s2)/(?!{other})"):
        Store(tmp_path / "two").find("s2", other)
    assert not (tmp_path / "two" / "artifacts" / "s2" / other).exists()
