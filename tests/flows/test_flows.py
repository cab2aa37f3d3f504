"""The flow for real, under Prefect and MLflow, with made-up step bodies."""

import json
import logging
import sys
from pathlib import Path

import pytest
import yaml

from ivcore.config import parse
from ivcore.errors import UserError, WorkError
from tasks import runtime

ROOT = Path(__file__).parents[2]
CHAIN = ["ingest", "decode", "fit_s2", "featurize", "fit_clip", "score", "score"]


@pytest.fixture(scope="module")
def config():
    arms = [{"name": "plain"}, {"name": "other", "set": {"eval.k": 3}}]
    clip = {"phases": [{"name": "pooler", "steps": 1, "trainable": "clip"}]}
    return parse({"seeds": [0], "arms": arms, "train": {"clip": clip}})


@pytest.fixture(scope="module")
def first(home, config):
    from flows.everything import everything

    return everything(config, str(home))


def _runs(home):
    from tasks import tracking

    uri = runtime.tracking_uri()
    runs = tracking.client(uri).search_runs([tracking.experiment(home, uri)], max_results=1000)
    return {r.info.run_id: r for r in reversed(runs)}  # oldest first


def _parents(runs):
    return [r for r in runs.values() if r.data.tags["iv.step"] == "pipeline"]


def test_the_chain_runs_once_and_arms_share_what_is_equal(first):
    assert [s["step"] for s in first] == CHAIN * 2 + ["report"]
    made = [(s["arm"], s["step"], s["label"]) for s in first if not s["cached"]]
    assert made == [("plain", s["step"], s["label"]) for s in first[:7]] + [
        ("other", "score", "s2"), ("other", "score", "clip"), ("all", "report", "")]  # fmt: skip
    assert all(s["mlflow_run_id"] and s["prefect_run_id"] and s["rows_in"] == 4 for s in first)
    fields = {"step", "key", "cached", "wall_s", "cpu_s", "peak_rss_mb", "rows_in", "rows_ok", "rows_failed"}
    assert all(fields <= s.keys() for s in first)


