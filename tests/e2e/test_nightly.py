"""A night: deployed, triggered as the dashboard does, found again, refused, cancelled, killed; in this order."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from ivcore.config import merge
from tests.e2e.conftest import SMALL

STEPS = ["ingest", "decode", "fit_s2", "featurize", "fit_clip", "score", "score", "report"]
LONG = {"train": {"s2": {"phases": [{"name": "words", "steps": 100_000}]}}}
RECOVERY_S = 420


@pytest.fixture(scope="module")
def first(servers):
    status, run = servers.trigger("everything/everything", SMALL)
    assert status == 201, run
    return servers.wait(run["id"])


def test_the_servers_are_safe_and_say_so(servers):
    found = {c["name"]: c for c in json.loads(servers.iv("doctor", "--json").stdout)["checks"]}
    assert all(found[name]["ok"] for name in ("prefect", "worker", "mlflow")), found
    assert servers.ask("POST", "/flow_runs/filter", {})[0] == 403  # a page that has no token


def test_every_flow_is_deployed_with_its_form(servers):
    body = servers.deployment("everything/everything")
    assert body["description"] and body["tags"] == ["iv"] and body["version"].startswith("0.")
    assert body["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert body["parameters"]["config"]["train"]["s2"]["phases"][0]["name"] == "words"  # of the demo, written out
    (nightly,) = body["schedules"]
    assert nightly["schedule"]["timezone"] == "Europe/Berlin" and not nightly["active"]
    for title, form in body["parameter_openapi_schema"]["definitions"].items():
        for name, field in form["properties"].items():
            assert field.get("title") or "$ref" in field, (title, name)
            assert field.get("description"), (title, name)


def test_everything_runs_and_the_mlflow_tree_is_there(servers, first):
    assert first["state"]["type"] == "COMPLETED", first["state"]["message"] + servers.log()
    assert [name for name, _ in servers.tasks(first["id"], 10)] == [*STEPS, "publish", "catalog"]
    runs = servers.mlflow_runs(f"tags.`prefect.flow_run.id` = '{first['id']}'")
    (parent,) = [r for r in runs if r["tags"]["iv.step"] == "pipeline"]
    children = [r for r in runs if r["tags"].get("mlflow.parentRunId") == parent["id"]]
    assert sorted(r["tags"]["iv.step"] for r in children) == sorted(STEPS)
    assert {r["status"] for r in runs} == {"FINISHED"}
    report = json.loads((servers.home / "reports" / "latest" / "report.json").read_text())
    assert report["rows"]
    pages = servers.artifacts(first["id"])
    assert "| match |" in pages["verdict"] and parent["id"] in pages["verdict"]
    assert "8 of 8 steps were made" in pages["steps"]
    assert "failed-videos" not in pages


def test_again_everything_is_found_and_makes_no_run_in_mlflow(servers, first):
    began = time.monotonic()
    _, run = servers.trigger("everything/everything", SMALL)
    again = servers.wait(run["id"])
    print(f"warm: {time.monotonic() - began:.1f} s from trigger to {again['state']['name']}")
    assert again["state"]["type"] == "COMPLETED"
    states = dict(servers.tasks(again["id"], 10)[: len(STEPS)])
    assert set(states.values()) == {"Cached"}, states
    runs = servers.mlflow_runs(f"tags.`prefect.flow_run.id` = '{again['id']}'")
    assert [r["tags"]["iv.step"] for r in runs] == ["pipeline"]
    assert "Nothing new: all 8 steps were found" in servers.artifacts(again["id"])["steps"]


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"frames": {"num_frames": 0}}, "config.frames.num_frames"),
        ({"frames": {"decoder": "vlc"}}, "config.frames.decoder"),
        ({"frames": {"nuframes": 8}}, "nuframes"),
        ({"run": "nope"}, "nope"),
    ],
)
def test_a_wrong_value_is_refused_before_a_run_starts(servers, wrong, says):
    before = len(servers.prefect("POST", "/flow_runs/filter", {})[1])
    status, answer = servers.trigger("everything/everything", merge(SMALL, wrong))
    assert status == 409 and says in json.dumps(answer), answer
    assert len(servers.prefect("POST", "/flow_runs/filter", {})[1]) == before


def test_what_only_the_config_can_see_fails_at_once_with_its_words(servers):
    wrong = merge(SMALL, {"arms": [{"name": "other", "set": {"train.s2.lrr": 1.0}}]})
    _, run = servers.trigger("everything/everything", wrong)
    failed = servers.wait(run["id"])
    assert failed["state"]["type"] == "FAILED" and "train.s2.lrr" in failed["state"]["message"]
    assert servers.tasks(run["id"], 0) == [] and "train.s2.lrr" in servers.ending(run["id"])


def test_a_parameter_that_the_flow_does_not_take_is_named(servers):
    """Prefect checks the values of the parameters it knows, and lets others through."""
    deployment = servers.deployment("everything/everything")["id"]
    call = {"parameters": {"config": SMALL, "confgi": {}}, "state": {"type": "SCHEDULED"}}
    status, run = servers.prefect("POST", f"/deployments/{deployment}/create_flow_run", call)
    assert status == 201 and servers.wait(run["id"])["state"]["type"] in ("FAILED", "CRASHED")
    assert "no parameter 'confgi'; it takes config, home" in servers.ending(run["id"])


def test_cancelled_while_it_trains_it_leaves_nothing_half_done(servers, first):
    run, pids = _training(servers)
    servers.prefect("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    # On its way it may show Crashed: where the process does not hear in time that it is meant, it only sees the signal.
    servers.wait(run["id"], ("CANCELLED",), timeout_s=300)
    _gone(pids)
    assert list((servers.home / "artifacts").glob("*/.*.tmp")) == []
    assert "### Cancelled" in servers.ending(run["id"], "### Cancelled")
    runs = servers.mlflow_runs(f"tags.`prefect.flow_run.id` = '{run['id']}'")
    assert {r["status"] for r in runs if r["tags"]["iv.step"] in ("pipeline", "fit_s2")} == {"KILLED"}


def test_worker_and_flow_killed_together_are_found_by_the_next_start(servers, first):
    run, pids = _training(servers)
    worker = json.loads((servers.home / "run" / "up.json").read_text())["worker"]["pid"]
    began = time.monotonic()
    for pid in (worker, *pids):
        os.kill(pid, signal.SIGKILL)
    _gone([worker, *pids])
    assert servers.run(run["id"])["state"]["type"] == "RUNNING"  # nobody was left to say otherwise
    servers.up()
    assert "was killed" in servers.ending(run["id"])
    states = [s["name"] for s in servers.prefect("GET", f"/flow_run_states/?flow_run_id={run['id']}")[1]]
    assert "Crashed" in states
    servers.wait(run["id"], ("Running",), timeout_s=RECOVERY_S)  # goes on by itself, the second attempt
    assert servers.run(run["id"])["run_count"] == 2
    print(f"killed with its worker: runs again after {time.monotonic() - began:.0f} s")
    assert time.monotonic() - began < RECOVERY_S
    servers.prefect("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    servers.wait(run["id"], timeout_s=300)
    _, after = servers.trigger("everything/everything", SMALL)
    assert servers.wait(after["id"])["state"]["type"] == "COMPLETED"  # the slot is free again


def _training(servers):
    """A run that trains for a long time, and the processes that belong to it."""
    _, run = servers.trigger("everything/everything", merge(SMALL, LONG))
    until = time.monotonic() + 300
    while not list((servers.home / "artifacts" / "s2").glob(".*.tmp")):
        assert servers.run(run["id"])["state"]["type"] not in ("FAILED", "CRASHED"), servers.log()
        assert time.monotonic() < until, servers.log()
        time.sleep(0.2)
    return run, _processes(run["id"])


def _processes(run_id):
    mark = f"PREFECT__FLOW_RUN_ID={run_id}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    assert found
    return found


def _gone(pids):
    until = time.monotonic() + 30
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, f"still there: {left}"
        time.sleep(0.1)
