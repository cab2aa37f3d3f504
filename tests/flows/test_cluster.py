"""The data steps on a Dask cluster of two worker processes: the bytes of a machine that works alone."""

import json
import shutil
from pathlib import Path

import pytest

from ivcore import steps
from ivcore.config import parse
from ivcore.errors import UserError, WorkError
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from ivcore.video import pool
from ivcore.video import shards as frame_shards
from tasks import cluster
from tests import own_videos
from tests.ivcore.video import breaking
from tests.kill import hashes

distributed = pytest.importorskip("distributed")
pytest.importorskip("prefect_dask")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Fourteen videos, one of them broken and one twice."""
    root = own_videos.make(tmp_path_factory.mktemp("videos"), 14)
    (root / "03.mp4").write_bytes((root / "03.mp4").read_bytes()[:700])
    (root / "07.mp4").write_bytes((root / "06.mp4").read_bytes())
    return root


@pytest.fixture(scope="module")
def config(videos):
    data = {"dataset": "folder", "root": str(videos), "annotations": str(videos / "captions.csv")}
    return {"data": data, "frames": {"shard_clips": 3, "workers": 1}}


def on(config, address):
    return parse({**config, "frames": {**config["frames"], "dask": address}})


@pytest.fixture(scope="module")
def scheduler():
    import dask

    with (
        dask.config.set({"distributed.worker.daemon": False}),  # a worker has decoder processes of its own
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs="ERROR"
        ) as local,
    ):
        yield local.scheduler_address


@pytest.mark.slow
def test_the_cluster_gives_the_bytes_of_one_machine(workspace, config, scheduler, tmp_path):
    from prefect.client.orchestration import get_client

    from flows.prepare import prepare

    prepare(on(config, scheduler), str(tmp_path / "cluster"))
    alone, checked = Store(tmp_path / "alone"), parse(config)
    manifest = steps.run(steps.ingest(alone, checked.data), alone)
    frames = steps.run(steps.decode(alone, checked.data, checked.frames, manifest), alone)
    assert [frames.record()[n] for n in ("rows_in", "rows_ok", "rows_failed")] == [14, 12, 1]  # one is there twice
    assert len(list(alone.all("frame_shard"))) == 5
    assert hashes(tmp_path / "cluster") == hashes(tmp_path / "alone")
    there = Store(tmp_path / "cluster").get(frames.id)
    assert there.record()["measured"]["clips_made"] == 0  # the step itself had nothing left to decode
    with get_client(sync_client=True) as client:
        states = [run.state_name for run in client.read_task_runs(limit=200) if run.name.startswith("shards")]
    assert states == ["Completed"] * 5


def test_what_the_store_has_is_not_sent(workspace, config, tmp_path, monkeypatch):
    store, alone = Store(tmp_path), parse(config)
    manifest = steps.run(steps.ingest(store, alone.data), store)
    frames = steps.run(steps.decode(store, alone.data, alone.frames, manifest), store)
    clips = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
    assert frame_shards.planned(store, alone.frames, clips)[1] == []
    shards = list(store.all("frame_shard"))
    shutil.rmtree(frames.path)
    shutil.rmtree(shards[0].path)
    asked = []

    def made_there(store, data, config, manifest, parts, done, tell):
        asked.append((done, parts))
        root = Path(data.root)
        assert frame_shards.make_shards(store, root, config, manifest, parts) == [shards[0].id]
        assert frame_shards.make_shards(store, None, config, manifest, parts) == [shards[0].id]  # a retry finds it

    monkeypatch.setattr(cluster, "_map", made_there)
    there = on(config, "tcp://anywhere:8786")
    step = steps.decode(store, there.data, there.frames, manifest)
    steps.run(cluster.with_cluster(step, store, there.data, there.frames, manifest), store)
    ((done, (part,)),) = asked
    assert done == 14 - len(part) and [clips[row]["clip_id"] for row in part] == [
        clip[0] for clip in json.loads((shards[0].path / "record.json").read_text())["config"]["clips"]
    ]


def test_a_file_that_hangs_costs_its_deadline_on_a_dask_worker_too(scheduler):
    with distributed.Client(scheduler, set_as_default=False) as client:
        hung = client.submit(lambda: list(pool.run(breaking.broken, ["spin"], workers=1, deadline_s=0.3)))
        (lost,) = hung.result(timeout=60)
    assert lost.reason == "timeout"


def test_a_run_of_any_size_is_a_few_hundred_task_runs():
    for num in (1, 20, 200, 201, 10_000, 19_532):
        parts = [[row] for row in range(num)]
        cut = list(cluster.chunks(parts))
        assert [part for chunk in cut for part in chunk] == parts and len(cut) <= 200
    assert len(list(cluster.chunks([[0]] * 20))) == 20


def test_what_is_missing_is_said_in_a_line(workspace, config, monkeypatch, tmp_path):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    store, checked = Store(tmp_path), on(config, "tcp://127.0.0.1:1")
    manifest = steps.run(steps.ingest(store, checked.data), store)
    step = steps.decode(store, checked.data, checked.frames, manifest)
    step = cluster.with_cluster(step, store, checked.data, checked.frames, manifest)
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(WorkError, match=r"frames.dask = tcp://127.0.0.1:1: no scheduler answers there within 1 s"):
        steps.run(step, store)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(UserError, match="Prefect server"):
        steps.run(step, store)
    monkeypatch.setattr(cluster.multiprocessing, "current_process", lambda: type("", (), {"daemon": True}))
    with pytest.raises(WorkError, match="start it with --no-nanny, or with DASK_DISTRIBUTED__WORKER__DAEMON=False"):
        cluster.shards.fn(str(tmp_path), checked.data, checked.frames, manifest.id, [[0]])
    with pytest.raises(UserError, match=r"frames.dask = 'host:8786'"):
        on(config, "host:8786")
    assert json.dumps(checked.frames.recipe()) == json.dumps(parse(config).frames.recipe())
