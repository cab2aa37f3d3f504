"""Training started by Prefect's REST API on one's own videos: what MLflow shows of it, and the versions it leaves."""

import json

import pytest

from tests import own_videos

FEW = {"warmup_steps": 2, "steps": 30}


@pytest.fixture(scope="module")
def done(servers, tmp_path_factory):
    """(flow run id, MLflow client) of a finished run."""
    from mlflow import MlflowClient

    videos = own_videos.make(tmp_path_factory.mktemp("videos"))
    config = {
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


def test_the_registry_has_a_version_of_each_with_its_files_and_its_recall(done, tmp_path):
    from mlflow.artifacts import download_artifacts

    flow_run, client = done
    found = _training(client, flow_run)
    for kind in ("s2", "clip"):
        (version,) = client.search_model_versions(f"name = 'iv-{kind}'")
        assert version.run_id == found[f"fit_{kind}"].info.run_id and version.tags["prefect.flow_run.id"] == flow_run
        assert 0 <= float(version.tags["test/r1/sim/en/short/t2v"]) <= 100
        folder = tmp_path / kind
        download_artifacts(artifact_uri=version.source, dst_path=str(folder))
        names = {path.name for path in folder.rglob("*") if path.is_file()}
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
        assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".bin"))]


def test_the_run_ends_in_a_report_of_both(done, servers):
    found = json.loads((servers.home / "reports" / "latest" / "report.json").read_text())
    assert {row["model"] for row in found["rows"]} == {"s2", "clip"}
    assert {stage["prefect_run_id"] for stage in found["stages"]} == {done[0]}
