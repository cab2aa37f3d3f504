"""The verdict in plain words: what to take, who is ahead, what matching adds and when, what it costs, how sure it is.

Nothing is called a difference whose interval holds 0; then it says how large one would have had to be to be seen.
"""

from collections.abc import Callable
from typing import Any

from ivcore.verdict import explanations
from ivcore.verdict.choice import headline
from ivcore.verdict.labels import (
    DIRECTIONS,
    NAMES,
    kind,
    pooled,
    shared,
    signed,
)

Verdict = dict[str, Any]
Row = dict[str, Any]
GAIN = ("s2/match", "s2/sim")
FOR_THE_PAGE = ("Between the arms", "What to take within", "What k", "Which errors", "What each loss", "Where clip")
MOST_SEEDS = 5  # that a sentence names one by one
MATCH, SIM = ("s2", "match"), ("s2", "sim")


def summary(verdict: Verdict) -> list[dict[str, Any]]:
    """Sections of sentences, {title, lines, brief}, the most important first; a terminal shows the brief ones."""
    known = [r for r in verdict["rows"] if not _new(r)]
    language, text_class = ((known or verdict["rows"])[0][name] for name in ("language", "text_class"))
    every = pooled(verdict["paired"])
    here = [p for p in every if (p["language"], p["text_class"]) == (language, text_class)]
    spread = [s for s in verdict["spread"] if (s["language"], s["text_class"]) == (language, text_class)]
    arms = list(dict.fromkeys(s["arm"] for s in spread))
    place = kind(language, text_class)

    again = shared(verdict)
    own_s2 = [arm for arm in arms if (arm, "s2") not in again]

    def told(of: Callable[[str], list[str]]) -> list[str]:
        return [_of(arm, arms) + line for arm in arms for line in of(arm)]

    sections = {
        "What to take": _one_run(verdict)
        + headline(verdict, every)
        + list(dict.fromkeys(t for arm in arms for t in explanations.of_contest(verdict, arm)))
        + _trained_on(verdict)
        + _drawn(verdict),
        f"R@1, {place}": _one_model(verdict) + [t for arm in arms for t in _recall(here, spread, arm, arms, again)],
        f"Between the arms, {place}": _across(here, again),
        f"What to take within a time, {place}": explanations.within_a_time(verdict, language, text_class),
        f"What matching adds, {place}": [t for arm in own_s2 for t in _gains(here, arm, arms)]
        + _controls(here, spread, own_s2)
        + [
            _between(g)
            for g in verdict["gains"]
            if (g["language"], g["text_class"]) == (language, text_class) and {g["arm"], g["arm_b"]} <= set(own_s2)
        ],
        f"What k buys, {place}": told(lambda arm: explanations.of_k(verdict, language, text_class, arm)),
        f"Which errors go, {place}": told(lambda arm: explanations.of_errors(verdict, language, text_class, arm)),
        "What each loss saw as negatives": told(lambda arm: explanations.of_negatives(verdict, arm)),
        "Where clip wins": told(lambda arm: explanations.of_clip(verdict, every, arm)),
        "When matching earns its cost": _earns(verdict, [p for p in here if p["arm"] in own_s2], spread, own_s2),
        f"What it costs, {place}": _cost(verdict, spread, arms),
        "How sure this is": _caveats(verdict),
    }
    return [
        {"title": title, "lines": lines, "brief": not title.startswith(FOR_THE_PAGE)}
        for title, lines in sections.items()
        if lines
    ]


def difference(p: Row) -> str:
    """One paired row as a sentence that claims no more than its interval allows; the one ahead has the plus."""
    between = p["arm"] != p["arm_b"]
    a, b = (_name(p[x], arm if between else "") for x, arm in (("a", p["arm"]), ("b", p["arm_b"])))
    where, flip = DIRECTIONS[p["direction"]], p["delta_r1"] < 0
    delta, (low, high) = signed({**p, "a": "", "b": "flip"}, "flip" if flip else "")
    numbers = f"{delta:+.1f} points [{low:.1f}, {high:.1f}]"
    seeds = _seeds([-x for x in p["by_seed"]] if flip else p["by_seed"])
    ahead, behind = (b, a) if flip else (a, b)
    if not p["is_clear"]:
        told = "too few families to tell" if p.get("too_few") else "no difference shown"
        return (
            f"{where}: {told}, {ahead} minus {behind} {numbers}{seeds}; "
            f"one of {p['smallest_detectable']:.1f} points would have been seen four times in five."
        )
    return f"{where}: {ahead} is ahead of {behind} ({numbers}{seeds})."


def _seeds(deltas: list[float]) -> str:
    """What each seed says by itself: the interval is of other clips, and training again may move the figure further."""
    each = [f"{round(x, 1) + 0.0:+.1f}" for x in deltas]
    if len(each) > MOST_SEEDS:
        return f", {len(each)} seeds from {min(deltas):+.1f} to {max(deltas):+.1f}"
    return f", by seed {', '.join(each)}" if len(each) > 1 else ""


