"""Scores of tiny models on made-up clips: equal to the plain computation, same bytes twice, honest edges."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F

from ivcore import steps
from ivcore.checkpoints.checkpoint import load
from ivcore.config import EvalConfig, TrainConfig
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.features.reader import Features
from ivcore.models import build_clip, build_s2
from ivcore.retrieval.heads import dual_weights
from ivcore.search import query
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.text.tokenizer import Tokenizer

NUM, K = 14, 4
WORDS = ["red", "blue", "circle", "square", "moving", "up", "down", "left", "right", "staying", "still"]
EVAL = EvalConfig(k=K, latency_queries=10, languages=("en", "zh"), bootstrap=100)
TRAIN = TrainConfig(threads=1, device="cpu")


def write_manifest(store: Store) -> Artifact:
    rng = np.random.default_rng(0)
    clips, captions = [], []
    for n in range(NUM + 2):
        clip = f"c{n:03d}"
        probed = dict.fromkeys(("start_s", "end_s", "duration_s", "width", "height", "fps", "codec", "error"))
        split = "test" if n < NUM else "train"
        clips.append({"clip_id": clip, "path": clip, "sha256": "", "bytes": 1, "split": split, **probed})
        clips[-1] |= {"family": f"f{n // 4}", "source": "made_up", "media": "video", "weight": 1}
        for m in range(1 + (n == 3)):  # clip 3 has two captions, clip 5 none in Chinese
            text = " ".join(rng.choice(WORDS, rng.integers(3, 9)))
            captions.append((f"{clip}-en{m}", clip, "en", text))
        if n != 5:
            captions.append((f"{clip}-zh", clip, "zh", "红色 圆形"))
    rows = [dict(zip(("caption_id", "clip_id", "language", "caption"), c), text_class="short") for c in captions]
    with store.write("manifest", "m", 1, {"dataset": "made_up"}, {}) as draft:
        schemas.write(draft.path / "manifest.parquet", clips, schemas.MANIFEST)
        schemas.write(draft.path / "captions.parquet", rows, schemas.CAPTIONS)
        draft.count(len(clips))
    return draft.artifact


def write_features(store: Store, key: str = "f", seed: int = 0) -> Artifact:
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randn(NUM + 1, 65, 96, generator=g).numpy().astype(np.float16)  # clip 13 was not decoded
    ids = [f"c{n:03d}" for n in range(NUM + 2) if n != 13]
    kind = schemas.features(65, 96, 128, "float16")
    with store.write("features", key, 1, {"dtype": "float16"}, {}) as draft:
        columns = {
            "clip_id": pa.array(ids),
            "tokens": schemas.packed(tokens),
            "pooled": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(ids) * 128, np.float32)), 128),
        }
        schemas.write(draft.path / "features.parquet", pa.table(columns), kind)
        draft.facts.update(num_tokens=65, width=96, pooled=128)
        draft.count(len(ids))
    return draft.artifact


def write_checkpoint(store: Store, kind: str) -> Artifact:
    tokenizer = Tokenizer.train([" ".join(WORDS)], 60, "bert" if kind == "s2" else "llama")
    model = (build_s2 if kind == "s2" else build_clip)("tiny", tokenizer.vocab_size, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.05)
    with store.write(kind, "k", 1, {}, {}) as draft:
        model.save_pretrained(draft.path)
        tokenizer.save(draft.path)
        draft.facts["text_len"] = 12
        draft.count(1)
    return draft.artifact


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("home"))
    return store, write_manifest(store), write_features(store), {k: write_checkpoint(store, k) for k in ("s2", "clip")}


def score(made, kind: str, evaluation: EvalConfig = EVAL) -> Artifact:
    store, manifest, features, checkpoints = made
    return steps.run(steps.score(store, evaluation, TRAIN, manifest, features, checkpoints[kind]), store)


def table(artifact: Artifact) -> list[dict]:
    return list(schemas.rows(artifact.path / "scores.parquet", schemas.SCORES))


@pytest.fixture(scope="module")
def scores(made) -> dict[str, Artifact]:
    return {kind: score(made, kind) for kind in ("s2", "clip")}


def test_every_head_language_and_direction_is_there(scores):
    for kind, heads in (("s2", {"sim", "dsl", "match"}), ("clip", {"sim", "dsl"})):
        rows = table(scores[kind])
        found = {(r["model"], r["head"], r["direction"], r["language"], r["text_class"]) for r in rows}
        assert found == {(kind, h, d, lang, "short") for h in heads for d in ("t2v", "v2t") for lang in ("en", "zh")}
        facts = scores[kind].record()["facts"]
        assert facts["slices"]["en/short"] == {"n_texts": NUM, "n_videos": NUM - 1, "n_asked": NUM - 1}
        assert facts["slices"]["zh/short"] == {"n_texts": NUM - 2, "n_videos": NUM - 1, "n_asked": NUM - 2}
        assert (facts["clips_left_out"], facts["texts_left_out"]) == (1, 2)
        assert scores[kind].rows == len(heads) * (NUM + NUM - 1 + NUM - 2 + NUM - 2)
        for row in rows:
            assert row["rank"] <= K or row["relevant"]


def test_s2_equals_the_plain_computation(made, scores):
    _, manifest, features, checkpoints = made
    model, tokenizer = load(checkpoints["s2"].path)
    source, captions = Features(features), Captions(manifest)
    clips = [c for c in captions.clips("test") if c != "c013"]
    texts = [t for t in captions.texts("en", "short", "test") if t[1] != "c013"]
    tokens = source.tokens(source.rows_of(clips))
    with torch.no_grad():
        ids, mask = tokenizer.encode([t[2] for t in texts], 12)
        states = model.encode_text(ids, mask)
        text = F.normalize(model.project_text(states), dim=-1)
        video = F.normalize(model.project_video(model.pool(tokens)), dim=-1)
        sim = text @ video.T
        match = torch.stack(
            [model.match(states, mask, model.video_kv(v[None]).copy())[:, 1] for v in tokens], dim=1
        )  # every pair [T, V]
    wanted = {
        "sim": {"t2v": sim, "v2t": sim.T},
        "dsl": {"t2v": sim * sim.softmax(dim=0), "v2t": (sim * sim.softmax(dim=1)).T},
        "match": {
            d: torch.full_like(m, -100).scatter(1, s.topk(K).indices, m.gather(1, s.topk(K).indices))
            for d, m, s in (("t2v", match, sim), ("v2t", match.T, sim.T))
        },
    }
    text_ids = {t[0]: n for n, t in enumerate(texts)}
    clip_ids = {c: n for n, c in enumerate(clips)}
    rows = [r for r in table(scores["s2"]) if r["language"] == "en"]
    for row in rows:
        q, c = (text_ids, clip_ids) if row["direction"] == "t2v" else (clip_ids, text_ids)
        line = wanted[row["head"]][row["direction"]][q[row["query_id"]]]
        mine = float(line[c[row["candidate_id"]]])
        assert row["score"] == pytest.approx(mine, abs=2e-5)
        if mine > -100:  # ranks of the others are the tie rule's
            assert row["rank"] == 1 + int((line > mine).sum())
    both = [r for r in rows if r["query_id"] == "c003" and r["head"] == "sim" and r["relevant"]]
    assert {r["candidate_id"] for r in both} == {"c003-en0", "c003-en1"}


def test_what_matching_did_not_look_at_ranks_last(scores):
    unseen = [r for r in table(scores["s2"]) if r["head"] == "match" and r["score"] == -100.0]
    assert unseen and all(r["relevant"] and r["rank"] > K for r in unseen)
    alone = [r for r in unseen if r["direction"] == "t2v"]
    assert {r["rank"] for r in alone} == {NUM - 1}


def test_costs_are_told_for_every_row(scores):
    record = scores["s2"].record()
    ms, gflop = record["measured"]["query_ms"], record["facts"]["query_gflop"]
    assert set(ms) == set(gflop) and "match_folded/en/short/t2v" in ms and len(ms) == 2 * (3 * 2 + 1)
    assert all(0 < v["p50"] <= v["p95"] for v in ms.values())
    assert gflop["sim/en/short/t2v"] < gflop["match/en/short/t2v"] < gflop["match_folded/en/short/t2v"]
    assert record["facts"]["kv_share"] == {"en/short": 1.0, "zh/short": 1.0}
    size = record["facts"]["index_bytes_per_video"]
    assert size == {"sim": 512, "dsl": 512, "match": 512 + 65 * 96 * 2}


def test_same_bytes_again(made, scores, tmp_path):
    store, manifest, features, checkpoints = made
    step = steps.score(store, EVAL, TRAIN, manifest, features, checkpoints["s2"])
    again = Store(tmp_path)
    with again.write("scores", "again", 1, {}, {}) as draft:
        step.make(draft, steps.quiet)
    one, two = scores["s2"].record(), draft.artifact.record()
    assert one["files"] == two["files"]
    assert json.dumps(one["facts"]) == json.dumps(two["facts"])


def test_nothing_to_score_is_said(made):
    with pytest.raises(UserError, match="split 'val' has no video that could be decoded"):
        score(made, "s2", EVAL.model_copy(update={"split": "val"}))
    with pytest.raises(UserError, match="no captions in es"):
        score(made, "clip", EVAL.model_copy(update={"languages": ("es",)}))


def test_dual_weights_in_pieces(monkeypatch):
    g = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(9, 5, generator=g), dim=-1)
    video = F.normalize(torch.randn(4, 5, generator=g), dim=-1)
    whole = dual_weights(text, video)
    monkeypatch.setattr("ivcore.retrieval.heads.MAX_ELEMENTS", 8)
    for a, b in zip(whole, dual_weights(text, video)):
        assert torch.allclose(a, b)
    assert torch.allclose(whole[0], 1 / (text @ video.T).exp().sum(1))


def test_half_precision_scores(made):
    store, manifest, features, checkpoints = made
    train = TRAIN.model_copy(update={"dtype": "bfloat16"})
    step = steps.score(store, EVAL.model_copy(update={"k": 3}), train, manifest, features, checkpoints["s2"])
    found = steps.run(step, store)
    assert found.record()["facts"]["dtype"] == "bfloat16"
    assert isinstance(found.path, Path)


@pytest.mark.parametrize("variant", query.VARIANTS)
def test_search_finds_what_scoring_ranked(made, variant):
    """Asked with a caption of the test split it gives the ranks of scores.parquet."""
    store, manifest = made[:2]
    kind, head = variant.split("/")
    (caption_id, _, sentence), *_ = Captions(manifest).texts("en", "short", "test")
    table = pa.parquet.read_table(score(made, kind).path / "scores.parquet").to_pylist()
    (found,) = query.search(store, variant, [sentence], top=K, k=K, split="test", device="cpu")
    rows = [r for r in table if (r["query_id"], r["head"], r["direction"]) == (caption_id, head, "t2v")]
    assert [f["clip_id"] for f in found] == [
        r["candidate_id"] for r in sorted(rows, key=lambda r: r["rank"]) if r["rank"] <= K
    ]
    assert [f["score"] for f in found] == sorted((f["score"] for f in found), reverse=True)
    with pytest.raises(UserError, match=f"has no scores of {kind}"):
        next(query.search(Store(store.home / "elsewhere"), variant, [sentence]))


def test_sentences_asked_together_are_answered_as_alone(made):
    texts = [text for _, _, text in Captions(made[1]).texts("en", "short", "test")][:3]
    together = list(query.search(made[0], "s2/match", texts, top=K, k=K, split="test", device="cpu"))
    alone = [next(query.search(made[0], "s2/match", [text], top=K, k=K, split="test", device="cpu")) for text in texts]
    assert together == alone and len(together) == 3


@pytest.mark.parametrize(("state", "says"), query.SURE.items())
def test_search_says_how_sure_the_report_is_of_what_it_takes(state, says):
    at = {"language": "en", "text_class": "short", "direction": "t2v"}
    report = {"advice": [{**at, "language": "zh", "variant": "clip/sim", "state": "shown"},
                         {**at, "direction": "v2t", "variant": "clip/sim", "state": "shown"},
                         {**at, "variant": "s2/match", "state": state}]}  # fmt: skip
    assert query.advised(report, "a dog", "en") == ("s2/match", f"{says}, en, short")
    assert says.startswith("the report takes it") == (state in ("shown", "alone"))
    nothing = "clip/sim", "the report advises nothing for es, short"
    assert query.advised(report, "un perro", "es") == nothing
    assert query.advised(None, "un perro", "es") == nothing
