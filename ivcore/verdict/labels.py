"""How variants, languages and directions are called, and how a paired difference is read from one side."""

from collections.abc import Mapping
from typing import Any

VARIANTS = ("s2/sim", "s2/match", "clip/sim")  # dsl wants all queries at once, so it is nothing to take
DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}
LANGUAGES = {"en": "English", "zh": "Chinese", "es": "Spanish"}
NAMES = {
    "s2/match": "s2 with matching",
    "s2/sim": "s2 by similarity",
    "clip/sim": "clip",
}

Row = dict[str, Any]


def kind(language: str, text_class: str) -> str:
    """English, short captions."""
    return f"{LANGUAGES.get(language, language)}, {text_class} captions"


def signed(p: Row, ahead: str) -> tuple[float, tuple[float, float]]:
    """Difference and interval of a paired row, seen from variant `ahead`."""
    low, high = p["ci95"]
    values = (p["delta_r1"], low, high) if p["a"] == ahead else (-p["delta_r1"], -high, -low)
    delta, low, high = (round(v, 1) + 0.0 for v in values)  # no -0.0
    return delta, (low, high)


def against(pairs: list[Row], one: str, other: str) -> str:
    """How `one` stands to `other` by these paired rows, with the intervals; nothing where they were not compared."""
    parts: dict[str, list[str]] = {}
    for p in pairs:
        if {p["a"], p["b"]} != {one, other}:
            continue
        delta, (low, high) = signed(p, one)
        told = f"{DIRECTIONS[p['direction']]} {delta:+.1f} [{low:.1f}, {high:.1f}]"
        parts.setdefault(stands(p, delta), []).append(told)
    return "; ".join(f"{state} {NAMES[other]} ({', '.join(told)})" for state, told in parts.items())


def stands(p: Row, delta: float) -> str:
    """How who is `delta` points ahead by a paired row stands to the other."""
    if not p["is_clear"]:
        return "too few to tell from" if p.get("too_few") else "no difference shown from"
    return "ahead of" if delta > 0 else "behind"


def untrained(rows: list[Row]) -> set[tuple[str, str, str, str]]:
    """(arm, model, language, caption length) that a model was scored on and never trained on."""
    never = [r for r in rows if r["language_trained"] is False or r["text_class_trained"] is False]
    return {(r["arm"], r["model"], r["language"], r["text_class"]) for r in never}


def shared(found: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(arm, model) that are the model of an earlier arm, too: they are told of there."""
    return {(s["arm"], s["model"]) for s in found["protocol"].get("shared", [])}


def telling(found: Mapping[str, Any], rows: list[Row]) -> list[Row]:
    """Rows of models that were trained on the captions, of shared models under their first arm; all if none is left."""
    never, again = untrained(found["rows"]), shared(found)
    out = [r for r in rows if (r["arm"], r["model"], r["language"], r["text_class"]) not in never]
    return [r for r in out if (r["arm"], r["model"]) not in again] or rows


def pooled(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the paired rows those over all seeds, or of the only seed there is; dsl left out: it is nothing to take."""
    several = {_comparison(row) for row in table if row["seed"] is None}
    table = [row for row in table if row["seed"] is None or _comparison(row) not in several]
    return [row for row in table if not (row["a"] + row["b"]).count("dsl")]


def _comparison(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[n] for n in ("a", "b", "arm", "arm_b", "language", "text_class", "direction"))


def field_rows(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ours and the published rows of this data set, {name, direction, r1, r1_ci95, source}; none published: no rows."""
    theirs = [r for r in verdict["published"] if r["task"] == "retrieval"]
    if not theirs:
        return []
    public = {(r["dataset"], r["language"]) for r in theirs}
    of = "{dataset}: " if len({name for name, _ in public}) > 1 else ""
    ours = [
        s for s in telling(verdict, verdict["spread"]) if (s["dataset"], s["language"]) in public and s["head"] != "dsl"
    ]
    rows = [
        {"name": of.format(**s) + f"ours: {s['arm']} {s['model']}/{s['head']}, {s['text_class']}", "source": "measured"}
        | {n: s[n] for n in ("direction", "r1", "r1_ci95")}
        for s in ours
    ]
    return rows + [
        {"name": of.format(**r) + f"{r['model']}-{r['size']}", "source": "published", "r1_ci95": None}
        | {n: r[n] for n in ("direction", "r1")}
        for r in theirs
    ]


def lost(scored: dict[str, Any]) -> str:
    """What could not be scored, by reason; "none" where all could."""
    told = [f"{num} {reason}" for reason, num in scored["lost"].items()]
    if scored["lost_without_split"]:
        told.append(f"{scored['lost_without_split']} that have no split, as they cannot be read")
    return ", ".join(told) or "none"
