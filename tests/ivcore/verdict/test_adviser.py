"""The adviser: six written cases, and a proof that what it names is on the front of the rows it was given."""

import numpy as np
import pytest

from ivcore.errors import UserError
from ivcore.verdict import pareto
from ivcore.verdict.adviser import COSTS, Ask, answer
from ivcore.verdict.pareto import front


def row(model="s2", head="sim", r1=50.0, ms=1.0, **more):
    base = {
        "task": "retrieval", "arm": "main", "model": model, "size": "tiny", "head": head, "language": "en",
        "text_class": "short", "direction": "t2v", "k": None, "frames": 8, "max_text_len": 160, "dtype": "float32",
        "device": "cpu", "machine": "a box", "source": "measured", "r1": r1, "r1_ci95": [r1 - 5, r1 + 5],
        "query_ms_p50": ms, "query_ms_p95": 2 * ms, "index_bytes_per_video": 512, "peak_mb": 800.0,
        "language_trained": True, "text_class_trained": True,
    }  # fmt: skip
    return {**base, **more}


def report():
    wide = {"index_bytes_per_video": 13_000}
    rows = [
        row(r1=60.0, ms=2.0),
        row(head="match", r1=88.0, ms=30.0, k=16, **wide),
        row(model="clip", r1=71.0, ms=2.5),
        row(model="clip", r1=66.0, ms=2.5, language="zh"),
        row(r1=1.0, ms=2.0, language="zh", language_trained=False),
        row(head="match", r1=1.0, ms=30.0, language="zh", language_trained=False, k=16, **wide),
        row(head="dsl", r1=99.0, ms=0.1),
    ]
    curve = [row(head="match", r1=80.0, ms=9.0, k=4, **wide), row(head="match", r1=88.0, ms=30.0, k=16, **wide)]
    place = {"language": "en", "text_class": "short", "direction": "t2v", "seed": 0}
    pair = {"a": "s2/match", "b": "clip/sim", "arm": "main", "arm_b": "main", **place}
    sure = {"delta_r1": 17.0, "ci95": [12.0, 22.0], "is_clear": True}
    return {"rows": rows, "k_curve": curve, "paired": [{**pair, **sure}], "protocol": {"dataset": "synthetic"}}


def test_case_1_english_without_limits():
    found = answer(Ask(), report())
    assert (found.basis, found.variant["head"], found.variant["k"]) == ("measured", "match", 16)
    assert any("(at the full k): ahead of clip, +17.0 points [12.0, 22.0]" in line for line in found.because)
    assert {r["source"] for r in found.rows} == {"measured"} and not found.computed
    assert all(r["head"] != "dsl" for r in found.rows)  # a server has not all queries at once


def test_case_2_english_in_20_ms_takes_a_smaller_k():
    one = row(head="match", r1=99.0, ms=0.1, k=1, index_bytes_per_video=1)  # similarity by another name
    given = report()
    found = answer(Ask(latency_ms=20), {**given, "k_curve": [one, *given["k_curve"]]})
    assert (found.variant["head"], found.variant["k"], found.variant["query_ms_p95"]) == ("match", 4, 18.0)


def test_case_3_chinese_takes_clip_and_refuses_s2_with_the_reason():
    found = answer(Ask(languages=("en", "zh"), latency_ms=50), report())
    assert (found.variant["model"], found.variant["r1"]) == ("clip", 68.5)
    assert found.refused[0]["variant"] == "s2-tiny/sim, 8 frames, float32 of main"
    assert all("s2 was never trained on Chinese" in r["why"] for r in found.refused) and len(found.refused) == 2
    assert not any("s2" in line for line in found.because)  # it is no rival where it cannot answer


def test_case_4_a_small_index_leaves_no_room_for_tokens():
    found = answer(Ask(index_gb=1.0, videos=1_000_000), report())
    assert (found.variant["model"], found.variant["head"]) == ("clip", "sim")
    nothing = answer(Ask(index_gb=0.1, videos=1_000_000), report())
    assert nothing.variant is None and "the least measured is 0.512" in nothing.because[-1]


def test_case_5_chinese_with_a_small_published_text_tower_is_refused():
    with pytest.raises(UserError, match=r"zh: clip-S14: Chinese not supported: its text tower \(MobileCLIP\)"):
        answer(Ask(languages=("zh",), size="S14"), report())
    with pytest.raises(UserError, match="clip-1B and clip-6B read Chinese"):
        answer(Ask(languages=("zh",), size="B14"), None)


def test_case_6_where_nothing_was_measured_published_rows_say_so():
    found = answer(Ask(device="A100-40GB", latency_ms=50, memory_gb=16), report())
    assert found.basis == "published" and found.because[0].startswith("Nothing was measured")
    assert {r["source"] for r in found.rows} == {"published"} and {r["source"] for r in found.computed} == {"computed"}
    assert "nobody measured it" in found.because[-1]
    assert (found.variant["model"], found.variant["size"], found.variant["r1"]) == ("s2", "6B", 55.9)
    small = answer(Ask(device="A100-40GB", memory_gb=2), report())
    assert small.variant["size"] == "L14" and any("GB in bf16" in r["why"] for r in small.refused)
    zh = answer(Ask(languages=("zh",), device="H200"), None)
    assert (zh.variant["model"], zh.variant["size"], zh.variant["dataset"]) == ("clip", "1B", "vatex_zh")
    assert {r["variant"] for r in zh.refused} >= {"clip-S14", "s2-1B"}


