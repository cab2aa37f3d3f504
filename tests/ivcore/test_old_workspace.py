"""A workspace of an earlier version: today's code finds every step and publishes the report.

`tests/golden/workspace.tar.gz` holds six videos and their run, made by commit 351228c; without weights, which nothing
here reads.
"""

import json
import tarfile
from pathlib import Path

import pytest

from ivcore import config, steps
from ivcore.store.artifacts import Store
from ivcore.store.versions import VERSIONS
from ivcore.verdict.publish import publish
from tests.golden.keys import RECORDED

FILE = Path(__file__).parents[1] / "golden" / "workspace.tar.gz"
SMALLEST = [
    "train.s2.phases.pretrain.steps=2",
    "train.clip.phases.text.steps=2",
    "train.threads=1",
    "frames.num_frames=2",
    "eval.latency_queries=10",
    "eval.bootstrap=100",
    "eval.examples=0",
    "data.shares=[0.5, 0.0, 0.5]",
]


@pytest.fixture
def store(tmp_path):
    with tarfile.open(FILE) as tar:
        tar.extractall(tmp_path, filter="data")
    return Store(tmp_path / "ws")


def test_every_step_is_found_and_todays_report_is_made_of_its_scores(store, monkeypatch):
    for kind in set(RECORDED) - {"report"}:  # steps whose bytes changed since are made again; recipes are the same
        monkeypatch.setitem(VERSIONS, kind, RECORDED[kind])
    videos = store.home.parent / "videos"
    given = [f"data.root={videos}", f"data.annotations={videos}/captions.csv", *SMALLEST]
    _, _, run = config.variants(config.load("mine", given))[0]
    found = []

    def do(step):
        artifact = store.find(step.kind, step.key)
        assert artifact is not None, f"{step.name} is not found"
        found.append(artifact.id)
        return artifact

    manifest = do(steps.ingest(store, run.data))
    frames = do(steps.decode(store, run.data, run.frames, manifest))
    (pretrain,), (text,) = run.train.s2.phases, run.train.clip.phases
    s2 = do(steps.fit_s2(store, run.model, run.train, pretrain, manifest, frames, None, run.features))
    features = do(steps.featurize(store, run.features, run.train, frames, s2))
    clip = do(steps.fit_clip(store, run.model, run.train, text, manifest, features, s2, run.features))
    scores = {
        f"main.0.{c.kind}": do(steps.score(store, run.eval, run.train, manifest, features, c)) for c in (s2, clip)
    }
    shards = {a.id for a in store.all("frame_shard")}
    (old,) = store.all("report")
    assert set(found) | shards | {old.id} == {a.id for a in store.all()}, "nothing in it is left over"
    report = steps.run(steps.report(store, run.eval, scores), store)

    latest = publish(store, report, [])
    published = json.loads((latest / "report.json").read_text())
    before = json.loads((old.path / "verdict.json").read_text())
    figures = ("model", "head", "language", "text_class", "direction", "n", "r1", "r5", "r10", "medr", "mrr")
    assert [[row[n] for n in figures] for row in published["rows"]] == [
        [row[n] for n in figures] for row in before["rows"]
    ]
    assert {row["model"] for row in published["rows"]} == {"s2", "clip"}
    assert "<svg" in (latest / "report.html").read_text()
