"""Which variant to take: a pure function from what is asked and the rows there are to an answer and its rows.

Measured rows answer whenever there are any for the question; published and computed ones only where there are none, and
never beside them. The answer is the best R@1 among what fits the limits, the quicker and smaller of equals: whatever
beat it at everything would fit the limits too, so it is on the front of the rows given.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ivcore.datasets.text_length import SHORT, class_of
from ivcore.errors import UserError
from ivcore.verdict import published
from ivcore.verdict.labels import LANGUAGES, NAMES, stands
from ivcore.verdict.pareto import front

Row = Mapping[str, Any]
TASKS = ("retrieval", "multiple_choice", "classification")
COSTS = ("query_ms_p95", "index_bytes_per_video", "peak_mb")  # of the front, beside R@1
ROUNDING = 1 + 1e-9  # a limit that is just kept is kept
# Languages that the published text towers read. tiny reads what it was trained on, which its rows say.
ENGLISH = ("en",)
READS: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("s2", ""): (ENGLISH, "its BERT was trained on English alone"),
    ("clip", "S14"): (ENGLISH, "its text tower (MobileCLIP) reads English alone: published zh R@1 is 1.9"),
    ("clip", "B14"): (ENGLISH, "its text tower (MobileCLIP) reads English alone: published zh R@1 is 1.8"),
    ("clip", "L14"): (ENGLISH, "its text tower (MobileCLIP) reads English alone: published zh R@1 is 1.6"),
    ("clip", "1B"): (("en", "zh"), "its text tower (LLaMA) was trained on English and Chinese"),
    ("clip", "6B"): (("en", "zh"), "its text tower (LLaMA) was trained on English and Chinese"),
}
SPREAD = ("arm", "model", "head", "language", "text_class", "direction")
VARIANT = ("arm", "model", "size", "head", "k", "frames", "dtype", "device", "machine", "max_text_len")
SETS: dict[tuple[str, ...], str] = {
    ("en",): "msrvtt",
    ("zh",): "vatex_zh",
}  # published data set asked first, by languages


@dataclass(frozen=True)
class Ask:
    """What is wanted. None: no limit."""

    task: str = "retrieval"
    languages: tuple[str, ...] = ("en",)
    text_len: int = SHORT  # tokens
    direction: str = "t2v"
    latency_ms: float | None = None  # 95th percentile of one query
    memory_gb: float | None = None  # GB of 10^9 bytes
    index_gb: float | None = None
    videos: int = 1000
    device: str | None = None  # cpu, cuda, or a GPU of gpus.toml
    size: str | None = None
    dataset: str | None = None  # to go by, measured or published; None: the report's own, or one by language

    @property
    def text_class(self) -> str:
        """short or long."""
        return class_of(self.text_len)


@dataclass
class Answer:
    """The variant taken (None: none fits), on what grounds, and the rows that say so."""

    variant: dict[str, Any] | None = None
    basis: str = "measured"  # measured or published
    because: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)  # variants that were looked at, all of the basis
    front: list[dict[str, Any]] = field(default_factory=list)
    computed: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)


def answer(ask: Ask, report: Mapping[str, Any] | None) -> Answer:
    """The variant to take.

    Args:
        report: report.json, or None where nothing was measured.

    Raises:
        UserError: for an unknown task, or when nothing there is can read a language that is asked for.
    """
    if ask.task not in TASKS:
        raise UserError(f"--task {ask.task!r} is not known; there are {', '.join(TASKS)}")
    out = Answer()
    found = variants(ask, report or {}, out.refused)
    if found:
        _measured(ask, out, found, report or {})
    else:
        _published(ask, out)
    return out


def variants(ask: Ask, report: Mapping[str, Any], refused: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Rows of one variant as one: mean R@1 over the languages asked for and the seeds, the worst of its costs.

    What cannot read the question is noted in `refused`; what was not measured on all of it is left out. Matching at its
    full k is told of by its own rows: the k curve's last row would be the same figure again.
    """
    rows: list[Row] = list(report.get("rows", []))
    full = {(r["arm"], r["model"], r["head"], r["k"]) for r in rows}
    rows += [r for r in report.get("k_curve", []) if (r["arm"], r["model"], r["head"], r["k"]) not in full]
    asked = [r for r in rows if (r.get("task", "retrieval"), r["direction"]) == (ask.task, ask.direction)]
    asked = [r for r in asked if r.get("source", "measured") == "measured" and r["head"] != "dsl"]
    asked = [r for r in asked if r.get("k") != 1]  # nothing is re-ranked: that is similarity, which has rows of its own
    asked = [r for r in asked if r["text_class"] == ask.text_class and r["language"] in ask.languages]
    own = ask.dataset or next((r.get("dataset") for r in asked), None)  # R@1 on two data sets is not one figure
    asked = [r for r in asked if r.get("dataset") == own]
    asked = [r for r in asked if ask.size in (None, r.get("size"))]
    asked = [r for r in asked if ask.device in (None, r.get("device"), r.get("machine"))]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for r in asked:
        groups.setdefault(tuple(r.get(n) for n in VARIANT), []).append(r)
    out: list[dict[str, Any]] = []
    for key, mine in groups.items():
        one = dict(zip(VARIANT, key))
        if why := _unread(one, ask, mine):
            note = {"variant": f"{name({**one, 'k': None})} of {one['arm']}", "why": why}
            refused += [note] if note not in refused else []
        elif {r["language"] for r in mine} == set(ask.languages):
            each = [statistics.mean(r["r1"] for r in mine if r["language"] == lang) for lang in ask.languages]
            worst = {n: _worst(mine, n) for n in ("query_ms_p50", *COSTS)}
            sure = {"r1_ci95": _interval(mine, report), "chance": mine[0].get("chance"), "families": _families(mine)}
            out.append({**one, "source": "measured", "r1": round(statistics.mean(each), 4), **sure, **worst})
    return out


