"""What the headline says to take: of what is shown, what stands alone, what is open, and what cannot be told."""

import numpy as np

from benchmarks.trust import Design, trials
from ivcore.verdict import choice, labels, tables


def told(r1: dict, pairs: dict, trained=("en", "zh"), also=(), **more) -> list[str]:
    """The headline over text queries: r1 by variant, and by language the (delta, low, high) of the two.

    trained: languages that both know; also: a model and one more language that it knows; more: of every row.
    """

    def place(language):
        return {"arm": "main", "language": language, "text_class": "short", "direction": "t2v"}

    rows = [
        {**place(lang), "task": "retrieval", "model": v.split("/")[0], "head": v.split("/")[1], "r1": value, "k": None,
         "size": "tiny", "frames": 8, "dtype": "float32", "device": "cpu", "machine": "m", "max_text_len": 32,
         "query_ms_p50": 1.0, "query_ms_p95": 1.0, "index_bytes_per_video": 1, "peak_mb": 1.0, "source": "measured",
         "language_trained": lang in trained or (v.split("/")[0], lang) == also, "text_class_trained": True,
         "dataset": "d", **more}
        for lang in pairs for v, value in r1.items()
    ]  # fmt: skip
    a, b = r1
    table = [
        {**place(lang), "arm_b": "main", "seed": 0, "a": a, "b": b, "delta_r1": delta, "ci95": [low, high]}
        | {"is_clear": low > 0 or high < 0}
        for lang, (delta, low, high) in pairs.items()
    ]
    found = {"rows": rows, "paired": table, "protocol": {"arms": ["main"], "dataset": "d", "k": 16}}
    return choice.headline({**found, "advice": choice.advice(found, table)}, table)


def test_take_is_said_only_of_what_is_shown():
    r1 = {"s2/match": 50.0, "clip/sim": 40.0}
    sure = told(r1, {"en": (10.0, 4.0, 16.0)})
    kinds = "English, short captions (text to video)"
    assert sure == [f"Take s2 with matching for {kinds}: ahead of clip (text to video +10.0 [4.0, 16.0])."]
    even = "no difference shown from clip (text to video +10.0 [-4.0, 24.0])."
    assert told(r1, {"en": (10.0, -4.0, 24.0)}) == [f"Not decided for {kinds}: s2 with matching is best, {even}"]
    both = told(r1, {"en": (10.0, 4.0, 16.0), "zh": (5.0, 1.0, 9.0)})
    assert both[0] == f"Take s2 with matching for {kinds}; Chinese, short captions (text to video)."
    assert both[2] == "Chinese, short captions (text to video): ahead of clip (text to video +5.0 [1.0, 9.0])."
    lost = {"a": "clip/sim", "b": "s2/match", "delta_r1": 10.0, "ci95": [4.0, 16.0]}
    assert labels.signed(lost, "s2/match") == (-10.0, (-16.0, -4.0))


def test_between_arms_and_k_of_one():
    place = {"language": "en", "text_class": "short", "direction": "t2v"}
    row = {**place, "task": "retrieval", "dataset": "d", "model": "clip", "head": "sim", "k": None, "size": "tiny"}
    row |= {"frames": 8, "dtype": "float32", "device": "cpu", "machine": "m", "max_text_len": 32, "source": "measured"}
    row |= {"language_trained": True, "text_class_trained": True, "index_bytes_per_video": 1, "peak_mb": 1.0}
    rows = [
        {**row, "arm": arm, "r1": r1, "query_ms_p50": 1.0, "query_ms_p95": 1.0}
        for arm, r1 in (("a", 40.0), ("b", 50.0))
    ]
    pair = {**place, "arm": "a", "arm_b": "b", "a": "clip/sim", "b": "clip/sim", "seed": 0, "delta_r1": -10.0}
    pair |= {"ci95": [-16.0, -0.4], "is_clear": True}

    def said(rows, pairs):
        found = {"rows": rows, "paired": pairs, "protocol": {"arms": ["a", "b"], "dataset": "d", "k": 1}}
        return choice.headline({**found, "advice": choice.advice(found, pairs)}, pairs)

    kinds = "English, short captions (text to video)"
    ahead = "ahead of clip of a (text to video +10.0 [0.4, 16.0])"
    assert said(rows, [pair]) == [f"Take clip of arm b for {kinds}: {ahead}."]
    assert said(rows, [{**pair, "is_clear": False}])[0].startswith(f"Not decided for {kinds}: clip of arm b is best")
    assert said(rows, []) == [f"Not decided for {kinds}: clip of arm b is best, not compared with clip of a."]
    one = {**rows[1], "model": "s2", "head": "match", "k": 1}
    alone = f"Take s2 by similarity of arm b for {kinds}: no other variant was trained on it."
    assert said([{**rows[1], "model": "s2"}, one], []) == [alone]


