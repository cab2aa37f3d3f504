"""The report over made-up scores with known recalls: figures, words, page, publishing."""

import json
import threading
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ivcore import steps
from ivcore.config import EvalConfig
from ivcore.errors import UserError, WorkError
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.verdict import adviser, plots, sentences
from ivcore.verdict.examples import strip
from ivcore.verdict.page import compared, page, terminal
from ivcore.verdict.publish import publish

NUM = 40  # clips, in families of 4
EVAL = EvalConfig(k=4, bootstrap=200, examples=4)
CAPTION = 'a <script>alert("x")</script> & red circle'
PHASES = {
    "hidden": [
        {"name": "words", "batches": "random", "vtc": 1.0, "vtm": 0.0, "trainable": "all"},
        {"name": "bind", "batches": "families", "vtc": 1.0, "vtm": 1.0, "vtc_negatives": "other_scenes"},
    ],
    "seen": [{"name": "bind", "batches": "families", "vtc": 1.0, "vtm": 1.0, "vtc_negatives": "all"}],
}
RIGHT = {  # share of queries answered right, by arm, model and head
    "hidden": {
        ("s2", "sim"): 0.3,
        ("s2", "dsl"): 0.35,
        ("s2", "match"): 0.9,
        ("clip", "sim"): 0.9,
        ("clip", "dsl"): 0.8,
    },
    "seen": {("s2", "sim"): 0.9, ("s2", "dsl"): 0.9, ("s2", "match"): 0.9},
}


def write(store: Store, kind: str, name: str, inputs: dict[str, Artifact], config: dict, fill) -> Artifact:
    with store.write(kind, name, 1, config, {k: a.id for k, a in inputs.items()}) as draft:
        fill(draft)
        draft.count(1)
    return draft.artifact


def data(store: Store, seed: int) -> tuple[Artifact, Artifact]:
    """(manifest, features) with frames behind them."""
    clips = [f"c{n:02d}" for n in range(NUM)]

    def fill_manifest(draft):
        none = dict.fromkeys(("start_s", "end_s", "duration_s", "width", "height", "fps", "codec", "error"))
        none |= {"source": "made_up", "media": "video", "weight": 1}
        rows = [
            {"clip_id": c, "path": c, "sha256": "", "bytes": 1, "split": "test", "family": f"f{n // 4}", **none}
            for n, c in enumerate(clips)
        ]
        texts = [
            {"caption_id": f"{c}-{lang}", "clip_id": c, "language": lang, "text_class": "short", "caption": CAPTION}
            for c in clips
            for lang in ("en", "zh")
        ]
        schemas.write(draft.path / "manifest.parquet", rows, schemas.MANIFEST)
        schemas.write(draft.path / "captions.parquet", texts, schemas.CAPTIONS)

    def fill_shard(draft):
        video = np.random.default_rng(0).integers(0, 255, (NUM, 8, 16, 16, 3)).astype(np.uint8)
        rows = [{"clip_id": c, "frames": v.tobytes()} for c, v in zip(clips, video)]
        schemas.write(draft.path / "frames.parquet", rows, schemas.FRAME_SHARD)

    manifest = write(store, "manifest", f"m{seed}", {}, {"dataset": "made_up"}, fill_manifest)
    shard = write(store, "frame_shard", f"s{seed}", {}, {}, fill_shard)

    def fill_frames(draft):
        none = dict.fromkeys(c.name for c in schemas.FRAMES.columns)
        rows = [{**none, "clip_id": c, "shard": shard.id, "row": n} for n, c in enumerate(clips)]
        schemas.write(draft.path / "index.parquet", rows, schemas.FRAMES)
        draft.facts.update(num_frames=8, size_px=16, decoders={"decord 0.6": 38}, reasons={"truncated": 2})
        draft.measured["decoder_ms"] = {"decord": 9.84, "pyav": 7.66, "clips": 5, "only_pyav": 1}

    frames = write(store, "frames", f"f{seed}", {"manifest": manifest}, {}, fill_frames)
    return manifest, write(store, "features", f"t{seed}", {"frames": frames}, {}, lambda draft: None)


