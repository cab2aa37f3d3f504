"""One tiny data set a task, from annotation and video files to the report, against answers worked out by hand.

The model is one whose embeddings are known: a video is the vector its features hold, a text the one of the table.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from ivcore import steps
from ivcore.checkpoints import checkpoint as checkpoints
from ivcore.config import DataConfig, EvalConfig, TrainConfig
from ivcore.datasets.captions import Captions
from ivcore.datasets.shapes.drawing import encode
from ivcore.models import ClipModel
from ivcore.retrieval import classification
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.verdict.publish import publish

EVAL = EvalConfig(k=8, bootstrap=100, latency_queries=10, examples=0)
TRAIN = TrainConfig(threads=1, device="cpu")


class Known(ClipModel):
    """Embeddings from a table; ids are places in it."""

    def __init__(self, table: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.table = table
        self.temp = nn.Parameter(torch.tensor(1.0))

    def encode_text(self, ids):
        return self.table[ids[:, 0]]

    def pool(self, tokens):
        return tokens.mean(dim=1)


class Places:
    """A text's one token is its place in the table."""

    def __init__(self, texts: list[str]) -> None:
        self.place = {text: n for n, text in enumerate(texts)}

    def encode(self, texts, max_len):
        ids = torch.tensor([[self.place[text]] for text in texts])
        return ids, torch.ones_like(ids)


def angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees))), 0.0]