def test_the_verdict_is_silent_on_what_a_model_never_read():
    both = {"en": (10.0, 4.0, 16.0), "zh": (0.0, -3.0, 16.0)}
    r1 = {"s2/match": 50.0, "clip/sim": 40.0}
    (shown, open_) = told(r1, both)
    assert shown.startswith("Take s2 with matching for English") and open_.startswith("Not decided for Chinese")
    assert told(r1, both, trained=("en",)) == [shown]
    assert told(r1, both, trained=()) == ["Not decided. Nothing that was measured was trained on these queries."]
    taught = told(r1, both, trained=("en",), also=("clip", "zh"))
    assert taught[1] == "Take clip for Chinese, short captions (text to video): no other variant was trained on it."


def test_too_few_families_are_a_state_of_their_own():
    kinds = "English, short captions (text to video)"
    r1, sure = {"s2/match": 50.0, "clip/sim": 40.0}, {"en": (10.0, 4.0, 16.0)}
    few = [
        f"Not decided for {kinds}: 5 families of test clips are too few to tell, 6 at least; s2 with matching is best."
    ]
    assert told(r1, sure, families=5) == few
    assert told(r1, sure, families=6)[0].startswith("Take s2 with matching")


def test_nothing_is_taken_that_does_not_clear_chance():
    kinds = "English, short captions (text to video)"
    r1, sure = {"s2/match": 0.7, "clip/sim": 0.0}, {"en": (0.7, 0.1, 2.0)}
    nothing = told(r1, sure, r1_ci95=[0.1, 2.4], chance=0.3333)
    assert nothing == [
        f"Nothing to take for {kinds}: the best, s2 with matching, is not shown to find more than guessing "
        "(0.7 [0.1, 2.4], guessing 0.3)."
    ]
    assert told(r1, sure, r1_ci95=[0.4, 2.4], chance=0.3333)[0].startswith("Take s2 with matching")


def test_being_alone_is_no_reason_to_take_what_finds_nothing():
    r1, pairs = {"s2/match": 50.0, "clip/sim": 0.7}, {"zh": (49.0, 40.0, 60.0)}
    alone = told(r1, pairs, trained=(), also=("clip", "zh"), r1_ci95=[0.1, 2.4], chance=0.3333)
    assert alone[0].startswith("Nothing to take for Chinese, short captions (text to video): the best, clip, is not")
    found = told(r1, pairs, trained=(), also=("clip", "zh"), r1_ci95=[30.0, 40.0], chance=0.3333)
    assert found == ["Take clip for Chinese, short captions (text to video): no other variant was trained on it."]


def test_of_equal_recipes_over_three_seeds_almost_none_is_taken():
    """Clips pooled over seeds as if training did not vary took one of them in more than a quarter of such reports."""
    place, heads = ("en", "short", "t2v"), (("s2", "match"), ("clip", "sim"))
    taken = 0
    for a, b, family, run in trials(Design(75, 4, runs=3, moves=4), 100):
        found = {}
        for seed in range(3):
            for head, right in zip(heads, (a, b)):
                here = run == seed
                rank = np.where(right[here], 1, 2)
                query = np.arange(len(rank)).astype(str)
                found["main", seed, head, place] = tables.Outcome(query, rank, family[here], *(rank,) * 5)
        pooled = labels.pooled(tables.paired([], found))
        ((delta, low, high, clear),) = {(p["delta_r1"], *p["ci95"], p["is_clear"]) for p in pooled}
        r1 = {"s2/match": 50 + delta, "clip/sim": 50.0} if delta > 0 else {"s2/match": 50.0, "clip/sim": 50 - delta}
        said = told(r1, {"en": (delta, low, high)})
        assert said[0].startswith("Take") == clear
        taken += clear
    assert taken <= 5
