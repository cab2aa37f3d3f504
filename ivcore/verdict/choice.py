"""Which variant to take for each kind of query: the adviser's answers to the report's own rows, and how sure they are.

A kind of query is a language, a caption length and a direction. A variant is unbeaten in a kind when no other one of
its arm that was trained on it is shown to be ahead; one of another arm, when the answer is not shown to be ahead of it.
That is not the same as being the best, and the words say no more. Nothing is taken of too few families, nor what is not
shown to find more than guessing would.
"""

from collections.abc import Mapping
from typing import Any

from ivcore.datasets.text_length import SHORT
from ivcore.errors import UserError
from ivcore.retrieval.stats import FEW
from ivcore.verdict.adviser import Answer, Ask, answer, clears_chance
from ivcore.verdict.labels import (
    DIRECTIONS,
    NAMES,
    VARIANTS,
    Row,
    against,
    kind,
    untrained,
)

PLACE = ("dataset", "language", "text_class")
KIND = (*PLACE, "direction")
FRONT = ("arm", "model", "head", "k", "frames", "dtype", "r1", "query_ms_p95", "index_bytes_per_video")
ORDER = ("shown", "alone", "open", "few", "chance")  # from decided to nothing to decide
SAID = {
    "shown": "Take {} for {}",
    "open": "Not decided for {1}: {0} is best",
}
ABOUT = ("arm", "size", "k", "frames", "dtype", "r1", "r1_ci95", "chance", "families", "query_ms_p95")


def advice(found: Mapping[str, Any], pooled: list[Row]) -> list[Row]:
    """One row a kind of query: what `iv advise` answers from these rows without limits; variant null: nothing can.

    Args:
        found: rows, k_curve, paired and protocol of the report.
        pooled: paired rows over all seeds.
    """
    out, several = [], len({r["dataset"] for r in found["rows"]}) > 1
    for task, *at in dict.fromkeys((r["task"], *(r[n] for n in KIND)) for r in found["rows"]):
        dataset, language, text_class, direction = at
        # A short text that every variant reads whole; of the long ones the shortest.
        read = min((r["max_text_len"] or SHORT for r in found["rows"]), default=SHORT)
        ask = Ask(
            task, (language,), min(SHORT, read) if text_class == "short" else SHORT + 1, direction, dataset=dataset
        )
        try:
            said = answer(ask, found)
        except UserError:  # nothing reads this language
            said = Answer()
        best = said.variant if said.basis == "measured" else None
        variant = f"{best['model']}/{best['head']}" if best else None
        pairs = here(pooled, best["arm"], *at[1:]) if best else []
        behind = {p["b" if p["delta_r1"] > 0 else "a"] for p in pairs if p["is_clear"]}
        scored = _trained(found["rows"], best["arm"], language, text_class) if best else set()
        others = _elsewhere(found, pooled, best["arm"], variant, at) if best and variant else {}
        rivals = [v for v in VARIANTS if v in scored and v != variant] + list(others)
        unbeaten = [v for v in VARIANTS if v in scored - behind] + [v for v, lost in others.items() if not lost]
        out.append(
            {
                "task": task,
                **dict(zip(KIND, at)),
                "variant": variant,
                **{name: best[name] if best else None for name in ABOUT},
                "state": _state(best, bool(rivals), unbeaten == [variant]) if best else None,
                "rivals": rivals,
                "unbeaten": unbeaten,
                "front": [{n: r.get(n) for n in FRONT} for r in (said.front if best else [])],
                "because": " ".join(said.because) if best else "Nothing that was measured reads it.",
                "ask": f"iv advise --task {task} --languages {language} --text-length {ask.text_len} "
                f"--direction {direction}" + (f" --dataset {dataset}" if several else ""),
            }
        )
    return out


def _state(best: Row, has_rivals: bool, is_ahead: bool) -> str:
    """few: families that could not tell anything; chance: not shown to beat guessing; alone, shown or open."""
    if (best["families"] or FEW) < FEW:
        return "few"
    if not clears_chance(best):
        return "chance"
    return "alone" if not has_rivals else "shown" if is_ahead else "open"


