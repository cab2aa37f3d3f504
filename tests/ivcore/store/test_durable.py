import os
import socket
import subprocess
import sys
import threading

import pytest

from ivcore.store import durable
from ivcore.store.artifacts import Store

HERE = socket.gethostname()


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_threads_that_make_one_artifact_do_not_take_the_others_folder_away(tmp_path):
    store, both, errors = Store(tmp_path), threading.Barrier(2, timeout=30), []

    def make():
        try:
            with store.write("manifest", "k", 1, {}, {}) as draft:
                (draft.path / "a.txt").write_text("a")
                both.wait()  # both folders are there
                (draft.path / "b.txt").write_text("b")
                draft.count(1)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and names(tmp_path / "artifacts" / "manifest") == ["k"]
    assert names(store.get("manifest/k").path) == ["a.txt", "b.txt", "record.json"]


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path):
    texts = [str(n) * 1000 for n in range(8)]
    threads = [threading.Thread(target=durable.put, args=(tmp_path / "file", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in texts and names(tmp_path) == ["file"]


def test_what_the_dead_left_goes_and_what_the_living_write_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [f".it.{HERE}.{pid}{rest}.tmp" for pid in (dead.pid, os.getpid()) for rest in ("", ".7")]
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    others = [f".it.{HERE}.{os.getppid()}.1.tmp", f".it.elsewhere.{dead.pid}.1.tmp", f".other.{HERE}.{dead.pid}.1.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    with durable.aside(tmp_path / "it") as folder, durable.name_aside(tmp_path / "it") as second:
        assert names(tmp_path) == sorted([*others, folder.name]) and second != folder
    assert names(tmp_path) == sorted(others)


def test_a_name_of_any_characters(tmp_path):
    durable.put(tmp_path / "a[1]*?.txt", "x")
    (tmp_path / f".a[1]*?.txt.{HERE}.{os.getpid()}.tmp").write_text("left")
    durable.put(tmp_path / "a[1]*?.txt", "y")
    assert names(tmp_path) == ["a[1]*?.txt"]


def test_an_error_leaves_the_old_text_and_nothing_beside_it(tmp_path):
    durable.put(tmp_path / "deep" / "file", "old")
    with pytest.raises(KeyError), durable.written(tmp_path / "deep" / "file") as made:
        made.write_text("half")
        raise KeyError
    assert (tmp_path / "deep" / "file").read_text() == "old" and names(tmp_path / "deep") == ["file"]


def test_the_bytes_are_on_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda fd: order.append(os.readlink(f"/proc/self/fd/{fd}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("named"), replace(a, b)))
    durable.put(tmp_path / "file", "x")
    assert order[0].endswith(".tmp") and order[1:] == ["named", str(tmp_path)]


def test_a_link_is_moved_and_a_folder_dropped(tmp_path):
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        durable.put_link(tmp_path / "latest", target)
        assert (tmp_path / "latest").readlink().name == target
    durable.drop(tmp_path / "one")
    assert names(tmp_path) == ["latest", "two"]