def test_the_tree_can_be_walked_both_ways_by_tags_alone(home, first):
    runs = _runs(home)
    (parent,) = _parents(runs)
    assert parent.info.status == "FINISHED" and parent.data.params["train.s2.phases.pretrain.steps"] == "450"
    children = [r for r in runs.values() if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 10 and len(runs) == 11
    by_output = {r.data.tags["iv.output"]: r for r in children}
    report = next(r for r in children if r.data.tags["iv.step"] == "report")
    seen, todo = set(), [report]
    while todo:  # from the report back to the data set
        run = todo.pop()
        seen.add(run.data.tags["iv.output"])
        todo += [by_output[v] for k, v in run.data.tags.items() if k.startswith("iv.inputs.")]
    assert seen == set(by_output)
    flow_run = {s["prefect_run_id"] for s in first}
    assert {r.data.tags["prefect.flow_run.id"] for r in runs.values()} == flow_run
    for run in children:
        assert run.info.status == "FINISHED" and run.data.tags["prefect.task_run.id"]
        assert run.data.metrics["rows_failed"] == 1 and run.data.metrics["loss"] == pytest.approx(0.2)
        digests = {i.dataset.digest for i in run.inputs.dataset_inputs}
        assert digests == {v.split("/")[1] for k, v in run.data.tags.items() if k.startswith("iv.inputs.")}
    stage = {s["key"]: s["mlflow_run_id"] for s in first if not s["cached"]}
    assert {r.data.tags["iv.key"]: r.info.run_id for r in children} == stage


def test_again_everything_is_found_and_says_where_from(home, config, first):
    from flows.everything import everything

    before = _runs(home)
    again = everything(config, str(home))
    assert all(s["cached"] for s in again)
    assert [s["mlflow_run_id"] for s in again] == [s["mlflow_run_id"] for s in first]
    after = _runs(home)
    (parent,) = [after[i] for i in after.keys() - before.keys()]
    tags = parent.data.tags
    made = {s["step"]: s for s in first if s["arm"] == "plain"}
    assert tags["reused_from.fit_s2.pretrain.plain.0"] == made["fit_s2"]["mlflow_run_id"]
    assert tags["reused_key.fit_s2.pretrain.plain.0"] == f"s2/{made['fit_s2']['key']}"
    assert len([t for t in tags if t.startswith("reused_from.")]) == 15
    from ivcore.store.catalog import query

    assert query(home, "select count(*) from stages where cached")[1] == [(15,)]


def test_a_step_of_a_fresh_seed_goes_no_further(home, config):
    from flows.single import single

    stages = single(parse({"seeds": [5]}), "fit_s2", str(home))
    assert [s["step"] for s in stages] == ["ingest", "decode", "fit_s2"]


def test_frozen_trunks_read_features(home):
    from flows.train import train

    phases = [{"name": "pre", "steps": 1}, {"name": "match", "steps": 1, "trainable": "fusion"}]
    clip = [{"name": "pool", "steps": 1, "trainable": "clip"}, {"name": "deep", "steps": 1, "trainable": "clip_trunk"}]
    stages = train(parse({"train": {"s2": {"phases": phases}, "clip": {"phases": clip}}}), str(home))
    from ivcore.store.artifacts import Store

    inputs = {
        s["label"]: Store(home).get(f"{s['step'][4:]}/{s['key']}").record()["inputs"]
        for s in stages
        if s["step"].startswith("fit_")
    }
    assert {label: sorted(names) for label, names in inputs.items()} == {
        "pre": ["frames", "manifest"],
        "match": ["features", "init", "manifest"],
        "pool": ["features", "init", "manifest"],
        "deep": ["frames", "init", "manifest"],
    }
    assert inputs["pool"]["init"].startswith("s2/") and inputs["deep"]["init"].startswith("clip/")


def test_imported_weights_begin_a_stage_or_are_judged_as_they_are(home, tmp_path):
    from flows.evaluate import evaluate
    from ivcore.checkpoints import checkpoint
    from ivcore.models import build_clip, build_s2
    from ivcore.text.tokenizer import Tokenizer

    for kind, words, build in (("s2", "bert", build_s2), ("clip", "llama", build_clip)):
        tokenizer = Tokenizer.train(["a red square"], 100, words)
        (tmp_path / kind).mkdir()
        checkpoint.save(build("tiny", tokenizer.vocab_size, 1), tokenizer, tmp_path / kind)
    none, one = {"phases": []}, {"phases": [{"name": "pool", "steps": 1, "trainable": "clip"}]}
    clip, s2 = {"clip_init": str(tmp_path / "clip")}, {"s2_init": str(tmp_path / "s2")}

    def steps(model, train):
        stages = evaluate(parse({"seeds": [4], "model": model, "train": train}), str(home))
        return [(s["step"], s["label"]) for s in stages if s["step"][:3] in ("fit", "sco")]

    assert steps(clip, {"s2": none, "clip": none}) == [("fit_clip", "imported"), ("score", "clip")]
    both = [("score", "s2"), ("score", "clip")]
    begun = [("fit_s2", "imported"), ("fit_clip", "imported"), ("fit_clip", "pool")]
    assert steps(clip | s2, {"s2": none, "clip": one}) == begun + both
    assert steps(s2, {"s2": none, "clip": one}) == [("fit_s2", "imported"), ("fit_clip", "pool"), *both]


def _versions(home, name):
    from tasks import tracking

    _runs(home)  # the store is there
    return tracking.client(runtime.tracking_uri()).search_model_versions(f"name = '{name}'")


def test_the_checkpoint_that_ends_a_stage_is_a_version_and_a_found_one_is_no_new_one(home, config, first):
    from flows.everything import everything
    from flows.train import train

    by_key = {v.tags["iv.key"]: v for name in ("iv-s2", "iv-clip") for v in _versions(home, name)}
    for stage in (s for s in first if s["step"].startswith("fit_") and not s["cached"]):
        version = by_key[stage["key"]]
        assert version.name == f"iv-{stage['step'][4:]}" and version.run_id == stage["mlflow_run_id"]
        assert version.tags["iv.arm"] == "plain" and version.tags["iv.phase"] == stage["label"]
        assert version.tags["prefect.flow_run.id"] == stage["prefect_run_id"]
        assert _runs(home)[version.run_id].outputs.model_outputs[0].model_id in version.source
    before = len(by_key)
    everything(config, str(home))
    assert len(_versions(home, "iv-s2")) + len(_versions(home, "iv-clip")) == before
    phases = [{"name": "one", "steps": 1}, {"name": "two", "steps": 1, "trainable": "fusion"}]
    train(parse({"seeds": [7], "train": {"s2": {"phases": phases}, "clip": {"phases": []}}}), str(home))
    assert [v.tags["iv.phase"] for v in _versions(home, "iv-s2") if v.tags["iv.seed"] == "7"] == ["two"]


def test_an_arm_without_clip_scores_s2_alone(home):
    from flows.evaluate import evaluate

    stages = evaluate(parse({"train": {"clip": {"phases": []}}}), str(home))
    assert [(s["step"], s["label"]) for s in stages if s["step"] == "score"] == [("score", "s2")]
    with pytest.raises(UserError, match="phases is empty"):
        evaluate(parse({"train": {"s2": {"phases": []}}}), str(home))


def test_a_split_without_clips_is_noticed_before_anything_is_trained(home, monkeypatch):
    from flows.everything import everything
    from flows.train import train
    from ivcore.retrieval import slices

    def nothing(manifest, frames, evaluation):
        raise UserError(f"split {evaluation.split} is empty")

    monkeypatch.setattr(slices, "check_split", nothing)
    before = _runs(home).keys()
    with pytest.raises(UserError, match="split val is empty"):
        everything(parse({"seeds": [21], "eval": {"split": "val"}}), str(home))
    ran = [run.data.tags["iv.step"] for id, run in _runs(home).items() if id not in before]
    assert "decode" in ran and "fit_s2" not in ran
    assert any(s["step"] == "fit_s2" for s in train(parse({"seeds": [21]}), str(home)))  # which scores nothing


def test_a_grid_encodes_each_frames_and_dtype_once_and_nothing_again(home):
    from flows.grid import grid

    clip = {"phases": [{"name": "pooler", "steps": 1, "trainable": "clip"}]}
    wanted = parse({"train": {"clip": clip}, "grid": {"frames": [4, 8, 16]}, "seeds": [11]})
    before = _runs(home)
    stages = grid(wanted, str(home))
    made = [s["step"] for s in stages if not s["cached"]]
    # 8 frames in float32 are training's own
    assert made.count("featurize") == 3 * 2 and made.count("decode") == 3 and made.count("score") == 3 * 2 * 2
    after = _runs(home)
    cells = [after[i] for i in after.keys() - before.keys() if after[i].data.tags["iv.step"] == "cell"]
    assert sorted(c.data.metrics["r1"] for c in cells) == [40.0, 50.0]
    assert {c.data.params.get("k") for c in cells} == {None, "4"}
    again = grid(wanted, str(home))
    assert all(s["cached"] for s in again) and [s["key"] for s in again] == [s["key"] for s in stages]
    new = [r for i, r in _runs(home).items() if i not in after]
    assert [r.data.tags["iv.step"] for r in new] == ["pipeline"]


def test_a_failed_step_ends_failed_with_its_reason_and_is_not_tried_again(home, monkeypatch):
    from flows.everything import everything
    from ivcore import steps
    from ivcore.steps import Step

    tries = []

    def fail(draft, log):
        tries.append(1)
        raise UserError("frames.size_px = 1: too small")

    monkeypatch.setattr(
        steps, "decode", lambda store, data, frames, m, *_: Step("decode", "frames", {"no": 1}, {}, fail)
    )
    before = _runs(home)
    with pytest.raises(UserError, match="too small"):
        everything(parse({}), str(home))
    assert tries == [1]
    after = _runs(home)
    new = {after[i].data.tags["iv.step"]: after[i] for i in after.keys() - before.keys()}
    assert new.keys() - {"ingest"} == {"pipeline", "decode"}  # ingest: unless an earlier run made it
    for run in (new["pipeline"], new["decode"]):
        assert run.info.status == "FAILED" and "too small" in run.data.tags["iv.error"]


def test_tracking_that_fails_costs_no_finished_step(home, monkeypatch, caplog):
    from flows.prepare import prepare
    from tasks import tracking

    def broken(uri):
        raise ConnectionError("tracking server gone")

    monkeypatch.setattr(tracking, "client", broken)
    monkeypatch.setattr(logging.getLogger("iv"), "propagate", True)
    with caplog.at_level(logging.WARNING, "iv.tracking"):
        stages = prepare(parse({"seeds": [9]}), str(home))
    assert [s["cached"] for s in stages] == [False, False] and stages[0]["mlflow_run_id"] is None
    assert "tracking server gone" in caplog.text


def test_the_parent_carries_what_the_report_found(home, tmp_path):
    from tasks import tracking

    at = {"dataset": "a", "arm": "main", "model": "s2", "head": "sim", "text_class": "short", "direction": "t2v"}
    rows = [{**at, "language": language, "r1": r1} for language, r1 in (("en", 12.5), ("zh", 25.0))]
    (tmp_path / "report.json").write_text(json.dumps({"rows": rows}))
    run = tracking.open_parent(home, "n", {"run": "x"}, {})
    tracking.keep_report(run, tmp_path)
    tracking.close_parent(run)
    found = _runs(home)[run].data.metrics
    assert found == {"r1/a/main/s2/sim/en/short/t2v": 12.5, "r1/a/main/s2/sim/zh/short/t2v": 25.0}


def test_the_parent_is_found_again_on_a_retry(home):
    from tasks import tracking

    context = {"prefect.flow_run.id": "retry-1"}
    one = tracking.open_parent(home, "n", {"run": "x"}, context)
    tracking.close_parent(one, WorkError("first try"))
    assert tracking.open_parent(home, "n", {"run": "x"}, context) == one
    assert _runs(home)[one].info.status == "RUNNING"
    tracking.close_parent(one)
    assert _runs(home)[one].info.status == "FINISHED"


@pytest.mark.parametrize("process", [{"iv.pid": "999999999"}, {"iv.began": "1"}])  # gone; its number is another's now
def test_runs_of_killed_processes_are_closed(home, process):
    from tasks import tracking

    dead, alive = (tracking.open_parent(home, "x", {"run": "x"}, tags) for tags in (process, {}))
    tracking.close_parent(tracking.open_parent(home, "next", {"run": "x"}, {}))
    assert (_runs(home)[dead].info.status, _runs(home)[alive].info.status) == ("KILLED", "RUNNING")
    tracking.close_parent(alive)


def test_deployments_name_flows_that_are_there():
    import importlib

    from flows import deployed

    text = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (step,) = text["build"]
    values = deployed.values(**{k: v for k, v in step["flows.deployed.values"].items() if k != "id"})
    assert {"everything", "prepare", "train", "evaluate"} <= {d["name"] for d in text["deployments"]}
    for deployment in text["deployments"]:
        name, _, flow = deployment["entrypoint"].rpartition(".")
        found = getattr(importlib.import_module(name), flow)
        given = {k: values["config"] if v == "{{ demo.config }}" else v for k, v in deployment["parameters"].items()}
        found.validate_parameters(given)
        assert deployment["description"] and deployment["tags"] == ["iv"]
        assert deployment["concurrency_limit"]["collision_strategy"] == "ENQUEUE"
        assert all("timezone" in s and s["active"] is False for s in deployment.get("schedules", []))


def test_a_deployed_run_is_the_named_run_also_when_the_form_sends_every_field(home):
    from flows import deployed
    from ivcore.config import load

    sent = deployed.values("shapes")["config"]
    assert parse(sent) == load("shapes") and sent["train"]["s2"]["phases"][2]["name"] == "last"


def test_the_form_shows_what_a_parameter_means(home):
    from flows.everything import everything

    properties = everything.parameters.properties
    assert "named run" in properties["config"]["description"] and "Workspace" in properties["home"]["description"]
    assert "prefect" in sys.modules
