"""What a query costs, and what k buys: batches answer as single queries do, smaller k as if scored so."""

import gc
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ivcore import steps
from ivcore.checkpoints import checkpoint
from ivcore.config import EvalConfig
from ivcore.datasets.captions import Captions
from ivcore.features.reader import Features
from ivcore.models import flops
from ivcore.retrieval import machine
from ivcore.retrieval.embed import Encoder
from ivcore.retrieval.heads import dual_weights
from ivcore.retrieval.latency import Server, gflop, milliseconds
from ivcore.retrieval.ranking import rank
from ivcore.store.artifacts import Store
from ivcore.verdict.k_curve import NOWHERE, k_steps, ranks_at

_spec = importlib.util.spec_from_file_location("scored", Path(__file__).with_name("test_score.py"))
scored = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scored)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("home"))
    made = scored.write_manifest(store), scored.write_features(store)
    return store, *made, {k: scored.write_checkpoint(store, k) for k in ("s2", "clip")}


def server(made, kind: str) -> Server:
    _, manifest, features, points = made
    model, tokenizer = checkpoint.load(points[kind].path)
    encoder = Encoder(model.requires_grad_(False), tokenizer, 12, torch.device("cpu"), torch.float32)
    source, captions = Features(features), Captions(manifest)
    clips = [c for c in captions.clips("test") if c in source.clip_ids]
    rows = np.array(source.rows_of(clips))
    videos = encoder.videos(lambda n: source.tokens(rows[n]), len(clips))
    strings = [t[2] for t in captions.texts("en", "short", "test")]
    texts = encoder.texts(strings)
    weights = dual_weights(texts.embedding, videos)
    return Server(encoder, strings, texts, videos, lambda n: source.tokens(rows[n]), 4, *weights)


@pytest.mark.parametrize("head", ["sim", "match", "match_folded"])
@pytest.mark.parametrize("direction", ["t2v", "v2t"])
def test_a_batch_answers_as_its_queries_one_by_one(made, head, direction):
    s2 = server(made, "s2")
    numbers = [3, 0, 7, 3]
    alone = torch.cat([s2.ask(direction, head, [n]) for n in numbers])
    assert torch.equal(s2.ask(direction, head, numbers), alone)
    assert s2.ask(direction, head, [1], k=2).shape == (1, 2)


def test_the_server_matches_as_the_plain_form_and_keeps_to_its_budget(made):
    s2 = server(made, "s2")
    model, text = s2.encoder.model, s2.texts
    with torch.no_grad():
        tokens = s2.tokens_of(np.arange(len(s2.videos)))
        logits = torch.stack(
            [model.match(text.states, text.mask, model.video_kv(v[None]))[:, 1] for v in tokens], dim=1
        )
    sim = text.embedding @ s2.videos.T  # [T, V]
    for direction, near, match in (("t2v", sim, logits), ("v2t", sim.T, logits.T)):
        top = near[2].topk(4).indices
        assert s2.ask(direction, "match", [2])[0].tolist() == top[match[2][top].argsort(descending=True)].tolist()
    assert s2.kv_share == 1.0 and not s2.folded.hot
    s2.kv_bytes = s2.matcher.bytes // 2
    s2.__post_init__()
    assert 0 < s2.kv_share < 0.6 and s2.matcher.bytes <= s2.kv_bytes


def test_times_hold_every_figure_and_stages_are_parts_of_the_whole(made):
    s2 = server(made, "s2")
    found = milliseconds(s2, lambda n: s2.ask("t2v", "match", n), list(range(10)))
    wanted = {f"{a}{b}" for a in ("", "cold_", "batch32_") for b in ("p50", "p95")}
    assert set(found) == wanted | {"encode", "similarity", "rerank"} and min(found.values()) > 0
    s2.ask("t2v", "sim", [0])
    assert set(s2.took) == {"encode", "similarity"}
    assert set(milliseconds(s2, lambda n: s2.ask("t2v", "sim", n), [0], whole=False)) == {"p50", "p95"}


def test_counted_arithmetic_is_the_formula(made):
    for kind, heads in (("s2", ("sim", "match", "match_folded")), ("clip", ("sim",))):
        one = server(made, kind)
        length = int(one.encoder.tokenizer.encode([one.captions[2]], 12)[1].sum())
        for head in heads:
            counted = gflop(lambda n, one=one, head=head: one.ask("t2v", head, n), [2])
            wanted = flops.query(one.encoder.model.config, head, length, len(one.videos), 4) / 1e9
            assert counted == pytest.approx(wanted, abs=1e-6)


def test_smaller_k_is_read_off_a_larger_one(made):
    store, manifest, features, points = made
    place = ("en", "short", "t2v")

    def score(k):
        step = steps.score(store, EvalConfig(**{**scored.EVAL.model_dump(), "k": k}), scored.TRAIN, manifest, features,
                           points["s2"])  # fmt: skip
        return SimpleNamespace(scores=steps.run(step, store))

    query, at = ranks_at(score(8), 8)[place]
    assert list(at) == [1, 2, 4, 8] and len(query) == scored.NUM
    _, smaller = ranks_at(score(4), 4)[place]
    for k in (1, 2, 4):
        assert np.array_equal(at[k], smaller[k])
    rows = [
        r for r in scored.table(score(4).scores) if (r["language"], r["direction"], r["relevant"]) == ("en", "t2v", 1)
    ]
    for head, k in (("sim", 1), ("match", 4)):
        best = {q: min(r["rank"] for r in rows if (r["query_id"], r["head"]) == (q, head)) for q in query}
        assert ((at[k] == 1) == (np.array([best[q] for q in query]) == 1)).all()
    assert (at[1] == NOWHERE).any()


def test_k_steps():
    assert [k_steps(k) for k in (1, 2, 3, 16)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8, 16]]
    assert rank(lambda a, b: torch.zeros(1, 1), 1, np.array([[0, 0]]), 1).best.tolist() == [1]


def test_the_machine_is_named_and_its_peak_is_ours():
    cpu = torch.device("cpu")
    assert "core" in machine.name(cpu)
    gc.collect()  # what other tests left may otherwise go meanwhile, and hide what comes
    machine.reset_peak(cpu)
    before = machine.peak_mb(cpu)
    some = bytearray(200_000_000)  # of the system's own allocator, which gives it back at once
    assert machine.peak_mb(cpu) - before > 100
    del some
    machine.reset_peak(cpu)
    assert machine.peak_mb(cpu) < before + 100