def _trained(rows: list[Row], arm: str, language: str, text_class: str) -> set[str]:
    """Variants of an arm that were trained on this language and length; k = 1 is similarity by another name."""
    never = untrained(rows)
    mine = [r for r in rows if r["arm"] == arm and (arm, r["model"], language, text_class) not in never]
    return {f"{r['model']}/{r['head']}" for r in mine if r["k"] != 1}


def _elsewhere(found: Mapping[str, Any], pooled: list[Row], arm: str, variant: str, at: list[str]) -> dict[str, bool]:
    """Variants of other arms that were trained on this kind of query, and whether they are shown to be behind.

    A model that several arms share is counted once, and not beside its own arm's.
    """
    first = {(s["arm"], s["model"]): s["with"] for s in found["protocol"].get("shared", [])}
    seen = {(arm, model) for model in ("s2", "clip")}
    seen |= {(home, model) for (other, model), home in first.items() if other == arm}
    dataset, *kind_of = at
    out = {}
    for other in dict.fromkeys(r["arm"] for r in found["rows"] if r["arm"] != arm and r["dataset"] == dataset):
        scored = _trained(found["rows"], other, *kind_of[:2])
        for v in (v for v in VARIANTS if v in scored):
            model = v.partition("/")[0]
            if (first.get((other, model), other), model) in seen or (other, model) in first:
                continue
            p = across(pooled, (arm, variant), (other, v), kind_of)
            out[f"{v} of {other}"] = bool(p and p["is_clear"] and p["delta_r1"] > 0)
    return out


def across(pooled: list[Row], one: tuple[str, str], other: tuple[str, str], kind_of: list[str]) -> Row | None:
    """The paired row of two (arm, variant), seen from `one`; None where they were not compared."""
    for p in pooled:
        ends = ((p["arm"], p["a"]), (p["arm_b"], p["b"]))
        if [p["language"], p["text_class"], p["direction"]] == kind_of and ends in ((one, other), (other, one)):
            low, high = p["ci95"]
            flip = {"delta_r1": -p["delta_r1"], "ci95": [-high, -low]} if ends[0] == other else {}
            return {**p, **flip}
    return None


def here(pooled: list[Row], arm: str, language: str, text_class: str, direction: str) -> list[Row]:
    """The paired rows within an arm for one kind of query."""
    spot = (arm, arm, language, text_class, direction)
    return [p for p in pooled if (p["arm"], p["arm_b"], p["language"], p["text_class"], p["direction"]) == spot]


def headline(verdict: Mapping[str, Any], pooled: list[Row]) -> list[str]:
    """Sentences on what to take for which kinds of query; "take" is said only of what is shown, or stands alone."""
    rows = [r for r in verdict["advice"] if r["variant"]]
    scored = {f"{r['model']}/{r['head']}" for r in verdict["rows"]} & set(VARIANTS)
    if len(scored) == 1 and len(verdict["protocol"]["arms"]) == 1 and {r["state"] for r in rows} <= {"alone"}:
        return [f"{NAMES[v]} is the only variant scored; there is nothing to choose." for v in scored]
    if not rows:
        return ["Not decided. Nothing that was measured was trained on these queries."]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for r in rows:
        groups.setdefault((r["state"], r["arm"], r["variant"]), []).append(r)
    out = []
    for (state, arm, variant), mine in sorted(groups.items(), key=lambda g: (ORDER.index(g[0][0]), -len(g[1]))):
        name = NAMES[variant] + _at_k(mine, verdict["protocol"]["k"])
        name += f" of arm {arm}" if len(verdict["protocol"]["arms"]) > 1 else ""
        kinds = "; ".join(_places(mine, rows))
        if state in ("few", "chance"):
            out.append(_not_taken(state, name, kinds, mine))
            continue
        if state == "alone":
            out.append(
                f"Take {name} for {kinds}: no other variant was trained on {'it' if len(mine) == 1 else 'them'}."
            )
            continue
        spots = list(dict.fromkeys(tuple(r[n] for n in PLACE) for r in mine))
        told: dict[str, list[str]] = {}  # kinds of query by what is to be said of them
        for spot in spots:
            text = _evidence([r for r in mine if tuple(r[n] for n in PLACE) == spot], pooled)
            told.setdefault(text, []).extend(_places(mine, rows, spot))
        said = SAID[state].format(name, kinds)
        if len(told) == 1:
            out.append(said + (", " if state == "open" else ": ") + "".join(told) + ".")
            continue
        out.append(said + (", not shown to be ahead of every other one." if state == "open" else "."))
        out += [f"{'; '.join(places)}: {text}." for text, places in told.items()]
    return out