class World:
    """Videos and texts with their vectors, an annotation, and the steps from ingest on."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, videos: dict, texts: dict, entries: list) -> None:
        self.store, self.root, self.vectors = Store(folder / "store"), folder / "videos", videos
        self.root.mkdir()
        for n, name in enumerate(videos):
            encode(self.root / f"{name}.mp4", np.full((4, 32, 32, 3), 20 * n, np.uint8), 5)
        self.file = folder / "annotation.json"
        self.file.write_text(json.dumps(entries))
        table = torch.tensor(list(texts.values()))
        patch.setattr(checkpoints, "load", lambda path: (Known(table).eval(), Places(list(texts))))

    def manifest(self, dataset: str) -> Artifact:
        data = DataConfig(dataset=dataset, root=str(self.root), annotations=str(self.file))
        return steps.run(steps.ingest(self.store, data), self.store)

    def scores(self, dataset: str, evaluation: EvalConfig = EVAL) -> Artifact:
        manifest = self.manifest(dataset)
        ids = sorted(
            r["clip_id"]
            for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)
            if r["error"] is None
        )
        vectors = np.array([self.vectors[id.split(".")[0]] for id in ids], np.float32)
        columns = {
            "clip_id": pa.array(ids),
            "tokens": schemas.packed(vectors),
            "pooled": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3),
        }
        with self.store.write("features", "f", 1, {"dtype": "float32"}, {"manifest": manifest.id}) as draft:
            schemas.write(draft.path / "features.parquet", pa.table(columns), schemas.features(1, 3, 3, "float32"))
            draft.facts.update(num_tokens=1, width=3, pooled=3)
            draft.count(len(ids))
        with self.store.write("clip", "c", 1, {}, {}) as point:
            point.facts.update(text_len=8, trained_names=[])
            point.count(1)
        step = steps.score(self.store, evaluation, TRAIN, manifest, draft.artifact, point.artifact)
        return steps.run(step, self.store)

    def report(self, dataset: str, evaluation: EvalConfig = EVAL) -> dict:
        scores = {"main.0.clip": self.scores(dataset, evaluation)}
        report = steps.run(steps.report(self.store, evaluation, scores), self.store)
        folder = publish(self.store, report, [])
        assert "<html" in (folder / "report.html").read_text()
        return json.loads((folder / "report.json").read_text())


def row(report: dict, head: str, direction: str) -> dict:
    [found] = [r for r in report["rows"] if (r["head"], r["direction"]) == (head, direction)]
    return found


THREE = {"a": [0.0, 1.0, 0.0], "b": [1.0, 0.0, 0.0], "c": angle(40)}
TEXTS = {"north": [0.0, 1.0, 0.0], "northish": angle(50), "east": angle(5), "south": [0.0, -1.0, 0.0]}


def test_retrieval_with_several_captions_and_several_videos(tmp_path, monkeypatch):
    entries = [
        {"video": "a.mp4", "caption": ["north", "northish"]},
        {"video": ["b.mp4", "c.mp4", "gone.mp4"], "caption": "east"},
    ]
    report = World(tmp_path, monkeypatch, THREE, TEXTS, entries).report("upstream")
    # north: a 1.00, c 0.64, b 0.00, rank 1; northish: c 0.98 before a 0.77, rank 2; east: b 1.00, c 0.82, rank 1
    t2v = row(report, "sim", "t2v")
    assert (t2v["task"], t2v["n"]) == ("retrieval", 3)
    assert t2v["metrics"]["r1"] == pytest.approx(200 / 3, abs=1e-3)
    assert t2v["metrics"]["meanr"] == pytest.approx(4 / 3, abs=1e-3)
    # average precision: 1; 1/2; b and c first and second: 1. nDCG@10: 1; 1 / log2 3; 1
    assert t2v["metrics"]["map"] == pytest.approx(100 * (1 + 0.5 + 1) / 3, abs=1e-3)
    assert t2v["metrics"]["ndcg10"] == pytest.approx(100 * (2 + 1 / np.log2(3)) / 3, abs=1e-3)
    # a: north; b: east; c: northish 0.98 before east 0.82, rank 2
    v2t = row(report, "sim", "v2t")
    assert v2t["metrics"]["r1"] == pytest.approx(200 / 3, abs=1e-3) and v2t["n"] == 3
    assert v2t["metrics"]["mrr"] == pytest.approx(100 * (1 + 1 + 0.5) / 3, abs=1e-3)
    scored = report["protocol"]["scored"]
    videos = {"videos": 3, "of_videos": 4, "lost": {"missing": 1}, "lost_without_split": 0}
    assert scored == {**videos, "texts": 3, "of_texts": 3}
    assert any("3 of the 4 videos" in note and "lost: 1 missing" in note for note in report["protocol"]["notes"])


def test_a_caption_outlives_the_first_of_its_videos(tmp_path, monkeypatch):
    entries = [{"video": ["gone.mp4", "b.mp4"], "caption": "east"}, {"video": "a.mp4", "caption": "north"}]
    world = World(tmp_path, monkeypatch, {k: THREE[k] for k in "ab"}, TEXTS, entries)
    captions = Captions(world.manifest("upstream"))
    assert [t[1:] for t in captions.texts("en", "short", "test")] == [("b.mp4", "east"), ("a.mp4", "north")]
    assert row(world.report("upstream"), "sim", "t2v")["metrics"]["r1"] == 100.0


def test_multiple_choice_with_options_of_each_video(tmp_path, monkeypatch):
    entries = [
        {"video": "a.mp4", "option": ["east", "north"], "answer": 1},  # 1.00 to 0.09: right
        {"video": "c.mp4", "option": ["east", "northish"], "answer": 0},  # 0.82 to 0.98: wrong
        {"video": "b.mp4", "option": ["south", "north"], "answer": 1},  # 0 to 0: a tie is lost
    ]
    world = World(tmp_path, monkeypatch, THREE, TEXTS, entries)
    report = world.report("upstream_mc")
    found = row(report, "sim", "v2t")
    assert (found["task"], found["n"]) == ("multiple_choice", 3)
    assert found["metrics"]["accuracy"] == pytest.approx(100 / 3, abs=1e-3)
    assert {a["task"] for a in report["advice"]} == {"multiple_choice"}
    assert not any("text to video" in line for part in report["summary"] for line in part["lines"])
    assert {(r["head"], r["direction"]) for r in report["rows"]} == {
        ("sim", "v2t")
    }  # no options but its own, so no dsl
    table = list(schemas.rows(world.scores("upstream_mc").path / "scores.parquet", schemas.SCORES))
    assert len(table) == 6 and {r["query_id"] for r in table} == {"a.mp4", "b.mp4", "c.mp4"}
    assert all(r["candidate_id"].startswith(r["query_id"]) for r in table)


def test_multiple_choice_with_the_same_options_for_all(tmp_path, monkeypatch):
    options = ["north", "northish", "east"]
    entries = [{"video": f"{v}.mp4", "option": options, "answer": n} for v, n in (("a", 0), ("b", 2), ("c", 2))]
    found = row(World(tmp_path, monkeypatch, THREE, TEXTS, entries).report("upstream_mc"), "sim", "v2t")
    assert found["metrics"]["accuracy"] == pytest.approx(200 / 3, abs=1e-3)  # c is nearer to northish
    assert "map" not in found["metrics"]


@pytest.fixture()
def two_prompts(tmp_path, monkeypatch):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "two.toml").write_text('prompts = ["a {}", "{} b"]')
    monkeypatch.setattr(classification, "PROMPTS", folder)
    return EVAL.model_copy(update={"prompts": "two"})


PROMPTED = {
    "a run": [1.0, 0.0, 0.0],
    "run b": [0.0, 1.0, 0.0],  # mean of the cosines with run: half of x + y
    "a jump": [0.8, 0.6, 0.0],
    "jump b": [0.8, 0.6, 0.0],
}


def test_classification_with_prompts(tmp_path, monkeypatch, two_prompts):
    videos = {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "w": [-0.6, 0.8, 0.0]}
    entries = [{"video": f"{v}.mp4", "caption": c} for v, c in (("x", "jump"), ("y", "run"), ("w", "run"))]
    world = World(tmp_path, monkeypatch, videos, PROMPTED, entries)
    report = world.report("upstream_actions", two_prompts)
    # x: run 0.5, jump 0.8, right; y: run 0.5, jump 0.6, wrong though "run b" alone is at 1; w: run 0.1, jump 0, right
    found = row(report, "sim", "v2t")
    assert (found["task"], found["n"]) == ("classification", 3)
    assert found["metrics"]["top1"] == pytest.approx(200 / 3, abs=1e-3)
    assert found["metrics"]["top5"] == 100.0
    assert found["metrics"]["top1_top5"] == pytest.approx(250 / 3, abs=1e-3)
    # dsl, by hand: softmax over the videos of run (.5 .5 .1) is .374 .374 .251, of jump (.8 .6 0) .445 .364 .200
    # x: run .187, jump .356; y: run .187, jump .218; w: run .025, jump 0: the same winners
    assert row(report, "dsl", "v2t")["metrics"]["top1"] == found["metrics"]["top1"]


def test_other_prompts_are_another_recipe_of_classification_alone(tmp_path, monkeypatch, two_prompts):
    world = World(tmp_path, monkeypatch, {"x": [1.0, 0.0, 0.0]}, PROMPTED, [{"video": "x.mp4", "caption": "run"}])
    for dataset, differ in (("upstream_actions", True), ("upstream", False)):
        manifest = world.manifest(dataset)
        keys = {steps.score(world.store, e, TRAIN, manifest, manifest, manifest).key for e in (EVAL, two_prompts)}
        assert (len(keys) == 2) == differ


def test_several_true_options_give_mean_average_precision(tmp_path, monkeypatch):
    videos = {"a": [0.6, 0.8, 0.0], "b": [0.8, 0.6, 0.0], "c": [0.0, 0.0, 1.0], "d": [0.0, 0.0, -1.0]}
    texts = {"zero": [1.0, 0.0, 0.0], "one": [0.0, 1.0, 0.0], "two": [0.0, 0.0, 1.0], "never": [0.0, 0.0, -1.0]}
    answers = {"a": [1, 1, 0, 0], "b": [0, 1, 0, 0], "c": [1, 0, 1, 0], "d": [0, 0, 0, 0]}
    entries = [{"video": f"{v}.mp4", "option": list(texts), "answer": some} for v, some in answers.items()]
    found = row(World(tmp_path, monkeypatch, videos, texts, entries).report("upstream_mc"), "sim", "v2t")
    # softmax over the four options of cosine / 1
    #      zero  one   two   never
    # a    .301  .368  .165  .165     zero: b (no), a, then c and d level at .196: d (no) goes first, c is the 4th
    # b    .368  .301  .165  .165           (1/2 + 2/4) / 2 = 1/2
    # c    .196  .196  .534  .072     one:  a, b: 1;  two: c: 1;  never: nobody, left out
    # d    .196  .196  .072  .534     mean of 1/2, 1, 1
    assert found["metrics"]["map"] == pytest.approx(100 * 2.5 / 3, abs=1e-3)
    assert found["metrics"]["classes_shown"] == 3
    assert found["n"] == 3  # d shows nothing, so its best option is not asked for, but it counts above
    assert found["metrics"]["accuracy"] == pytest.approx(200 / 3, abs=1e-3)  # b: zero before one
    assert found["task"] == "multiple_choice"