def _name(head: str, arm: str) -> str:
    return NAMES.get(head, head) + (f" of {arm}" if arm else "")


def _of(arm: str, arms: list[str]) -> str:
    return f"Arm {arm}: " if len(arms) > 1 else ""


def _one_model(verdict: Verdict) -> list[str]:
    """Which arms have a model in common."""
    groups: dict[tuple[str, str], list[str]] = {}
    for s in verdict["protocol"].get("shared", []):
        groups.setdefault((s["model"], s["with"]), []).append(s["arm"])
    return [
        f"{model} is one and the same model in {', '.join([first, *more])}; it is told of as that of {first}."
        for (model, first), more in groups.items()
    ]


def _recall(here: list[Row], spread: list[Row], arm: str, arms: list[str], again: set[tuple[str, str]]) -> list[str]:
    """Where every variant stands, and the differences to clip."""
    out = []
    for direction, words in DIRECTIONS.items():
        mine = [s for s in spread if (s["arm"], s["direction"]) == (arm, direction) and s["head"] != "dsl"]
        mine = [s for s in mine if (arm, s["model"]) not in again]
        told = [
            f"{NAMES[s['model'] + '/' + s['head']]} {s['r1']:.1f} [{s['r1_ci95'][0]:.1f}, {s['r1_ci95'][1]:.1f}]"
            for s in sorted(mine, key=lambda s: -s["r1"])
        ]
        if told:  # a choice is asked of videos alone
            out.append(f"{_of(arm, arms)}{words}: {', '.join(told)}.")
    own = [p for p in here if p["arm"] == p["arm_b"] == arm and (p["a"], p["b"]) != GAIN]
    return out + [_of(arm, arms) + difference(p) for p in own]


def _across(here: list[Row], again: set[tuple[str, str]]) -> list[str]:
    """The same variant of two arms, by similarity: what the arms differ in, and no re-ranking on top."""
    own = [p for p in here if p["arm"] != p["arm_b"] and p["a"] == p["b"] and p["a"].endswith("/sim")]
    return [difference(p) for p in own if not {(p["arm"], (m := p["a"].partition("/")[0])), (p["arm_b"], m)} & again]


def _gains(here: list[Row], arm: str, arms: list[str]) -> list[str]:
    """Matching against the similarity it re-ranks."""
    own = [p for p in here if p["arm"] == p["arm_b"] == arm and (p["a"], p["b"]) == GAIN]
    put = "Matching put {only_a} right that similarity had wrong, and {only_b} wrong that it had right."
    return [f"{_of(arm, arms)}{difference(p)} {put.format(**p)}" for p in own]


def _between(g: Row) -> str:
    """The gain of one arm against the gain of another."""
    numbers = f"{g['delta']:+.1f} points [{g['ci95'][0]:.1f}, {g['ci95'][1]:.1f}]"
    numbers += _seeds(g["by_seed"])
    told = "a difference" if g["is_clear"] else "no difference shown"
    one, two = (f"{g[gain]:+.1f} in {g[arm]}" for gain, arm in (("gain", "arm"), ("gain_b", "arm_b")))
    return f"{DIRECTIONS[g['direction']]}: matching changes R@1 by {one} and by {two}: {told}, {numbers}."


def _earns(verdict: Verdict, here: list[Row], spread: list[Row], arms: list[str]) -> list[str]:
    """Where matching pays for its time: ahead of its own similarity, and of the best similarity that can be had."""
    own = [p for p in here if p["arm"] == p["arm_b"] and (p["a"], p["b"]) == GAIN]
    if not own:
        return []
    times = []
    for direction, words in DIRECTIONS.items():
        ms = {(s["model"], s["head"]): s["query_ms_p50"] for s in spread if s["direction"] == direction}
        if ms.get(MATCH) and ms.get(SIM):
            times.append(f"{ms[MATCH] / ms[SIM]:.0f} times the time of a query {words}")
    slower = f" at {' and '.join(times)}" if times else ""
    wins = [p for p in own if p["is_clear"] and p["delta_r1"] > 0]
    if not wins:
        worse = [_of(p["arm"], arms) + DIRECTIONS[p["direction"]] for p in own if p["is_clear"]]
        told = "In no arm is it" if len(arms) > 1 else "Not here: it is not"
        told += " shown to be ahead of the similarity it re-ranks"
        told += f", and it is shown to be behind it ({'; '.join(worse)})" if worse else ""
        return [told + (f". It comes{slower}." if slower else ".")]
    out = []
    for p in wins:
        sims = {s["arm"]: s["r1"] for s in spread if (s["model"], s["head"], s["direction"]) == (*SIM, p["direction"])}
        best = max(sims, key=sims.__getitem__)
        told = f"{_of(p['arm'], arms)}{DIRECTIONS[p['direction']]}: ahead of its own similarity{slower}"
        if best != p["arm"]:
            ends = {(p["arm"], GAIN[0]), (best, GAIN[1])}
            cross = [q for q in here if {(q["arm"], q["a"]), (q["arm_b"], q["b"])} == ends]
            cross = [q for q in cross if q["direction"] == p["direction"] and q["is_clear"]]
            ahead = any((q["delta_r1"] > 0) == (q["a"] == GAIN[0]) for q in cross)
            told += (
                f", and of the best similarity of any arm ({best})"
                if ahead
                else f", but not shown to be ahead of the similarity of {best}, which costs no re-ranking"
            )
        out.append(told + ".")
    return out