def checkpoint(store: Store, kind: str, arm: str, seed: int, init: Artifact | None) -> Artifact:
    phases = PHASES[arm] if kind == "s2" else [{"name": "pooler", "trainable": "clip", "batches": "random"}]
    for phase in phases:

        def fill(draft, phase=phase):
            rows = [
                {"phase": phase["name"], "step": s, "name": n, "value": 3.0 / s}
                for s in range(10, 2000, 10)
                for n in ("loss", "loss/vtc", "lr")
            ]
            schemas.write(draft.path / "curves.parquet", rows, schemas.CURVES)
            draft.facts.update(phase=phase["name"], steps=2000, samples=64, params_total=100, params_trained=20)
            draft.facts.update(trained_names=["temp"], digest_before="aa", digest_after="aa", train_gflop=10.0)

        inputs = {"init": init} if init else {}
        init = write(
            store, kind, f"{arm}{seed}{phase['name']}", inputs, {"phase": {"languages": ["en"], **phase}}, fill
        )
    return init


def scores(store: Store, arm: str, seed: int, model: str, made: tuple[Artifact, Artifact], point: Artifact) -> Artifact:
    heads = {head: share for (m, head), share in RIGHT[arm].items() if m == model}
    rng = np.random.default_rng(seed)

    def fill(draft):
        rows, ms, flop = [], {}, {}
        for language in ("en", "zh"):
            for head, share in heads.items():
                for direction in ("t2v", "v2t"):
                    name = f"{head}/{language}/short/{direction}"
                    ms[name], flop[name] = {"p50": 1.0 + len(head), "p95": 9.0}, 0.5
                    for n in range(NUM):
                        clip, text = (f"c{n:02d}", f"c{n:02d}-{language}")
                        query, true = (text, clip) if direction == "t2v" else (clip, text)
                        other = f"c{(n + 1) % NUM:02d}" + ("" if direction == "t2v" else f"-{language}")
                        order = [true, other] if rng.random() < share else [other, true]
                        rows += [
                            {"query_id": query, "candidate_id": c, "model": model, "head": head, "direction": direction}
                            | {"language": language, "text_class": "short", "rank": r, "score": 1.0 / r}
                            | {"relevant": c == true}
                            for r, c in enumerate(order, 1)
                        ]
        schemas.write(draft.path / "scores.parquet", rows, schemas.SCORES)
        draft.measured["query_ms"] = ms
        draft.facts.update(
            split="test", split_sha256="ab", n_videos=NUM, clips_left_out=0, texts_left_out=0, text_len=32, k=4,
            dtype="float32", device="cpu", query_gflop=flop, index_bytes_per_video=dict.fromkeys(heads, 512),
            slices={"en/short": {"n_texts": NUM, "n_videos": NUM}},
        )  # fmt: skip

    inputs = {"manifest": made[0], "features": made[1], "checkpoint": point}
    return write(store, "scores", f"{arm}{seed}{model}", inputs, {}, fill)


def build(store: Store, arms=("hidden", "seen"), seeds=(0, 1)) -> dict[str, Artifact]:
    out = {}
    for seed in seeds:
        made = data(store, seed)
        for arm in arms:
            s2 = checkpoint(store, "s2", arm, seed, None)
            out[f"{arm}.{seed}.s2"] = scores(store, arm, seed, "s2", made, s2)
            if arm == "hidden":
                clip = checkpoint(store, "clip", arm, seed, s2)
                out[f"{arm}.{seed}.clip"] = scores(store, arm, seed, "clip", made, clip)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("home"))
    report = steps.run(steps.report(store, EVAL, build(store)), store)
    return store, report, json.loads((report.path / "verdict.json").read_text())


STAGES = [{"step": "ingest", "key": "k1", "cached": True, "wall_s": 1.0, "cpu_s": 0.5, "rows_ok": 3, "rows_failed": 0}]


