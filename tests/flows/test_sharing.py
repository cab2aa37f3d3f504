"""Two workspaces that share artifacts through an S3 server: what one has run, the other finds."""

import json

import pytest
from click.testing import CliRunner

from ivcore.config import parse
from tests import s3
from tests.kill import hashes

CLIP = {"phases": [{"name": "pooler", "steps": 1, "trainable": "clip"}]}


@pytest.fixture(scope="module")
def server():
    with s3.server() as url:
        yield url


@pytest.fixture
def shared(server, monkeypatch, tmp_path):
    monkeypatch.setenv("IV_REMOTE", f"s3://{s3.BUCKET}/{tmp_path.name}")
    return tmp_path


def test_a_new_machine_finds_what_another_has_run_and_remakes_nothing(home, shared):
    from flows.everything import everything

    config = parse({"seeds": [77], "train": {"clip": CLIP}})
    first = everything(config, str(shared / "one"))
    second = everything(config, str(shared / "two"))
    assert not any(s["cached"] for s in first) and len(first) == 8
    assert all(s["cached"] for s in second)
    assert [s["key"] for s in second] == [s["key"] for s in first]
    assert hashes(shared / "two") == hashes(shared / "one")
    for path in (shared / "one" / "artifacts").rglob("record.json"):  # to the byte, times of the making included
        assert path.read_bytes() == (shared / "two" / path.relative_to(shared / "one")).read_bytes()
        assert "hush" not in path.read_text() and s3.BUCKET not in path.read_text()
    assert (shared / "two" / "reports" / "latest" / "report.json").is_file()


def test_gc_and_doctor_say_what_they_do_with_it(home, shared):
    from flows.cli import main
    from ivcore.store.artifacts import Store, key

    unused = key("s2", 1, {}, {})
    with Store(shared).write("s2", unused, 1, {}, {}) as draft:
        draft.count(1)
    done = CliRunner().invoke(main, ["gc", "--home", str(shared), "--older-than", "0", "--delete"])
    assert "1 artifacts" in done.output and f"nothing in s3://ours/{shared.name} is deleted" in done.output
    assert list(Store(shared).all()) == [] and Store(shared).find("s2", unused) is not None
    found = json.loads(CliRunner().invoke(main, ["doctor", "--home", str(shared), "--json"]).output)
    assert [c["value"] for c in found["checks"] if c["name"] == "remote"] == [f"s3://ours/{shared.name} can be written"]


def test_only_what_may_pass_is_tried_again():
    import errno

    from prefect.states import Failed

    from ivcore.errors import UserError, WorkError
    from ivcore.store.object_store import Unreachable
    from tasks.step import _worth_retrying

    passing = [Unreachable("no answer"), OSError(errno.ESTALE, "stale")]
    staying = [WorkError("bad data"), UserError("wrong"), OSError(errno.ENOSPC, "full"), ValueError("odd")]
    tried = [_worth_retrying(None, None, Failed(data=error)) for error in [*passing, *staying]]
    assert tried == [True] * 2 + [False] * 4
