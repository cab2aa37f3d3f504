"""Training started by Prefect's REST API on one's own videos: what MLflow shows of it, and the versions it leaves."""

import json

import pytest

from ivcore.config import merge
from ivcore.store.artifacts import Store
from tests import own_videos

FEW = {"warmup_steps": 2, "steps": 30}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return own_videos.make(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def config(videos):
    return {
        "run": "mine",
        "data": {"root": str(videos), "annotations": str(videos / "captions.csv")},
        "frames": {"workers": 1},
        "train": {
            "threads": 1,
            "s2": {"phases": [{"name": "pretrain", "vtm": 1.0, "mlm": 1.0, **FEW}]},
            "clip": {"phases": [{"name": "text", "trainable": "clip_text", "languages": ["en", "es"], **FEW}]},
        },
        "eval": {"latency_queries": 10, "bootstrap": 100, "examples": 1},
    }


@pytest.fixture(scope="module")
def done(servers, config):
    """(flow run id, MLflow client) of a finished run."""
    from mlflow import MlflowClient

    status, run = servers.trigger("everything/everything", config)
    assert status == 201, run
    ended = servers.wait(run["id"])
    assert ended["state"]["type"] == "COMPLETED", (ended["state"], servers.log())
    return run["id"], MlflowClient(tracking_uri=servers.env["MLFLOW_TRACKING_URI"])


def _training(client, flow_run):
    """The runs of s2 and clip that this flow run made, by step."""
    number = client.get_experiment_by_name("ivflow").experiment_id
    runs = client.search_runs([number], f"tags.`prefect.flow_run.id` = '{flow_run}'")
    return {r.data.tags["iv.step"]: r for r in runs if r.data.tags["iv.step"].startswith("fit_")}


def test_mlflow_has_the_curve_of_every_loss(done):
    flow_run, client = done
    found = _training(client, flow_run)
    for step, losses in {"fit_s2": ("vtc", "vtm", "mlm"), "fit_clip": ("vtc",)}.items():
        run = found[step]
        assert run.info.status == "FINISHED"
        for loss in losses:
            curve = client.get_metric_history(run.info.run_id, f"loss/{loss}")
            assert [m.step for m in curve] == [10, 20, 30] and all(m.value > 0 for m in curve)
    first, *_, last = client.get_metric_history(found["fit_s2"].info.run_id, "loss/vtc")
    assert last.value < first.value


def test_the_registry_has_a_version_of_each_with_its_files_and_its_recall(done, servers, tmp_path):
    from mlflow.artifacts import download_artifacts

    flow_run, client = done
    found = _training(client, flow_run)
    for kind in ("s2", "clip"):
        every = client.search_model_versions(f"name = 'iv-{kind}'")
        (version,) = [v for v in every if v.tags["prefect.flow_run.id"] == flow_run]
        assert version.run_id == found[f"fit_{kind}"].info.run_id
        assert 0 <= float(version.tags["test/r1/sim/en/short/t2v"]) <= 100
        folder = tmp_path / kind
        address = servers.env["MLFLOW_TRACKING_URI"]
        download_artifacts(artifact_uri=version.source, dst_path=str(folder), tracking_uri=address)
        names = {path.name for path in folder.rglob("*") if path.is_file()}
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
        assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".bin"))]


def test_the_run_ends_in_a_report_of_both(done, servers):
    found = json.loads((servers.home / "reports" / "latest" / "report.json").read_text())
    assert {row["model"] for row in found["rows"]} == {"s2", "clip"}
    assert {stage["prefect_run_id"] for stage in found["stages"]} == {done[0]}


def test_a_new_video_is_decoded_encoded_and_scored_and_not_learned_from(done, servers, config, videos):
    (videos / "new.mp4").write_bytes((videos / "00.mp4").read_bytes() + b"\0")  # other bytes: another video
    with (videos / "captions.csv").open("a") as f:
        f.write("new.mp4,a square that is new,en\n")
    _, run = servers.trigger("everything/everything", merge(config, {"train": {"policy": "never"}}))
    assert servers.wait(run["id"])["state"]["type"] == "COMPLETED", servers.log()
    report = json.loads((servers.home / "reports" / "latest" / "report.json").read_text())
    how = [(s["step"], s["cached"]) for s in report["stages"]]
    made = [name for name, cached in how if not cached]
    assert made == ["ingest", "decode", "featurize", "score", "score", "report"], how
    store = Store(servers.home)
    for stage in report["stages"]:
        if (stage["step"], stage["cached"]) in (("decode", False), ("featurize", False)):
            kind = {"decode": "frames", "featurize": "features"}[stage["step"]]
            assert store.get(f"{kind}/{stage['key']}").record()["measured"]["clips_made"] == 1
    (said,) = report["training"]
    assert said["held_back"] and "train.policy = never" in said["why"]
    assert "training was held back" in servers.artifacts(run["id"])["verdict"]
