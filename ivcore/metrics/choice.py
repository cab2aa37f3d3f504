"""Which variant to take for each kind of query: the adviser's answers to the report's own rows, and how sure they are.

A kind of query is a language, a caption length and a direction. A variant is unbeaten in a kind when no other one of
its arm is shown to be ahead of it; that is not the same as being the best, and the words never say more.
"""

import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ivcore.errors import UserError
from ivcore.metrics.advise import SHORT, Answer, Ask, answer
from ivcore.metrics.terms import DIRECTIONS, NAMES, VARIANTS, Row, against, kind

KIND = ("dataset", "language", "text_class", "direction")
FRONT = ("arm", "model", "head", "k", "frames", "dtype", "r1", "query_ms_p95", "index_bytes_per_video")
SAME = ("dataset", "language", "text_class", "arm", "variant")
ABOUT = ("arm", "size", "k", "frames", "dtype", "r1", "query_ms_p95")


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
        scored = {f"{r['model']}/{r['head']}" for r in found["rows"] if best and r["arm"] == best["arm"]}
        out.append(
            {
                "task": task,
                **dict(zip(KIND, at)),
                "variant": variant,
                **{name: best[name] if best else None for name in ABOUT},
                "unbeaten": [v for v in VARIANTS if v in scored - behind],
                "front": [{n: r.get(n) for n in FRONT} for r in (said.front if best else [])],
                "because": " ".join(said.because) if best else "Nothing that was measured reads it.",
                "ask": f"iv advise --task {task} --languages {language} --text-length {ask.text_len} "
                f"--direction {direction}" + (f" --dataset {dataset}" if several else ""),
            }
        )
    return out


def here(pooled: list[Row], arm: str, language: str, text_class: str, direction: str) -> list[Row]:
    """The paired rows within an arm for one kind of query."""
    spot = (arm, arm, language, text_class, direction)
    return [p for p in pooled if (p["arm"], p["arm_b"], p["language"], p["text_class"], p["direction"]) == spot]


def headline(verdict: Mapping[str, Any], pooled: list[Row]) -> list[str]:
    """Sentences on what to take, the first one the verdict; "take" is said only of what is shown."""
    rows = [r for r in verdict["advice"] if r["variant"]]
    scored = {f"{r['model']}/{r['head']}" for r in verdict["rows"]} & set(VARIANTS)
    arms = verdict["protocol"]["arms"]
    if len(scored) == 1 and len(arms) == 1:
        return [f"{NAMES[v]} is the only variant scored; there is nothing to choose." for v in scored]
    if not rows:
        return ["Not decided. Nothing that was measured was trained on these queries."]
    best = Counter((r["arm"], r["variant"]) for r in rows)
    mean = {w: statistics.mean(r["r1"] for r in rows if (r["arm"], r["variant"]) == w) for w in best}
    arm, take = max(sorted(best), key=lambda who: (best[who], mean[who]))
    mine = [r for r in rows if (r["arm"], r["variant"]) == (arm, take)]
    alone = [r for r in mine if r["unbeaten"] == [take]]
    name = NAMES[take] + (f" of arm {arm}" if len(arms) > 1 else "")
    kinds = f"{len(mine)} of {len(rows)} kinds of query (language, caption length and direction)"
    out = [
        f"Take {name}. It has the best R@1 in {kinds}; in {len(alone)} it is shown to be ahead of every other variant."
        if alone
        else f"Not decided. {name} comes out best in {kinds}, but in none is it shown to be ahead of every other one."
    ]
    several = len({r["dataset"] for r in rows}) > 1
    for spot in dict.fromkeys(tuple(r[n] for n in SAME) for r in rows):
        some = [r for r in rows if tuple(r[n] for n in SAME) == spot and r not in alone]
        if some:
            out.append((f"{spot[0]}: " if several else "") + _other(some, pooled, (arm, take)))
    return out


def _other(some: list[Row], pooled: list[Row], first: tuple[str, str]) -> str:
    """A sentence on kinds of one language and length that are not the first choice's alone."""
    _, language, text_class, arm, variant = (some[0][n] for n in SAME)
    pairs = [p for r in some for p in here(pooled, arm, *(r[n] for n in KIND[1:]))]
    even = [against(pairs, variant, v) for v in VARIANTS if v != variant]
    told = "; ".join(t for t in even if t) or "the only one that reads it"
    where = f"{kind(language, text_class)}, {' and '.join(DIRECTIONS[r['direction']] for r in some)}"
    if (arm, variant) == first:
        return f"{where}: {told}."
    return f"{where}: {NAMES[variant]}{f' of arm {arm}' if arm != first[0] else ''} is best, {told}."
