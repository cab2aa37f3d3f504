"""Night after night on a folder that grows: what is trained again, by train.policy, and what a run says of it."""

import json
import time

import pytest

from ivcore import steps
from ivcore.config import parse
from ivcore.steps import Step
from ivcore.store import schemas

TRAIN, TEST = 20, 4


class Folder:
    """A data set of made-up clips, by name and split; its manifest step stands in for the one of `ingest`."""

    def __init__(self):
        self.clips = [(f"train-{n}", "train") for n in range(TRAIN)] + [(f"test-{n}", "test") for n in range(TEST)]

    def ingest(self, store, data):
        def make(draft, log):
            empty = {c.name: None for c in schemas.MANIFEST.columns}
            given = {"bytes": 1, "source": "made up", "weight": 1, "media": "video"}
            rows = [
                {**empty, **given, "clip_id": n, "path": n, "family": n, "split": s, "sha256": n} for n, s in self.clips
            ]
            schemas.write(draft.path / "manifest.parquet", rows, schemas.MANIFEST)
            draft.count(len(rows))
            draft.facts["clips"] = {split: sum(s == split for _, s in self.clips) for split in ("train", "test")}

        return Step("ingest", "manifest", {"clips": self.clips}, {}, make)

    def add(self, num, split="train"):
        self.clips = [*self.clips, *((f"{split}-{len(self.clips) + n}", split) for n in range(num))]


@pytest.fixture
def folder(monkeypatch):
    folder = Folder()
    monkeypatch.setattr(steps, "ingest", folder.ingest)
    return folder


@pytest.fixture
def night(home, folder, request):
    """Runs everything once; {step or step:label: "made" or "found"}, and what was said of the training."""
    from flows.everything import everything

    clip = {"phases": [{"name": "pooler", "steps": 1, "trainable": "clip"}]}

    def run(**train):
        values = {"data": {"root": request.node.name}, "train": {"clip": clip, **train}}  # a folder of this test's own
        stages = everything(parse(values), str(home))
        said = json.loads((home / "reports" / "latest" / "report.json").read_text())["training"]
        return [(s["step"], "found" if s["cached"] else "made") for s in stages], said[0], stages

    return run


NEW = [("ingest", "made"), ("decode", "made")]
HELD = [
    *NEW,
    ("featurize", "made"),
    ("fit_s2", "found"),
    ("fit_clip", "found"),
    ("score", "made"),
    ("score", "made"),
    ("report", "made"),
]
CHAIN = ["ingest", "decode", "fit_s2", "featurize", "fit_clip", "score", "score", "report"]


def test_a_folder_that_grows(night, folder):
    first, said, _ = night()
    assert first == [(name, "made") for name in CHAIN]
    assert not said["held_back"] and said["trained_on"] == said["scored_on"] and said["why"] == ""

    folder.add(1)
    again, said, before = night()
    assert again == [(name, "made") for name in CHAIN]
    assert "trained again: 1 new training clips, 5.0% of the 20" in said["why"] and not said["held_back"]

    folder.add(50)
    held, said, after = night(policy="never")
    assert held == HELD
    fits = [{s["step"]: (s["key"], s["label"]) for s in x if s["step"].startswith("fit_")} for x in (before, after)]
    assert fits[0] == fits[1]
    assert said["held_back"] and "train.policy = never" in said["why"] and "50 new training clips" in said["why"]
    assert said["trained_on_clips"] == TRAIN + 1 and said["trained_on"] != said["scored_on"]

    nothing, said, _ = night(policy="never")
    assert nothing == [(name, "found") for name, _ in HELD] and said["held_back"]


def test_ten_thousand_videos_are_a_handful_of_task_runs(night, folder):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    folder.clips = [(f"clip-{n:05}", "test" if n % 10 == 0 else "train") for n in range(10_000)]
    _, _, stages = night()
    (flow_run,) = {s["prefect_run_id"] for s in stages}
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
        until = time.monotonic() + 60  # the server hears of them late
        while len(found := client.read_task_runs(flow_run_filter=only, limit=200)) < len(stages) + 2:
            assert time.monotonic() < until, [task.name for task in found]
    assert len(found) == len(stages) + 2  # a task a step; publish, catalog