def one(table: list[dict], **wanted) -> dict:
    found = [r for r in table if all(r[k] == v for k, v in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def lines(verdict: dict) -> list[str]:
    return [line for section in verdict["summary"] for line in section["lines"]]


def test_rows_hold_the_contract(made):
    verdict = made[2]
    assert len(verdict["rows"]) == (5 + 3) * 2 * 2 * 2
    row = one(verdict["rows"], arm="hidden", seed=0, model="s2", head="match", language="en", direction="t2v")
    assert (row["k"], row["frames"], row["max_text_len"], row["n"], row["families"]) == (4, 8, 32, NUM, 10)
    assert row["r1_ci95"][0] <= row["r1"] <= row["r1_ci95"][1] and row["chance"] == 100 / NUM
    assert (row["query_ms_p50"], row["train_gflop"], row["index_bytes_per_video"]) == (6.0, 20.0, 512)
    assert row["metrics"]["r5"] == 100.0 and row["source"] == "measured" and row["language_trained"] is True
    clip = one(verdict["rows"], seed=1, model="clip", head="sim", language="zh", direction="v2t")
    assert clip["train_gflop"] == 30.0 and clip["train_own_gflop"] == 10.0 and clip["language_trained"] is False


def test_spread_is_over_seeds(made):
    verdict = made[2]
    row = one(verdict["spread"], arm="seen", model="s2", head="sim", language="en", direction="t2v")
    each = [
        one(verdict["rows"], arm="seen", seed=s, model="s2", head="sim", language="en", direction="t2v")["r1"]
        for s in (0, 1)
    ]
    assert row["n"] == 2 * NUM and row["r1"] == row["mean"] == pytest.approx(sum(each) / 2)
    assert (row["min"], row["max"]) == (min(each), max(each)) and row["sd"] == pytest.approx(
        np.std(each, ddof=1), abs=1e-3
    )


def test_intervals_over_seeds_hold_the_runs(made):
    verdict = made[2]
    for row in verdict["spread"]:
        low, high = (v for v in row["seeds_ci95"])
        assert row["r1_ci95"][0] <= max(0, low) + 1e-3 and row["r1_ci95"][1] >= min(100, high) - 1e-3
    assert {p["method"].rpartition("; ")[2] for p in verdict["paired"]} == {"seeds as runs", "one run"}
    assert all(p["is_clear"] == (p["p"] <= 0.05) for p in verdict["paired"])


def test_with_one_seed_the_first_line_says_what_it_cannot_know(made):
    verdict = made[2]
    several = sentences.summary(verdict)[0]["lines"]
    one_seed = sentences.summary({**verdict, "protocol": {**verdict["protocol"], "seeds": [0]}})[0]["lines"]
    assert one_seed[0].startswith("One training run (seed 0)") and one_seed[1:] == several


def test_paired_within_and_between_arms(made):
    table = made[2]["paired"]
    gain = one(table, arm="hidden", arm_b="hidden", seed=None, a="s2/match", b="s2/sim", language="en", direction="t2v")
    assert gain["is_clear"] and gain["delta_r1"] > 30 and gain["families"] == 20 and len(gain["by_seed"]) == 2
    assert gain["p"] < 0.001 and "similarity did not" in gain["condition"]
    same = one(table, arm="seen", arm_b="seen", seed=None, a="s2/match", b="s2/sim", language="en", direction="t2v")
    assert "similarity and matching both learned from hard negatives" in same["condition"]
    control = one(table, arm="hidden", arm_b="seen", a="s2/match", b="s2/sim", language="en", direction="t2v")
    assert control["condition"].count(":") >= 2
    assert not any(p["arm"] == "seen" and "clip" in p["b"] for p in table)


def test_gains_of_arms_are_compared_on_the_same_queries(made):
    verdict = made[2]
    row = one(verdict["gains"], language="en", direction="t2v")
    hidden, seen = (
        one(verdict["paired"], arm=a, arm_b=a, seed=None, a="s2/match", b="s2/sim", language="en", direction="t2v")
        for a in ("hidden", "seen")
    )
    assert row["gain"] == pytest.approx(hidden["delta_r1"], abs=0.01)
    assert row["gain_b"] == pytest.approx(seen["delta_r1"], abs=0.01)
    assert row["delta"] == pytest.approx(row["gain_b"] - row["gain"], abs=0.01) and row["is_clear"]
    assert row["ci95"][0] < row["delta"] < row["ci95"][1] < 0 and len(row["by_seed"]) == 2
    (cost,) = (s["lines"] for s in verdict["summary"] if s["title"] == "When matching earns its cost")
    assert len(cost) == 2 and all("not shown to be ahead of the similarity of seen" in line for line in cost)


def test_an_arm_whose_text_tower_moved_on_has_no_gain_to_compare(tmp_path, monkeypatch):
    moved = [*PHASES["seen"], {"name": "last", "trainable": "vtc_head", "batches": "random", "vtc": 1.0, "vtm": 0.0}]
    monkeypatch.setitem(PHASES, "seen", moved)
    store = Store(tmp_path)
    report = steps.run(steps.report(store, EVAL, build(store, seeds=(0,))), store)
    assert json.loads((report.path / "verdict.json").read_text())["gains"] == []


def test_summary_claims_no_more_than_the_intervals(made):
    verdict = made[2]
    text = "\n".join(lines(verdict))
    assert "s2 with matching is ahead of s2 by similarity" in text
    assert "no difference shown, clip minus s2 with matching" in text
    assert "Arm hidden: Matching learned from hard negatives (swaps of a scene), similarity did not" in text
    bind = one(verdict["negatives"], arm="hidden", phase="bind")
    assert (bind["batches"], bind["contrast"]) == (
        "scenes with their swaps", "all other clips of the batch but those of the same scene"
    )  # fmt: skip
    own = one(verdict["paired"], arm="hidden", arm_b="hidden", seed=None, a="s2/match", b="s2/sim", language="en",
              direction="t2v")  # fmt: skip
    put = f"Matching put {own['only_a']} right that similarity had wrong, and {own['only_b']} wrong that it had right."
    assert put in text
    assert "Control, the best similarity of any arm" in text
    assert "s2 was trained on English, short captions alone" in text
    for p in verdict["paired"]:
        claims = "is ahead of" in sentences.difference(p)
        assert claims == (p["ci95"][0] > 0 or p["ci95"][1] < 0)


def test_advice_is_what_the_adviser_answers_from_the_same_rows(made):
    verdict = made[2]
    assert len(verdict["advice"]) == 2 * 2  # languages and directions
    for told in verdict["advice"]:
        if told["language"] == "zh":  # nothing was trained on it
            assert told["variant"] is None and told["because"] == "Nothing that was measured reads it."
            continue
        found = adviser.answer(adviser.Ask("retrieval", (told["language"],), 32, told["direction"]), verdict)
        assert told["variant"] == f"{found.variant['model']}/{found.variant['head']}"
        assert (told["arm"], told["k"], told["r1"]) == tuple(found.variant[n] for n in ("arm", "k", "r1"))
        assert told["because"] == " ".join(found.because) and told["variant"] in told["unbeaten"]
        assert (
            told["ask"] == f"iv advise --task retrieval --languages en --text-length 32 --direction {told['direction']}"
        )
    assert lines(verdict)[0].startswith(
        "Not decided for English, short captions: clip of arm hidden is best, ahead of s2 by"
    )


def test_frozen_curves_and_examples(made):
    verdict = made[2]
    frozen = verdict["frozen"]
    assert (frozen["model"], frozen["total"], frozen["trained"], frozen["trained_names"]) == ("clip", 100, 20, ["temp"])
    assert [p["phase"] for p in frozen["phases"]] == ["words", "bind", "pooler"]
    curve = [c for c in verdict["curves"] if (c["arm"], c["seed"], c["phase"]) == ("hidden", 0, "bind")]
    assert {c["name"] for c in curve} == {"loss", "loss/vtc"}
    assert curve[0]["step"][-1] == 3990 and len(curve[0]["step"]) <= 120
    drawn = [e["drawn"].partition(", one of ") for e in verdict["examples"]]
    assert [d[0] for d in drawn] == ["drawn at random", "won by matching", "lost by matching", "drawn at random"]
    gain = one(verdict["paired"], arm="hidden", arm_b="hidden", seed=0, a="s2/match", b="s2/sim", language="en",
               direction="t2v")  # fmt: skip
    assert [int(d[2]) for d in drawn[1:3]] == [gain["only_a"], gain["only_b"]]
    for e in verdict["examples"]:
        right = {(a["model"], a["head"]): a["is_true"] for a in e["answers"]}
        if e["drawn"] != "drawn at random":
            assert right["s2", "match"] == e["drawn"].startswith("won") != right["s2", "sim"]
        assert e["picture"].startswith("data:image/png") and {a["head"] for a in e["answers"]} == {"sim", "match"}


class Strict(HTMLParser):
    """Every element that is opened is closed, and nothing comes from elsewhere."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value:
                assert value.startswith(("data:", "#")), (tag, value)
            if name == "id":
                self.ids.append(value)
        assert tag != "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()


def test_page_is_whole_escaped_and_needs_no_network(made):
    verdict = {**made[2], "stages": STAGES}
    html = page(verdict, plots.pictures(verdict))
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert not parser.open
    assert len(parser.ids) == len(set(parser.ids))
    assert "&lt;script&gt;" in html and "<script>" not in html and "@import" not in html
    for line in lines(verdict):
        assert line[:20].split("'")[0] in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_the_page_says_what_decoded_and_what_each_decoder_takes(made):
    verdict = {**made[2], "stages": STAGES}
    assert [frames["frames"] for frames in verdict["decoding"]] == ["frames/f0", "frames/f1"]  # a lot a seed
    drawn = plots.pictures(verdict)
    line = "Decoded by decord 0.6: 38 clips; without frames: 2 truncated. A clip takes decord 9.8 and pyav 7.7 ms"
    assert page(verdict, drawn).count(line) == 2
    verdict["decoding"] = [{"frames": "frames/k", "decoders": {"pyav 18": 3}, "reasons": {}, "decoder_ms": {}}]
    assert "<li>Decoded by pyav 18: 3 clips; no clip is without frames.</li>" in page(verdict, drawn)


def test_pictures_are_svg_and_the_same_every_time(made):
    one_, two = plots.pictures(made[2]), plots.pictures(made[2])
    assert one_ == two and set(one_) == {"recall", "latency", "losses", "pareto", "depth"}
    for svg in one_.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg") and "currentColor" in svg and plots.INK not in svg


def test_a_report_of_video_queries_alone_is_drawn(made):
    """As of multiple choice, which asks videos."""
    tables = ("rows", "spread", "paired", "k_curve", "errors", "cells", "gains", "advice")
    found = {**made[2], "stages": STAGES}
    found |= {name: [r for r in found[name] if r["direction"] == "v2t"] for name in tables}
    found["summary"] = sentences.summary(found)
    drawn = plots.pictures(found)
    assert "depth" in drawn and "pareto" not in drawn  # the front is that of text queries
    assert "What k buys" in page(found, drawn) and "text to video" not in "".join(lines(found))


def test_two_data_sets_are_never_one_figure(tmp_path):
    store = Store(tmp_path)
    made = data(store, 0), data(store, 1)  # of one name, and other videos
    s2 = checkpoint(store, "s2", "seen", 0, None)
    both = {f"{arm}.0.s2": scores(store, "seen", n, "s2", one_, s2) for n, (arm, one_) in enumerate(zip("ab", made))}
    report = steps.run(steps.report(store, EVAL, both), store)
    verdict = json.loads((report.path / "verdict.json").read_text())
    names = [f"made_up {m.key[:6]}" for m, _ in made]
    assert list(verdict["protocol"]["datasets"]) == names == list(dict.fromkeys(r["dataset"] for r in verdict["rows"]))
    assert sum(note.startswith("Scored: ") for note in verdict["protocol"]["notes"]) == 2
    told = [a for a in verdict["advice"] if (a["language"], a["direction"]) == ("en", "t2v")]
    assert [(a["dataset"], a["arm"]) for a in told] == list(zip(names, "ab"))  # each from its own rows
    assert all(a["ask"].endswith(f"--dataset {a['dataset']}") for a in told)
    assert not [p for p in verdict["paired"] if p["arm"] != p["arm_b"]]
    for name in names:
        assert any(c["on_front"] for c in verdict["cells"] if c["dataset"] == name)
    html = page({**verdict, "stages": STAGES, "training": []}, plots.pictures(verdict))
    assert f"{names[0]} (40 videos), {names[1]} (40 videos)" in html


def test_a_public_data_set_stands_beside_the_field(made):
    from ivcore.verdict import published

    verdict = {**made[2], "stages": STAGES, "published": published.rows("msrvtt")}
    drawn = plots.pictures(verdict)
    html = page(verdict, drawn)
    assert "The field beside ours" in html and "s2-6B" in drawn["field"] and "55.9" in html
    assert "The field beside ours" not in page({**verdict, "published": []}, drawn)


def test_cells_of_the_report_are_its_rows_and_the_smaller_k(made):
    _, report, verdict = made
    table = list(schemas.rows(report.path / "cells.parquet", schemas.CELLS))
    smaller = [c for c in verdict["k_curve"] if c["k"] < 4]
    assert len(table) == len(verdict["rows"]) + len(smaller) and {c["k"] for c in smaller} == {1, 2}
    front = [c for c in table if c["on_front"]]
    assert front and all(c["head"] != "dsl" and c["query_ms_p95"] and c["trained"] is not False for c in front)
    assert {c["language"] for c in table} == {"en", "zh"} and {c["language"] for c in front} == {"en"}  # as trained
    for c in smaller:
        if c["k"] == 1:  # nothing is re-ordered
            sim = one(verdict["spread"], arm=c["arm"], model="s2", head="sim", language=c["language"],
                      direction=c["direction"])  # fmt: skip
            assert c["r1"] == sim["r1"] and c["gain"] == 0


def twins(home, share, monkeypatch):
    """A verdict of two arms with one s2; `share`: of queries that twin's clip has right."""
    monkeypatch.setitem(RIGHT, "twin", {("clip", "sim"): share})
    store = Store(home)
    found = build(store, arms=("hidden",), seeds=(0,))
    inputs = found["hidden.0.clip"].record()["inputs"]
    point = store.get(inputs["checkpoint"])
    found["twin.0.s2"] = found["hidden.0.s2"]
    found["twin.0.clip"] = scores(
        store, "twin", 0, "clip", (store.get(inputs["manifest"]), store.get(inputs["features"])), point
    )
    report = steps.run(steps.report(store, EVAL, found), store)
    return json.loads((report.path / "verdict.json").read_text())


def test_a_model_that_arms_share_is_no_rival_of_itself(tmp_path, monkeypatch):
    (told,) = (
        a for a in twins(tmp_path, 1.0, monkeypatch)["advice"] if (a["language"], a["direction"]) == ("en", "t2v")
    )
    assert (told["arm"], told["variant"]) == ("twin", "clip/sim")
    assert set(told["rivals"]) == {"s2/sim", "s2/match", "clip/sim of hidden"}


def test_a_model_that_arms_share_is_told_of_once(tmp_path, monkeypatch):
    verdict = twins(tmp_path, 0.2, monkeypatch)
    assert verdict["protocol"]["shared"] == [{"arm": "twin", "model": "s2", "with": "hidden"}]
    assert {r["arm"] for r in verdict["rows"] if r["model"] == "s2"} == {"hidden", "twin"}  # the table has it whole

    told = {s["title"]: s["lines"] for s in verdict["summary"]}
    assert told["R@1, English, short captions"][0].startswith("s2 is one and the same model in hidden, twin;")
    assert not any("Arm twin" in line for line in told["What matching adds, English, short captions"])
    assert not any("s2" in line for line in told["Between the arms, English, short captions"])
    ahead = "text to video: clip of hidden is ahead of clip of twin ("
    assert any(line.startswith(ahead) for line in told["Between the arms, English, short captions"])
    rivals = {v for a in verdict["advice"] if a["variant"] for v in a["rivals"] if v.endswith(" of twin")}
    assert rivals == {"clip/sim of twin"}  # not s2's, which is among its own
    assert "s2: bind" in (html := page(verdict | {"stages": STAGES}, plots.pictures(verdict)))
    assert html.count("Who learned from hard negatives") == 1 and html.count("<th>twin</th><th>s2: ") == 0
    titles = {group["title"] for group in compared(verdict)}
    assert {t for t in titles if "s2" in t and "twin" in t} == {
        f"s2 {way} of {a} minus clip of twin" for way in ("with matching", "by similarity") for a in ("hidden", "twin")
    }  # its own clip against s2, and the other arm's s2; not s2 against itself
    places = {(r["language"], r["text_class"]) for g in compared(verdict) for pair in g["rows"] for r in pair if r}
    assert places == {("en", "short")}  # nothing was trained on Chinese
    assert html.count("<th>twin</th><th>clip/sim</th>") and not html.count("<th>twin</th><th>s2/")


def test_wrong_answers_are_sorted_by_kind(made):
    table = made[2]["errors"]
    for e in table:
        assert e["right"] + e["near_duplicate"] + e["twin"] + e["other"] == pytest.approx(100, abs=1e-3)
        r1 = one(
            made[2]["spread"], **{n: e[n] for n in ("arm", "model", "head", "language", "text_class", "direction")}
        )
        assert e["right"] == pytest.approx(r1["r1"], abs=1e-3)
    # every caption of the made-up data is the same, so whatever is wrong is a near-duplicate
    assert all(e["twin"] == e["other"] == 0 for e in table) and any(e["near_duplicate"] for e in table)


def test_publish_replaces_the_old_report_whole(made, monkeypatch):
    store, report, _ = made
    latest = publish(store, report, STAGES)
    assert latest == store.home / "reports" / "latest"
    assert {p.name for p in latest.iterdir()} == {
        "report.json", "report.html", "recall.svg", "latency.svg", "losses.svg", "pareto.svg", "depth.svg"
    }  # fmt: skip
    assert json.loads((latest / "report.json").read_text())["stages"] == STAGES
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(len(json.loads((latest / "report.json").read_text())["stages"]))

    reader = threading.Thread(target=read)
    reader.start()
    before = latest.resolve()
    publish(store, report, STAGES * 2)
    done.set()
    reader.join()
    assert set(seen) <= {1, 2} and seen
    assert json.loads((before / "report.json").read_text())["stages"] == STAGES  # somebody may be reading it
    monkeypatch.setattr("ivcore.verdict.publish.KEPT_S", -1)
    publish(store, report, STAGES)
    assert len(list((store.home / "reports").iterdir())) == 2  # the link and its folder


def test_publish_over_a_real_folder_and_leftovers(made, monkeypatch):
    store, report, _ = made
    monkeypatch.setattr("ivcore.verdict.publish.KEPT_S", -1)
    reports = store.home / "reports"
    publish(store, report, [])
    target = (reports / "latest").resolve()
    (reports / "latest").unlink()
    target.rename(reports / "latest")
    publish(store, report, STAGES)
    assert (reports / "latest").is_symlink() and len(list(reports.iterdir())) == 2


def test_damaged_verdict_is_one_line(tmp_path):
    store = Store(tmp_path)
    report = write(store, "report", "r", {}, {}, lambda d: (d.path / "verdict.json").write_text("{"))
    with pytest.raises(WorkError, match="cannot be read"):
        publish(store, report, [])


def test_terminal_is_short(made):
    text = terminal(made[2])
    assert "s2/match" in text and "hidden" in text and len(text.splitlines()) < 55  # two arms


def test_one_seed_one_model(tmp_path):
    store = Store(tmp_path)
    report = steps.run(steps.report(store, EVAL, build(store, ("seen",), (0,))), store)
    verdict = json.loads((report.path / "verdict.json").read_text())
    assert verdict["frozen"]["model"] == "s2" and verdict["spread"][0]["sd"] is None
    assert any(line.startswith("One seed") for line in lines(verdict))
    assert any(line.startswith("Not here: it is not shown to be ahead") for line in lines(verdict))
    assert verdict["gains"] == []
    publish(store, report, [])
    with pytest.raises(UserError, match="no scores"):
        steps.run(steps.report(store, EVAL, {}), store)


def test_strip_shrinks_large_frames():
    assert strip(np.zeros((8, 256, 256, 3), np.uint8)).startswith("data:image/png;base64,")
    assert strip(np.zeros((1, 16, 16, 3), np.uint8)) != strip(np.zeros((2, 16, 16, 3), np.uint8))


def test_a_found_report_is_published_with_the_pictures_it_has(made, monkeypatch):
    store, report = made[0], made[1]
    first = {p.name: p.read_text() for p in publish(store, report, STAGES).glob("*.svg")}
    monkeypatch.setattr("ivcore.verdict.plots.pictures", lambda found: pytest.fail("drawn again"))
    latest = publish(store, report, [])
    assert {p.name: p.read_text() for p in latest.glob("*.svg")} == first != {}


if __name__ == "__main__":  # a page to look at: python tests/ivcore/verdict/test_report.py FOLDER
    import sys

    home = Store(Path(sys.argv[1]))
    print(publish(home, steps.run(steps.report(home, EVAL, build(home)), home), STAGES))
