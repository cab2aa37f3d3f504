"""Where the differences come from, in words: what time buys, what k buys, which errors go, where clip wins."""

from typing import Any

from ivcore.metrics.terms import DIRECTIONS, NAMES, Row, kind, shared, signed, untrained

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
            does = (
                f"Re-scoring brings less than {NEAR:.0f} point here."
                if best > rows[0]["r1"]
                else "Re-scoring brings nothing here."
            )
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
            out.append(f"{words}, what matching changes: {moved}.")
    return [TWIN] * any("twins" in line for line in out) + out


def of_clip(verdict: Verdict, pooled: list[Row], arm: str) -> list[str]:
    """Kinds of query in which clip is shown to be ahead of s2 with matching (or, without it, by similarity)."""
    never = untrained(verdict["rows"])
    heads = {f"{r['model']}/{r['head']}" for r in verdict["rows"] if r["arm"] == arm}
    rival = "s2/match" if "s2/match" in heads else "s2/sim"
    if not {rival, "clip/sim"} <= heads:
        return []
    wins, asked = [], 0
    for p in pooled:
        if p["arm"] != arm or p["arm_b"] != arm or {p["a"], p["b"]} != {rival, "clip/sim"}:
            continue
        if any((arm, model, p["language"], p["text_class"]) in never for model in ("s2", "clip")):
            continue
        asked += 1
        delta, (low, high) = signed(p, "clip/sim")
        if p["is_clear"] and delta > 0:
            where = f"{kind(p['language'], p['text_class'])}, {DIRECTIONS[p['direction']]}"
            wins.append(f"{where} {delta:+.1f} [{low:.1f}, {high:.1f}]")
    if not asked:
        return [f"Not known: there is no kind of query that both clip and {NAMES[rival]} were trained on."]
    told = f"of the {asked} kinds of query (language, length, direction) that both were trained on, clip is shown to be"
    told = f"{told} ahead of {NAMES[rival]} in {len(wins) or 'none'}{': ' + '; '.join(wins) if wins else ''}."
    alone = [
        f"{kind(lang, length)}"
        for a, m, lang, length in sorted(never)
        if (a, m) == (arm, "s2") and (a, "clip", lang, length) not in never
    ]
    return [told[0].upper() + told[1:]] + ([f"clip alone was trained on {'; '.join(alone)}."] if alone else [])


def of_negatives(verdict: Verdict, arm: str) -> list[str]:
    """Whom the losses saw as wrong partners, phase by phase; the sign of matching's gain follows that."""
    told = [
        f"{n['model']} {n['phase']} ({n['batches']}): contrast {n['contrast']}, matching {n['matching']}"
        for n in verdict["negatives"]
        if n["arm"] == arm and (arm, n["model"]) not in shared(verdict)
    ]
    condition = verdict["protocol"]["conditions"].get(arm) if (arm, "s2") not in shared(verdict) else None
    return ([f"In short: {condition}."] if condition else []) + ([f"By phase: {'; '.join(told)}."] if told else [])