def _controls(here: list[Row], spread: list[Row], arms: list[str]) -> list[str]:
    """Where matching beats its own arm's similarity: does it also beat the best similarity of any arm?"""
    out = []
    for arm, direction in ((a, d) for a in arms for d in DIRECTIONS):
        own = [
            p for p in here if (p["arm"], p["arm_b"], p["a"], p["b"], p["direction"]) == (arm, arm, *GAIN, direction)
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


def _cost(verdict: Verdict, spread: list[Row], arms: list[str]) -> list[str]:
    """What a query and an index cost by head, and what training did."""
    on = {(r["machine"], r["threads"], r["dtype"]) for r in verdict["rows"] if r["machine"]}
    out = [f"Times are of {machine}, {threads} threads, {dtype}." for machine, threads, dtype in sorted(on)]
    by = {
        f"{s['model']}/{s['head']}": s
        for s in spread
        if s["arm"] == arms[0] and s["direction"] == "t2v" and s["query_ms_p50"]
    }
    for head in ("s2/sim", "s2/match", "clip/sim"):
        if s := by.get(head):
            more = f" ({verdict['protocol']['k']} candidates matched)" if head == "s2/match" else ""
            flop = f", {s['query_gflop']:.2g} GFLOP" if s["query_gflop"] else ""
            out.append(
                f"{NAMES[head]}: {s['query_ms_p50']:.1f} ms a text query{more}{flop}; "
                f"{s['index_bytes_per_video'] / 1024:.1f} KiB of index a video."
            )
    train = {r["model"]: r for r in verdict["rows"] if r["arm"] == arms[0]}
    if {"s2", "clip"} <= set(train) and train["clip"]["train_own_cpu_s"]:
        own, base = train["clip"]["train_own_cpu_s"], train["s2"]["train_cpu_s"]
        out.append(f"Training took {base:.0f} CPU seconds for s2, and {own:.0f} more for clip on top of s2's trunk.")
    return out


def _drawn(verdict: Verdict) -> list[str]:
    """That made-up videos are no real ones."""
    if "synthetic" not in {r["dataset"] for r in verdict["rows"]}:
        return []
    sizes = ", ".join(dict.fromkeys(str(r["size"]) for r in verdict["rows"]))
    return [f"These are drawn shapes and models of size {sizes}: the tool at work, and no word on real videos."]


def _trained_on(verdict: Verdict) -> list[str]:
    """Which kinds of caption a model knows, where it was scored on others, too."""
    rows, arms = verdict["rows"], verdict["protocol"]["arms"]
    told: dict[tuple[str, str], list[str]] = {}
    for arm, model in dict.fromkeys((r["arm"], r["model"]) for r in rows):
        mine = [r for r in rows if (r["arm"], r["model"]) == (arm, model)]
        if (arm, model) in shared(verdict) or not any(_new(r) for r in mine):
            continue
        kinds = dict.fromkeys(kind(r["language"], r["text_class"]) for r in mine if not _new(r))
        told.setdefault((model, "; ".join(kinds)), []).append(arm)
    out = []
    for (model, known), some in told.items():
        name = model + (f" of {', '.join(some)}" if len(some) < len(arms) else "")
        out.append(
            f"{name} was trained on {known} alone: what it does with other captions is left out here."
            if known
            else f"{name} was trained on none of these captions."
        )
    return out


def _one_run(verdict: Verdict) -> list[str]:
    """What a single seed cannot tell."""
    seeds = verdict["protocol"]["seeds"]
    told = f"One training run (seed {seeds[0]}): what follows is of these trained weights; "
    return [told + "how far another run would move the figures is not known."] * (len(seeds) == 1)


def _new(row: Row) -> bool:
    """Whether the captions are of a language or length that the model never saw."""
    return False in (row["language_trained"], row["text_class_trained"])


def _caveats(verdict: Verdict) -> list[str]:
    """What the intervals cover."""
    seeds = verdict["protocol"]["seeds"]
    if len(seeds) == 1:
        seeded = "One seed: the intervals cover the choice of test clips, not another training run; --seeds would."
    else:
        seeded = f"{len(seeds)} seeds: intervals over all of them cover other test clips and other training runs."
    return [seeded, "Square brackets hold 95 % intervals, each for one comparison at a time."]
