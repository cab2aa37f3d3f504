"""Which variant to take for each kind of query, and how sure that is: the paired differences read as a choice.

A kind of query is a language and a caption length. A variant is unbeaten in a kind when no other one is shown to be
ahead of it in either direction; that is not the same as being the best, and the words never say more.
"""

import statistics
from typing import Any

VARIANTS = ("s2/sim", "s2/match", "s2/fused", "clip/sim")  # dsl wants all queries at once, so it is nothing to take
DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}
LANGUAGES = {"en": "English", "zh": "Chinese", "es": "Spanish"}
NAMES = {
    "s2/match": "s2 with matching",
    "s2/sim": "s2 by similarity",
    "s2/fused": "s2 with both scores",
    "clip/sim": "clip",
}

Row = dict[str, Any]


def kind(language: str, text_class: str) -> str:
    """English, short captions."""
    return f"{LANGUAGES.get(language, language)}, {text_class} captions"


def choices(spread: list[Row], pooled: list[Row], task: str = "retrieval") -> list[Row]:
    """One row an arm, language and caption length: the best variant by R@1 of both directions, and why.

    Args:
        pooled: paired rows over all seeds.
    """
    out = []
    for arm, language, text_class in dict.fromkeys((s["arm"], s["language"], s["text_class"]) for s in spread):
        here = [s for s in spread if (s["arm"], s["language"], s["text_class"]) == (arm, language, text_class)]
        r1 = {v: [s["r1"] for s in here if f"{s['model']}/{s['head']}" == v] for v in VARIANTS}
        r1 = {v: values for v, values in r1.items() if values}
        pairs = [p for p in pooled if p["arm"] == p["arm_b"] == arm]
        pairs = [p for p in pairs if (p["language"], p["text_class"]) == (language, text_class)]
        best = max(r1, key=lambda v: statistics.mean(r1[v]))
        behind = {p["b" if p["delta_r1"] > 0 else "a"] for p in pairs if p["is_clear"]}
        told = [_against(pairs, best, other) for other in r1 if other != best]
        out.append(
            {
                "task": task,
                "arm": arm,
                "language": language,
                "text_class": text_class,
                "variant": best,
                "unbeaten": [v for v in r1 if v not in behind],
                "because": "; ".join(t for t in told if t) or "the only variant scored",
            }
        )
    return out


def _against(pairs: list[Row], one: str, other: str) -> str:
    """How `one` stands to `other` in both directions, with the intervals."""
    parts: dict[str, list[str]] = {}
    for p in pairs:
        if {p["a"], p["b"]} != {one, other}:
            continue
        delta, (low, high) = signed(p, one)
        state = "no difference shown from" if not p["is_clear"] else "ahead of" if delta > 0 else "behind"
        parts.setdefault(state, []).append(f"{DIRECTIONS[p['direction']]} {delta:+.1f} [{low:.1f}, {high:.1f}]")
    return "; ".join(f"{state} {NAMES[other]} ({', '.join(told)})" for state, told in parts.items())


def signed(p: Row, ahead: str) -> tuple[float, tuple[float, float]]:
    """Difference and interval of a paired row, seen from variant `ahead`."""
    low, high = p["ci95"]
    values = (p["delta_r1"], low, high) if p["a"] == ahead else (-p["delta_r1"], -high, -low)
    delta, low, high = (round(v, 1) + 0.0 for v in values)  # no -0.0
    return delta, (low, high)


def untrained(rows: list[Row]) -> set[tuple[str, str, str, str]]:
    """(arm, model, language, caption length) that a model was scored on and never trained on."""
    never = [r for r in rows if r["language_trained"] is False or r["text_class_trained"] is False]
    return {(r["arm"], r["model"], r["language"], r["text_class"]) for r in never}


def headline(verdict: dict[str, Any], pooled: list[Row], arm: str) -> list[str]:
    """Sentences on what to take in an arm, the first one the verdict; silent on what the model never trained on."""
    rows, spread, never = verdict["advice"], verdict["spread"], untrained(verdict["rows"])
    mine = [r for r in rows if r["arm"] == arm]
    scored = {f"{s['model']}/{s['head']}" for s in spread if s["arm"] == arm} & set(VARIANTS)
    if len(scored) < 2:
        return [f"{NAMES[v]} is the only variant scored; there is nothing to choose." for v in scored]
    mean = {
        v: statistics.mean(s["r1"] for s in spread if s["arm"] == arm and f"{s['model']}/{s['head']}" == v)
        for v in scored
    }
    safe = {v: [r for r in mine if v in r["unbeaten"]] for v in scored}
    take = max(sorted(scored), key=lambda v: (len(safe[v]), mean[v]))
    alone = [r for r in safe[take] if r["unbeaten"] == [take]]
    rest = [r for r in mine if take not in r["unbeaten"]]
    out = [
        f"Take {NAMES[take]}. In {len(alone)} of {len(mine)} kinds of query (language and caption length) it is shown "
        f"to be ahead of every other variant; in {len(rest) or 'none'} another is shown to be ahead of it."
        if alone
        else f"Not decided. {NAMES[take]} comes out best over the {len(mine)} kinds of query (language and caption "
        "length), but in none of them is it shown to be ahead of every other variant."
    ]
    for r in mine:
        where = kind(r["language"], r["text_class"])
        if r in rest:
            out.append(f"Not for {where}: there take {NAMES[r['variant']]}, {r['because']}.")
        elif alone and r not in alone and (arm, take.partition("/")[0], r["language"], r["text_class"]) not in never:
            pairs = [p for p in pooled if p["arm"] == p["arm_b"] == arm]
            pairs = [p for p in pairs if (p["language"], p["text_class"]) == (r["language"], r["text_class"])]
            even = [_against(pairs, take, other) for other in r["unbeaten"] if other != take]
            out.append(f"{where}: {'; '.join(even)}.")
    return out