def _interval(mine: Sequence[Row], report: Mapping[str, Any]) -> list[float] | None:
    """Interval of R@1: that over the seeds where there are several; None over several languages."""
    if len(mine) == 1:
        return mine[0].get("r1_ci95")
    at = {tuple(r[n] for n in SPREAD) for r in mine}
    found = [s["r1_ci95"] for s in report.get("spread", []) if tuple(s[n] for n in SPREAD) in at]
    return found[0] if len(found) == len(at) == 1 else None


def _families(mine: Sequence[Row]) -> int | None:
    """Families of clips that R@1 rests on: the fewest of any row."""
    known = [r["families"] for r in mine if r.get("families")]
    return min(known) if known else None


def _worst(rows: Sequence[Row], name: str) -> float | None:
    values = [r.get(name) for r in rows]
    return None if None in values else max(v for v in values if v is not None)


def _unread(one: Row, ask: Ask, rows: Sequence[Row]) -> str:
    """Why the variant cannot answer, or nothing."""
    for r in rows:
        if r.get("language_trained") is False:
            return f"{one['model']} was never trained on {_language(r['language'])}"
        if r.get("text_class_trained") is False:
            return f"{one['model']} was never trained on {r['text_class']} captions"
    if one["max_text_len"] is not None and one["max_text_len"] < ask.text_len:
        return f"it reads {one['max_text_len']} tokens of a text, {ask.text_len} are asked for"
    return unsupported(one["model"], one.get("size"), ask.languages) if one.get("size") != "tiny" else ""


def unsupported(model: str, size: str | None, languages: Sequence[str]) -> str:
    """Why the published text tower of a model does not read these languages, or nothing."""
    reads, why = READS.get((model, "" if model == "s2" else str(size)), (None, ""))
    missing = [_language(lang) for lang in languages if reads is not None and lang not in reads]
    return f"{' and '.join(missing)} not supported: {why}" if missing else ""