def _not_taken(state: str, name: str, kinds: str, mine: list[Row]) -> str:
    """Why even the best is nothing to take, with its R@1, the lowest of several kinds first."""
    if state == "few":
        least = min(r["families"] for r in mine)
        return f"Not decided for {kinds}: {least} families of test clips are too few to tell, {FEW} at least; " + (
            f"{name} is best."
        )
    worst = min(mine, key=lambda r: r["r1"])
    low, high = worst["r1_ci95"]
    return (
        f"Nothing to take for {kinds}: the best, {name}, is not shown to find more than guessing "
        f"({worst['r1']:.1f} [{low:.1f}, {high:.1f}], guessing {worst['chance']:.1f})."
    )


def _at_k(mine: list[Row], most: int) -> str:
    """How many candidates the answers look at, where that is less than the comparisons are of."""
    less = sorted({r["k"] for r in mine if r["k"] and r["k"] != most})
    return f" at k = {' or '.join(map(str, less))} (compared at {most})" if less else ""


def _places(mine: list[Row], rows: list[Row], only: tuple[str, ...] | None = None) -> list[str]:
    """English, short captions (text to video): kinds of query; no direction where both of two are among them."""
    several = len({r["dataset"] for r in rows}) > 1
    out = []
    for spot in [only] if only else dict.fromkeys(tuple(r[n] for n in PLACE) for r in mine):
        own, every = ([r for r in some if tuple(r[n] for n in PLACE) == spot] for some in (mine, rows))
        part = "" if len(own) == len(every) > 1 else f" ({' and '.join(DIRECTIONS[r['direction']] for r in own)})"
        out.append((f"{spot[0]}, " if several else "") + kind(spot[1], spot[2]) + part)
    return out


def _evidence(mine: list[Row], pooled: list[Row]) -> str:
    """How the variant chosen stands to each rival in these kinds, which share all but the direction."""
    variant = mine[0]["variant"]
    pairs = [p for r in mine for p in here(pooled, r["arm"], *(r[n] for n in KIND[1:]))]
    told = [against(pairs, variant, v) for v in VARIANTS if v != variant and v in mine[0]["rivals"]]
    parts: dict[str, list[str]] = {}
    for rival in dict.fromkeys(v for r in mine for v in r["rivals"] if " of " in v):
        v, _, other = rival.partition(" of ")
        found = [(r, across(pooled, (r["arm"], variant), (other, v), [r[n] for n in KIND[1:]])) for r in mine]
        figures = [f"{DIRECTIONS[r['direction']]} {_figure(p)}" for r, p in found if p]
        ahead = all(rival not in r["unbeaten"] for r in mine)
        state = "ahead of" if ahead else "not shown to be ahead of" if figures else "not compared with"
        parts.setdefault(state, []).append(f"{NAMES[v]} of {other}" + f" ({', '.join(figures)})" * bool(figures))
    told += [f"{state} {', '.join(rivals)}" for state, rivals in parts.items()]
    return "; ".join(t for t in told if t)


def _figure(p: Row) -> str:
    delta, low, high = (round(v, 1) + 0.0 for v in (p["delta_r1"], *p["ci95"]))  # no -0.0
    return f"{delta:+.1f} [{low:.1f}, {high:.1f}]"
