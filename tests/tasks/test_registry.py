"""The registry on a real sqlite store: a version holds the checkpoint's files, once, and takes what scoring found."""

import logging

import pytest

from ivcore.store.artifacts import Store
from tasks import registry, runtime, tracking


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    for name in runtime.QUIET | {runtime.TRACKING: "", "PREFECT_HOME": "", "MPLCONFIGDIR": ""}:
        patch.setenv(name, "x")  # so that undo takes away what prepare sets
        patch.delenv(name)
    patch.setattr(runtime, "_ours", None)
    yield runtime.prepare(tmp_path_factory.mktemp("registry") / "ws")
    patch.undo()


@pytest.fixture(scope="module")
def parent(home):
    run = tracking.open_parent(home, "n", {"run": "x"}, {})
    yield run
    tracking.close_parent(run)


def _checkpoint(home, key, run_id=None, kind="s2", size=10):
    store = Store(home, {"mlflow_run_id": run_id})
    with store.write(kind, key, 1, {}, {}) as draft:
        (draft.path / "model.safetensors").write_bytes(b"w" * size)
        (draft.path / "config.json").write_text("{}")
        draft.facts |= {"kept": "best", "best_step": 40, "best_val_r1": 51.5}
    return store, draft.artifact


def _versions(name):
    return tracking.client(runtime.tracking_uri()).search_model_versions(f"name = '{name}'")


def _files(version):
    from mlflow.artifacts import list_artifacts

    return {f.path: f.file_size for f in list_artifacts(f"models:/{version.name}/{version.version}")}


def test_a_version_holds_the_files_of_the_checkpoint_once(home, parent):
    store, artifact = _checkpoint(home, "a" * 24, parent)
    for _ in range(2):
        registry.register(store, artifact, parent, {"iv.seed": "3"})
    (version,) = _versions("iv-s2")
    assert version.run_id == parent and version.status == "READY" and version.tags["iv.seed"] == "3"
    assert [version.tags[f"iv.{fact}"] for fact in ("kept", "best_step", "best_val_r1")] == ["best", "40", "51.5"]
    assert {"model.safetensors": 10, "config.json": 2}.items() <= _files(version).items()
    assert version.tags["iv.sha256.model.safetensors"] == artifact.record()["files"]["model.safetensors"]
    registry.note(store, artifact, parent, {"test/r1/sim/en/short/t2v": 41.333})
    assert _versions("iv-s2")[0].tags["test/r1/sim/en/short/t2v"] == "41.33"
    registry.note(store, _checkpoint(home, "b" * 24)[1], parent, {"test/r1/sim/en/short/t2v": 1.0})  # is no version
    assert len(_versions("iv-s2")) == 1


def test_a_large_file_stays_where_it_is_and_the_version_says_where(home, parent, monkeypatch):
    monkeypatch.setattr(registry, "COPIED_BYTES", 99)
    store, artifact = _checkpoint(home, "c" * 24, "a run of another store", "clip", size=100)
    registry.register(store, artifact, parent, {})
    (version,) = _versions("iv-clip")
    assert version.run_id in (None, "") and "model.safetensors" not in _files(version)
    assert version.tags["iv.path"] == str(artifact.path)
    assert "iv.sha256.model.safetensors" in version.tags


def test_a_registry_that_fails_is_a_warning(home, parent, monkeypatch, caplog):
    def broken(uri):
        raise ConnectionError("tracking server gone")

    store, artifact = _checkpoint(home, "d" * 24)
    registry.register(store, artifact, None, {})  # no run of the pipeline: nobody is asked
    monkeypatch.setattr(tracking, "client", broken)
    monkeypatch.setattr(logging.getLogger("iv"), "propagate", True)
    with caplog.at_level(logging.WARNING, "iv.tracking"):
        registry.register(store, artifact, parent, {})
        registry.note(store, artifact, parent, {"x": 1.0})
    said = {r.getMessage() for r in caplog.records}  # once each, whoever else listens
    assert len(said) == 2 and all("tracking server gone" in words for words in said)