def name(one: Row) -> str:
    """s2/match k=16, 8 frames, float32."""
    k = f" k={one['k']}" if one.get("k") else ""
    size = f"-{one['size']}" if one.get("size") else ""
    frames = f", {one['frames']} frames" if one.get("frames") else ""
    return f"{one['model']}{size}/{one['head']}{k}{frames}" + (f", {one['dtype']}" if one.get("dtype") else "")


def _language(code: str) -> str:
    return LANGUAGES.get(code, code)


def _index_gb(one: Row, ask: Ask) -> float:
    return float(one["index_bytes_per_video"]) * ask.videos / 1e9


def _measured(ask: Ask, out: Answer, found: list[dict[str, Any]], report: Mapping[str, Any]) -> None:
    """The best of the measured variants that keep the limits."""
    limits = (
        ("query_ms_p95", ask.latency_ms, 1.0, "ms at the 95th percentile"),
        ("index_bytes_per_video", ask.index_gb, ask.videos / 1e9, f"GB of index for {ask.videos} videos"),
        ("peak_mb", ask.memory_gb, 1e-3, "GB of memory"),
    )
    out.rows = sorted(found, key=lambda r: -r["r1"])
    less = [n for n in COSTS if any(r[n] is not None for r in found)]
    fit = [r for r in found if all(r[n] is not None for n in less)] or found
    out.front = [dict(r) for r in front(fit, less=less)]
    for column, most, unit, words in limits:
        if most is None:
            continue
        known = [r[column] * unit for r in fit if r[column] is not None]
        fit = [r for r in fit if r[column] is not None and r[column] * unit <= most * ROUNDING]
        if not fit:
            said = f"the least measured is {min(known):.3g}" if known else "none was measured"
            out.because.append(f"No variant keeps {most:g} {words}; {said}.")
            return
    chosen = front(fit, less=less)
    best = dict(chosen[0])
    out.variant = best
    dataset = ask.dataset or report.get("protocol", {}).get("dataset", "this data set")
    out.because.append(
        f"{name(best)}: R@1 {best['r1']:.1f} on {dataset}"
        + (f", {best['query_ms_p95']:.1f} ms at the 95th percentile" if best["query_ms_p95"] else "")
        + (f" on {best['machine']}" if best.get("machine") else "")
        + ", the best of what was measured and keeps the limits."
    )
    if not clears_chance(best):
        low, high = best["r1_ci95"]
        out.because.append(
            f"It is not shown to find more than guessing would: [{low:.1f}, {high:.1f}], guessing {best['chance']:.1f}."
        )
    out.because += _how_sure(ask, best, report, {f"{r['model']}/{r['head']}" for r in found})
    if len(report.get("protocol", {}).get("seeds", ())) == 1:
        out.because.append("One training run: how far another would move these figures is not known.")
    cheaper = [r for r in out.front if (r["query_ms_p95"] or 0) < (best["query_ms_p95"] or 0)]
    out.because += [f"Quicker: {name(r)}, {r['query_ms_p95']:.1f} ms, R@1 {r['r1']:.1f}." for r in cheaper[:1]]


def clears_chance(one: Row) -> bool:
    """Whether the interval of R@1 lies above guessing, or either is not known."""
    chance, sure = one.get("chance"), one.get("r1_ci95")
    return chance is None or sure is None or bool(sure[0] > chance)


def _how_sure(ask: Ask, best: Row, report: Mapping[str, Any], rivals: set[str]) -> list[str]:
    """The paired differences between the chosen head and the others that can answer, in words."""
    mine, out = f"{best['model']}/{best['head']}", []
    for p in report.get("paired", []):
        same = p["arm"] == p["arm_b"] == best["arm"] and p["language"] in ask.languages
        if (
            not same
            or (p["text_class"], p["direction"]) != (ask.text_class, ask.direction)
            or mine not in (p["a"], p["b"])
        ):
            continue
        pooled = p["seed"] is None or len({q["seed"] for q in report["paired"]}) == 1
        other = p["b"] if p["a"] == mine else p["a"]
        if not pooled or other not in rivals:
            continue
        sign = 1 if p["a"] == mine else -1
        low, high = sorted(sign * v for v in p["ci95"])
        told = stands(p, sign * p["delta_r1"])
        out.append(
            f"{_language(p['language'])}{' (at the full k)' if 'match' in p['a'] + p['b'] else ''}: "
            f"{told} {NAMES.get(other, other)}, "
            f"{sign * p['delta_r1']:+.1f} points [{low:.1f}, {high:.1f}]."
        )
    return out