def test_what_is_unknown_is_said():
    with pytest.raises(UserError, match="--task 'captioning' is not known"):
        answer(Ask(task="captioning"), None)
    long = answer(Ask(text_len=200), report())
    assert long.basis == "published"  # measured on short captions alone
    with pytest.raises(UserError, match="Spanish not supported"):
        answer(Ask(languages=("es",), device="T4"), None)
    moves = answer(Ask(task="classification"), None)
    assert moves.variant["model"] == "clip" and moves.variant["dataset"] == "kinetics400"


def test_matching_keeps_its_own_interval_beside_the_k_curve():
    given = report()
    for curve in given["k_curve"]:
        curve |= {"r1_ci95": [1.0, 2.0]}
    found = {(r["head"], r["k"]): r["r1_ci95"] for r in answer(Ask(), given).rows}
    assert found["match", 16] == [83.0, 93.0] and found["match", 4] == [1.0, 2.0]


def test_several_seeds_have_the_interval_over_them():
    given = report()
    given["rows"] += [{**given["rows"][1], "seed": 1, "r1": 84.0}]
    place = {n: given["rows"][1][n] for n in ("arm", "model", "head", "language", "text_class", "direction")}
    found = answer(Ask(), {**given, "spread": [{**place, "r1_ci95": [60.0, 99.0]}]})
    assert (found.variant["r1"], found.variant["r1_ci95"]) == (86.0, [60.0, 99.0])
    assert answer(Ask(), given).variant["r1_ci95"] is None  # an older report, without


def test_one_seed_is_said():
    seeds = [{**report(), "protocol": {"dataset": "synthetic", "seeds": some}} for some in ([0], [0, 1])]
    assert [any(x.startswith("One training run") for x in answer(Ask(), r).because) for r in seeds] == [True, False]


def test_what_does_not_clear_chance_is_said():
    poor = row(r1=1.0, r1_ci95=[0.2, 3.0], chance=0.5)
    assert (
        "It is not shown to find more than guessing would: [0.2, 3.0], guessing 0.5."
        in answer(Ask(), {"rows": [poor]}).because
    )
    assert not any("guessing" in x for x in answer(Ask(), {"rows": [{**poor, "r1_ci95": [0.6, 3.0]}]}).because)


@pytest.mark.parametrize("seed", range(60))
def test_the_answer_is_on_the_front_of_the_rows_given(seed):
    rng = np.random.default_rng(seed)
    made = rng.integers([0, 1, 1, 1], 6, (rng.integers(1, 25), 4)).tolist()  # few values: ties are common
    ms, index, memory = (None if rng.random() < 0.4 else int(rng.integers(0, 6)) for _ in range(3))
    rows = [row(r1=a, ms=b / 2, index_bytes_per_video=c, peak_mb=d, arm=f"a{n}") for n, (a, b, c, d) in enumerate(made)]
    ask = Ask(latency_ms=ms, index_gb=index, videos=10**9, memory_gb=None if memory is None else memory / 1e3)
    found = answer(ask, {"rows": rows, "paired": []})
    keeps = [
        r
        for r in rows
        if (ms is None or r["query_ms_p95"] <= ms)
        and (index is None or r["index_bytes_per_video"] <= index)
        and (memory is None or r["peak_mb"] <= memory)
    ]
    assert (found.variant is None) == (not keeps)
    if found.variant is not None:
        (mine,) = (r for r in rows if r["arm"] == found.variant["arm"])
        assert mine in keeps and found.variant in found.front and mine["r1"] == max(r["r1"] for r in keeps)
        assert not any(  # nobody, kept or not, is nowhere worse and somewhere better
            r["r1"] >= mine["r1"] and all(r[n] <= mine[n] for n in COSTS) and (r["r1"], *map(r.get, COSTS)) != (
                mine["r1"], *map(mine.get, COSTS))
            for r in rows
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_front_against_the_definition(seed):
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 5, (rng.integers(0, 20), 3)).tolist()
    rows = [{"n": n, "r1": a, "query_ms_p95": b, "index_bytes_per_video": c} for n, (a, b, c) in enumerate(made)]

    def beats(x, y):
        less = ("query_ms_p95", "index_bytes_per_video")
        nowhere_worse = x["r1"] >= y["r1"] and all(x[k] <= y[k] for k in less)
        return nowhere_worse and any(x[k] != y[k] for k in ("r1", *less))

    kept = front(rows)
    figures = {tuple(list(r.values())[1:]) for r in rows if not any(beats(x, r) for x in rows)}
    assert {tuple(list(r.values())[1:]) for r in kept} == figures and len(kept) == len(figures)
    assert front([*rows, {"r1": 9, "query_ms_p95": None, "index_bytes_per_video": 0}]) == kept


def test_k_of_one_is_on_no_front():
    """It costs what matching costs and answers what similarity answers; a noisy clock may call it the quicker."""
    same = {"dataset": "d", "language": "en", "text_class": "short", "direction": "t2v", "arm": "main", "model": "s2"}
    same |= {"trained": True, "index_bytes_per_video": 1, "r1_low": 0.0, "r1_high": 1.0}
    cells = [
        {**same, "head": "sim", "k": None, "r1": 90.0, "query_ms_p95": 3.0},
        {**same, "head": "match", "k": 1, "r1": 90.0, "query_ms_p95": 2.0},
        {**same, "head": "match", "k": 4, "r1": 80.0, "query_ms_p95": 1.0},
    ]
    assert [(c["head"], c["k"]) for c in pareto.variants(cells) if c["on_front"]] == [("sim", None), ("match", 4)]
