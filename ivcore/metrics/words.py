"""The verdict in plain words: who is ahead, how sure, what matching adds and when, what it costs.

Nothing is called a difference whose interval holds 0; then it says how large one would have had to be to be seen.
"""

from typing import Any

from ivcore.metrics.verdict import pooled

DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}
LANGUAGES = {"en": "English", "zh": "Chinese", "es": "Spanish"}
NAMES = {"s2/match": "s2 with matching", "s2/sim": "s2 by similarity", "clip/sim": "clip"}

Verdict = dict[str, Any]


def main_place(verdict: Verdict) -> tuple[str, str]:
    """The (language, class) that the summary speaks of: the first one scored."""
    row = verdict["rows"][0]
    return row["language"], row["text_class"]


def place_words(language: str, text_class: str) -> str:
    """English, short captions."""
    return f"{LANGUAGES.get(language, language)}, {text_class} captions"


def summary(verdict: Verdict) -> list[str]:
    """Sentences, the most important first."""
    language, text_class = main_place(verdict)
    here = [p for p in pooled(verdict["paired"]) if (p["language"], p["text_class"]) == (language, text_class)]
    spread = [s for s in verdict["spread"] if (s["language"], s["text_class"]) == (language, text_class)]
    arms = list(dict.fromkeys(s["arm"] for s in spread))
    several = len(arms) > 1
    out = [f"R@1 on the {verdict['protocol']['split']} split, {place_words(language, text_class)}. 95 % in brackets."]
    for arm in arms:
        start = f"Arm {arm}: " if several else ""
        out.append(start + "; ".join(_standing(spread, arm, d) for d in DIRECTIONS) + ".")
        for p in here:
            if p["arm"] == p["arm_b"] == arm and (p["a"], p["b"]) != ("s2/match", "s2/sim"):
                out.append(start + difference(p))
        gains = [p for p in here if p["arm"] == p["arm_b"] == arm and (p["a"], p["b"]) == ("s2/match", "s2/sim")]
        out += [start + "What matching adds, " + difference(p) for p in gains]
        if gains:
            out.append(f"{start}Condition of that: {gains[0]['condition']}.")
    out += _controls(here, spread, arms)
    out += _cost(verdict, spread, arms)
    seeds = verdict["protocol"]["seeds"]
    if len(seeds) == 1:
        out.append("One seed: the intervals cover the choice of test clips, not another training run: --seeds.")
    else:
        out.append(
            f"{len(seeds)} seeds: pooled intervals cover the choice of test clips; how runs differ is in the spread."
        )
    return out


def difference(p: dict[str, Any]) -> str:
    """One paired row as a sentence that claims no more than its interval allows."""
    a, b = (_name(p[x], arm if p["arm"] != p["arm_b"] else "") for x, arm in (("a", p["arm"]), ("b", p["arm_b"])))
    where, (low, high) = DIRECTIONS[p["direction"]], p["ci95"]
    numbers = f"{p['delta_r1']:+.1f} points [{low:.1f}, {high:.1f}]"
    seeds = ""
    if len(p["by_seed"]) > 1:
        alike = sum((x > 0) == (p["delta_r1"] > 0) and x != 0 for x in p["by_seed"])
        seeds = f", the same sign in {alike} of {len(p['by_seed'])} seeds"
    if not p["is_clear"]:
        return (
            f"{where}: no difference shown between {a} and {b} ({numbers}{seeds}); "
            f"one of {p['smallest_detectable']:.1f} points would have been seen four times in five."
        )
    ahead, behind = (a, b) if p["delta_r1"] > 0 else (b, a)
    return f"{where}: {ahead} is ahead of {behind} ({numbers}{seeds})."


def _name(head: str, arm: str) -> str:
    return NAMES.get(head, head) + (f" of {arm}" if arm else "")


def _standing(spread: list[dict[str, Any]], arm: str, direction: str) -> str:
    """Where every head stands, best first."""
    mine = [s for s in spread if (s["arm"], s["direction"]) == (arm, direction) and s["head"] != "dsl"]
    told = [
        f"{s['model']}/{s['head']} {s['r1']:.1f} [{s['r1_ci95'][0]:.1f}, {s['r1_ci95'][1]:.1f}]"
        for s in sorted(mine, key=lambda s: -s["r1"])
    ]
    return f"{DIRECTIONS[direction]} {', '.join(told)}"


def _controls(here: list[dict[str, Any]], spread: list[dict[str, Any]], arms: list[str]) -> list[str]:
    """Where matching beats its own arm's similarity: does it also beat the best similarity of any arm?"""
    out = []
    for arm, direction in ((a, d) for a in arms for d in DIRECTIONS):
        own = [
            p
            for p in here
            if (p["arm"], p["arm_b"], p["a"], p["b"], p["direction"]) == (arm, arm, "s2/match", "s2/sim", direction)
        ]
        if not (own and own[0]["is_clear"] and own[0]["delta_r1"] > 0):
            continue
        sims = [s for s in spread if (s["model"], s["head"], s["direction"]) == ("s2", "sim", direction)]
        best = max(sims, key=lambda s: s["r1"])["arm"]
        ends = {(arm, "s2/match"), (best, "s2/sim")}
        for p in here:
            if p["direction"] == direction and {(p["arm"], p["a"]), (p["arm_b"], p["b"])} == ends and best != arm:
                out.append(f"Control, the best similarity of any arm, {difference(p)}")
    return out


def _cost(verdict: Verdict, spread: list[dict[str, Any]], arms: list[str]) -> list[str]:
    """What a query and an index cost by head, and what training did."""
    out = []
    by = {
        (s["model"], s["head"]): s
        for s in spread
        if s["arm"] == arms[0] and s["direction"] == "t2v" and s["query_ms_p50"]
    }
    match, sim = by.get(("s2", "match")), by.get(("s2", "sim"))
    if match and sim:
        ms, flop, kib = (
            [x["query_ms_p50"] for x in (match, sim)],
            [x["query_gflop"] for x in (match, sim)],
            [x["index_bytes_per_video"] / 1024 for x in (match, sim)],
        )
        out.append(
            f"A text query of s2 takes {ms[0]:.1f} ms with matching of {verdict['protocol']['k']} candidates and "
            f"{ms[1]:.1f} ms without ({flop[0]:.3g} against {flop[1]:.3g} GFLOP); "
            f"the index holds {kib[0]:.1f} KiB a video instead of {kib[1]:.1f}."
        )
    if clip := by.get(("clip", "sim")):
        out.append(
            f"clip takes {clip['query_ms_p50']:.1f} ms a text query and "
            f"{clip['index_bytes_per_video'] / 1024:.1f} KiB a video."
        )
    train = {r["model"]: r for r in verdict["rows"] if r["arm"] == arms[0]}
    if {"s2", "clip"} <= set(train) and train["clip"]["train_own_cpu_s"]:
        own, base = train["clip"]["train_own_cpu_s"], train["s2"]["train_cpu_s"]
        out.append(f"Training took {base:.0f} CPU seconds for s2, and {own:.0f} more for clip on top of s2's trunk.")
    untrained = sorted({(r["model"], r["language"]) for r in verdict["rows"] if r["language_trained"] is False})
    if untrained:
        told = ", ".join(f"{m} {LANGUAGES.get(lang, lang)}" for m, lang in untrained)
        out.append(f"Never trained on, so read these rows as such: {told}.")
    return out
