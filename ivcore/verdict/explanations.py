"""Where the differences come from, in words: what time buys, what k buys, which errors go, where clip wins."""

from typing import Any

from ivcore.verdict.labels import (
    DIRECTIONS,
    NAMES,
    Row,
    kind,
    shared,
    signed,
    untrained,
)

SHOWN = 6  # points of a front or a curve that a sentence names
NEAR = 1.0  # points of R@1: a smaller k this close to the best is said to do
ERRORS = {"twin": "twins", "near_duplicate": "near-duplicates", "other": "others"}
TWIN = "A twin of a clip is the same scene with a swap."
Verdict = dict[str, Any]


def within_a_time(verdict: Verdict, language: str, text_class: str) -> list[str]:
    """The front of text queries: each point is the best there is for its time and bytes."""
    rows = [
        a
        for a in verdict["advice"]
        if (a["language"], a["text_class"], a["direction"]) == (language, text_class, "t2v")
    ]
    front = sorted((f for a in rows for f in a["front"] if f["query_ms_p95"]), key=lambda f: f["query_ms_p95"])
    if not front:
        return []
    step = -(-len(front) // SHOWN)
    if len(front) == 1:
        only = _point(front[0], verdict)
        return [
            f"At the 95th percentile of a text query: {only}. Nothing measured finds more, is quicker or is smaller."
        ]
    told = [_point(f, verdict) for f in [*front[:-1:step], front[-1]]]
    return [
        f"At the 95th percentile of a text query: {'; '.join(told)}. "
        "Nothing measured is at least as good, as quick and as small as one of these."
    ]


def _point(f: Row, verdict: Verdict) -> str:
    name = NAMES[f"{f['model']}/{f['head']}"] + (f" at k = {f['k']}" if f["k"] else "")
    arm = f" of {f['arm']}" if len(verdict["protocol"]["arms"]) > 1 else ""
    return f"{f['query_ms_p95']:.1f} ms {name}{arm}, R@1 {f['r1']:.1f}"


def of_k(verdict: Verdict, language: str, text_class: str, arm: str) -> list[str]:
    """What more candidates bring, and from where on they bring little."""
    out = []
    for direction, words in DIRECTIONS.items():
        spot = (arm, language, text_class, direction)
        rows = [r for r in verdict["k_curve"] if (r["arm"], r["language"], r["text_class"], r["direction"]) == spot]
        rows = sorted(rows, key=lambda r: r["k"])
        if len(rows) < 2 or (arm, "s2") in shared(verdict):
            continue
        best = max(r["r1"] for r in rows)
        enough = next(r for r in rows if r["r1"] >= best - NEAR)
        told = ", ".join(f"{r['r1']:.1f} at {r['k']}" for r in rows[1:])
        does = f"k = {enough['k']} is within {NEAR:.0f} point of the best{_times(enough, rows[-1])}."
        if enough["k"] == 1:
            does = f"Re-scoring brings {f'less than {NEAR:.0f} point' if best > rows[0]['r1'] else 'nothing'} here."
        if rows[-1]["is_clear"] and rows[-1]["gain"] < 0:
            low, high = rows[-1]["gain_ci95"]
            does = f"Re-scoring {rows[-1]['k']} makes it worse: {rows[-1]['gain']:+.1f} points [{low:.1f}, {high:.1f}]."
        out.append(f"{words}: R@1 {rows[0]['r1']:.1f} by similarity alone (k = 1), {told}. {does}")
    return out


def _times(one: Row, full: Row) -> str:
    ms = [r["query_ms_p50"] for r in (one, full)]
    return f" and takes {ms[0]:.1f} ms, k = {full['k']} takes {ms[1]:.1f}" if None not in ms and one is not full else ""


def of_errors(verdict: Verdict, language: str, text_class: str, arm: str) -> list[str]:
    """What stands first where it is wrong, before and after matching, and for clip."""
    out = []
    for direction, words in DIRECTIONS.items():
        spot = (arm, language, text_class, direction)
        rows = {
            f"{e['model']}/{e['head']}": e
            for e in verdict["errors"]
            if (e["arm"], e["language"], e["text_class"], e["direction"]) == spot
            and e["head"] != "dsl"
            and (arm, e["model"]) not in shared(verdict)
        }
        if not rows:
            continue
        kinds = [k for k in ERRORS if any(e[k] for e in rows.values())]
        told = [
            f"{NAMES[name]} {' and '.join(f'{e[k]:.1f} {ERRORS[k]}' for k in kinds)}"
            for name, e in rows.items()
            if kinds
        ]
        if told:
            out.append(f"{words}, wrong ones of 100 first answers: {'; '.join(told)}.")
        if {"s2/sim", "s2/match"} <= rows.keys() and kinds:
            change = {k: rows["s2/match"][k] - rows["s2/sim"][k] for k in kinds}
            moved = ", ".join(f"{ERRORS[k]} {change[k]:+.1f}" for k in kinds)
            out.append(f"{words}, wrong first answers that matching adds (+) or takes away (-), of 100: {moved}.")
    return [TWIN] * any("twins" in line for line in out) + out


def of_clip(verdict: Verdict, pooled: list[Row], arm: str) -> list[str]:
    """Kinds of query in which clip is shown to be ahead of s2: of similarity or matching, whichever has more there."""
    never = untrained(verdict["rows"])
    r1 = {(s["model"], s["head"], s["language"], s["text_class"], s["direction"]): s["r1"] for s in verdict["spread"]
          if s["arm"] == arm}  # fmt: skip
    wins, asked = [], 0
    for p in pooled:
        rival = next(iter({p["a"], p["b"]} - {"clip/sim"}), "")
        if p["arm"] != arm or p["arm_b"] != arm or "clip/sim" not in (p["a"], p["b"]) or not rival.startswith("s2/"):
            continue
        if any((arm, model, p["language"], p["text_class"]) in never for model in ("s2", "clip")):
            continue
        spot = (p["language"], p["text_class"], p["direction"])
        of_s2 = {head: value for (model, head, *at), value in r1.items() if model == "s2" and tuple(at) == spot}
        if rival != f"s2/{max((h for h in of_s2 if h != 'dsl'), key=of_s2.__getitem__)}":
            continue
        asked += 1
        delta, (low, high) = signed(p, "clip/sim")
        if p["is_clear"] and delta > 0:
            where = f"{kind(p['language'], p['text_class'])}, {DIRECTIONS[p['direction']]}"
            wins.append(f"{where} {delta:+.1f} [{low:.1f}, {high:.1f}] ({NAMES[rival]})")
    if not {"s2", "clip"} <= {model for model, *_ in r1}:
        return []
    best = "s2, by the better of its ways,"
    told = f"of the {asked} kinds of query (language, length, direction) that both were trained on, clip is shown to be"
    told = f"{told} ahead of {best} in {len(wins) or 'none'}{': ' + '; '.join(wins) if wins else ''}."
    alone = [
        f"{kind(lang, length)}"
        for a, m, lang, length in sorted(never)
        if (a, m) == (arm, "s2") and (a, "clip", lang, length) not in never
    ]
    return [told[0].upper() + told[1:]] + ([f"clip alone was trained on {'; '.join(alone)}."] if alone else [])


def of_negatives(verdict: Verdict, arm: str) -> list[str]:
    """Who learned from hard negatives; the sign of matching's gain follows that. By phase it is in a table."""
    condition = verdict["protocol"]["conditions"].get(arm) if (arm, "s2") not in shared(verdict) else None
    return [f"{condition[0].upper()}{condition[1:]}."] if condition else []


def of_contest(verdict: Verdict, arm: str) -> list[str]:
    """Where the contrast of one model was trained on harder batches than the other's."""
    hard: dict[str, set[str]] = {"s2": set(), "clip": set()}
    for n in verdict["negatives"]:
        seen = n["contrast"] != "off" and not ("scenes" in n["batches"] and "same scene" in n["contrast"])
        if n["arm"] == arm and seen:
            hard[n["model"]].add(n["batches"].partition(" in ")[0])  # without the share
    easy = {"random clips"}
    for one, other in (("s2", "clip"), ("clip", "s2")):
        if hard[other] == easy and (more := sorted(hard[one] - easy)):
            return [
                f"{one}'s contrast was also trained on batches of {' and '.join(more)}, {other}'s on random clips "
                f"alone: a lead of {one} over {other} may come from that."
            ]
    return []