def _published(ask: Ask, out: Answer) -> None:
    """What the authors published, and the formulas: nothing was measured for this question."""
    from ivcore.models import flops  # torch and transformers: seconds, which measured rows do not need

    out.basis = "published"
    out.because.append("Nothing was measured for this question: what follows are published figures, without intervals.")
    wanted = ask.dataset or SETS.get(ask.languages, "vatex")
    sets = {lang: wanted if wanted != "vatex" else f"vatex_{lang}" for lang in ask.languages}
    rows = [r for lang, s in sets.items() for r in published.rows(s) if r["language"] == lang and r["task"] == ask.task]
    if ask.task != "retrieval":
        rows = [r for r in published.rows(ask.dataset) if r["task"] == ask.task]
        rows = [r for r in rows if ask.dataset or r["dataset"] in ("kinetics400", "ssv2_mc")]
    rows = [r for r in rows if ask.task != "retrieval" or r["direction"] == ask.direction]
    known = sorted({(r["model"], r["size"]) for r in published.rows()})
    known = [m for m in known if ask.size in (None, m[1])]
    for model, size in known:
        if why := unsupported(model, size, ask.languages):
            out.refused.append({"variant": f"{model}-{size}", "why": why})
    left = [m for m in known if not any(r["variant"] == "-".join(m) for r in out.refused)]
    if not left:
        why = "; ".join(f"{r['variant']}: {r['why']}" for r in out.refused) or f"no model of size {ask.size}"
        cure = "clip-1B and clip-6B read Chinese" if "zh" in ask.languages else "ask for English or Chinese"
        raise UserError(f"--languages {','.join(ask.languages)}: {why}; {cure}")
    bytes_of = {
        (r["model"], r["size"], r["head"]): r for r in flops.rows(videos=ask.videos) if r["dtype"] == "bfloat16"
    }
    gpu = flops.gpus().get(ask.device or "")
    most = min((gb for gb in (ask.memory_gb, gpu) if gb is not None), default=None)
    for model, size in left:
        mine = [r for r in rows if (r["model"], r["size"]) == (model, size)]
        if {r["language"] for r in mine} != set(ask.languages):
            continue
        need = bytes_of[model, size, mine[0]["head"]]
        out.computed.append(need)
        one = {**mine[0], "r1": round(statistics.mean(r["r1"] for r in mine), 2)}
        one["dataset"] = ", ".join(dict.fromkeys(r["dataset"] for r in mine))
        gb, index = (need["weight_bytes"] + need["activation_bytes"]) / 1e9, _index_gb(need, ask)
        if most is not None and gb > most:
            out.refused.append(
                {"variant": f"{model}-{size}", "why": f"computed: {gb:.1f} GB in bf16, {most:g} GB there"}
            )
        elif ask.index_gb is not None and index > ask.index_gb:
            out.refused.append({"variant": f"{model}-{size}", "why": f"computed: an index of {index:.1f} GB"})
        else:
            out.rows.append(one)
    out.rows.sort(key=lambda r: -r["r1"])
    if not out.rows:
        out.because.append(f"No published figure fits {', '.join(_language(x) for x in ask.languages)} and the limits.")
        return
    out.variant = out.rows[0]
    out.front = out.rows[:1]
    out.because.append(
        f"{name(out.variant)}: {out.variant['r1']:.1f} (R@1, top-1 or mAP) on {out.variant['dataset']}, published: "
        f"{out.variant['from']}."
    )
    if ask.latency_ms is not None:
        out.because.append(f"Whether it answers in {ask.latency_ms:g} ms is not known: nobody measured it here.")
