import json
import multiprocessing
import shutil
import time
from pathlib import Path

import pytest

from ivcore.errors import UserError, WorkError
from ivcore.steps import Step, run
from ivcore.store import soundness
from ivcore.store.artifacts import Store, key
from ivcore.store.known_files import sha256_file


def _slow(draft, log):
    (draft.path / "a.txt").write_text("a")
    time.sleep(0.2)
    (draft.path / "b.txt").write_text("b")
    draft.count(2, 1)


def _step(make=_slow):
    return Step("ingest", "manifest", {"x": 1}, {}, make)


def _write(home, start, errors):
    start.wait()
    try:
        run(_step(), Store(Path(home)))
    except BaseException as e:
        errors.put(repr(e))


def test_two_processes_writing_one_key_leave_one_good_artifact(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, errors = context.Event(), context.Queue()
    writers = [context.Process(target=_write, args=(str(tmp_path), start, errors)) for _ in range(2)]
    for w in writers:
        w.start()
    start.set()
    for w in writers:
        w.join(60)
    assert errors.empty() and [w.exitcode for w in writers] == [0, 0]
    (found,) = Store(tmp_path).all()
    assert found.rows == 2
    record = found.record()
    assert record["files"] == {n: sha256_file(found.path / n) for n in ("a.txt", "b.txt")}
    assert (record["rows_in"], record["rows_ok"], record["rows_failed"]) == (3, 2, 1)
    assert [p.name for p in found.path.parent.iterdir()] == [found.key]  # no half-written neighbour stays


def test_half_written_is_never_found(tmp_path):
    store, step = Store(tmp_path), _step()

    def fail(draft, log):
        (draft.path / "a.txt").write_text("a")
        assert store.find("manifest", step.key) is None
        raise WorkError("no")

    with pytest.raises(WorkError, match="no"):
        run(_step(fail), store)
    assert store.find("manifest", step.key) is None and list(store.all()) == []
    store.path("manifest", step.key).mkdir()  # a folder without its record is not an artifact either
    assert store.find("manifest", step.key) is None


@pytest.mark.parametrize("text", ["", "whole"])
def test_what_a_killed_process_left_is_not_among_the_artifacts(text, tmp_path):
    store = Store(tmp_path)
    made = run(_step(), store)
    left = made.path.with_name(f".{'0' * 24}.somewhere.1.tmp")
    shutil.copytree(made.path, left)  # killed just before it was given its name, or while its record was written
    if not text:
        (left / "record.json").write_text("")
    assert [a.id for a in store.all()] == [id for id, _ in store.records("manifest")] == [made.id]


def test_a_finished_step_is_not_made_again(tmp_path):
    store = Store(tmp_path, {"mlflow_run_id": "m1"})
    first = run(_step(), store)

    def fail(draft, log):
        raise AssertionError("made again")

    assert run(_step(fail), Store(tmp_path)) == first
    assert first.record()["mlflow_run_id"] == "m1"


def test_the_key_depends_on_every_part_of_the_recipe():
    base = key("s2", 1, {"a": 1, "b": 2}, {"x": "frames/1"})
    assert base == key("s2", 1, {"b": 2, "a": 1}, {"x": "frames/1"}) and len(base) == 24
    others = [
        key("clip", 1, {"a": 1, "b": 2}, {"x": "frames/1"}),
        key("s2", 2, {"a": 1, "b": 2}, {"x": "frames/1"}),
        key("s2", 1, {"a": 1, "b": 3}, {"x": "frames/1"}),
        key("s2", 1, {"a": 1, "b": 2}, {"x": "frames/2"}),
    ]
    assert len({base, *others}) == 5


def test_damage_and_other_versions_are_named(tmp_path, caplog):
    store = Store(tmp_path)
    found = run(_step(), store)
    path = found.path / "record.json"
    path.write_text(json.dumps(soundness.sealed({**found.record(), "schema": 99})))
    with pytest.raises(UserError, match="schema 99"):
        store.find("manifest", found.key)
    path.write_text("{")
    assert store.find("manifest", found.key) is None
    (said,) = [r.getMessage() for r in caplog.records]
    assert f"{found.id} is damaged: record.json" in said and f"set aside in {tmp_path}/damaged" in said
    with pytest.raises(WorkError, match="manifest/none is not in"):
        store.get("manifest/none")
