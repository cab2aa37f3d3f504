"""Twenty videos of one's own and a csv of captions: the named run `mine`, from files to verdict."""

import json

import pytest

from ivcore import config, steps
from ivcore.errors import UserError
from ivcore.store.artifacts import Store
from tests import own_videos

FEW = [
    *(
        f"train.{stage}.phases.{phase}.{field}"
        for stage, phase in (("s2", "pretrain"), ("clip", "text"))
        for field in ("steps=4", "warmup_steps=1")
    ),
    "train.threads=1",
    "frames.workers=1",
    "eval.latency_queries=10",
    "eval.bootstrap=100",
    "eval.examples=1",
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return own_videos.make(tmp_path_factory.mktemp("videos"))


def test_twenty_videos_come_to_a_verdict(videos, tmp_path):
    given = [f"data.root={videos}", f"data.annotations={videos}/captions.csv"]
    _, _, run = config.variants(config.load("mine", [*given, *FEW]))[0]
    store = Store(tmp_path / "ws")

    def do(step):
        return steps.run(step, store)

    manifest = do(steps.ingest(store, run.data))
    clips = manifest.record()["facts"]["clips"]
    assert set(clips) == {"train", "test"} and clips["train"] + clips["test"] == 20 and clips["test"] >= 2
    frames = do(steps.decode(store, run.data, run.frames, manifest))
    s2 = do(steps.fit_s2(store, run.model, run.train, run.train.s2.phases[0], manifest, frames, None))
    features = do(steps.featurize(store, run.features, run.train, frames, s2))
    clip = do(steps.fit_clip(store, run.model, run.train, run.train.clip.phases[0], manifest, features, s2))
    scores = {
        f"main.0.{c.kind}": do(steps.score(store, run.eval, run.train, manifest, features, c)) for c in (s2, clip)
    }
    found = json.loads((do(steps.report(store, run.eval, scores)).path / "verdict.json").read_text())
    assert {row["model"] for row in found["rows"]} == {"s2", "clip"}
    assert {row["language"] for row in found["rows"]} == {"en", "es"}
    # So few queries cannot tell anything apart, and the report says so instead of naming a winner.
    assert found["protocol"]["n_videos"] == clips["test"] and "Not decided" in json.dumps(found["summary"])


def test_shares_of_a_split_are_checked():
    with pytest.raises(UserError, match="add up to 1"):
        config.load("mine", ["data.shares=[0.7, 0.1, 0.1]"])
    with pytest.raises(UserError, match=r"data\.root is not set"):
        steps.ingest(Store("nowhere"), config.load("mine").data)
