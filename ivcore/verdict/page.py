"""The verdict to be read: one page of HTML that needs no network, and a short table for the terminal."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ivcore.verdict.labels import (
    LANGUAGES,
    NAMES,
    field_rows,
    lost,
    pooled,
    shared,
    telling,
    untrained,
)
from ivcore.verdict.pareto import variants

Row = dict[str, Any]


def page(found: dict[str, Any], drawn: Mapping[str, str]) -> str:
    """The report as HTML. `drawn`: SVG by name."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    again = shared(found)
    env.filters |= {
        "num": num,
        "kib": kib,
        "p": p_value,
        "plus": plus,
        "whole": whole,
        "place": place,
        "of": name,
        "lost": lost,
    }
    return env.get_template("report.html.j2").render(
        v=found,
        pictures={name: Markup(svg) for name, svg in drawn.items()},
        places=places(found),
        glance=glance(found),
        both=both_ways(telling(found, found["spread"])),
        rows=telling(found, found["rows"]),
        k_curve=telling(found, found["k_curve"]),
        errors=telling(found, [e for e in found["errors"] if e["head"] != "dsl"]),
        compared=compared(found),
        decoding=decoding(found),
        conditions={a: told for a, told in found["protocol"]["conditions"].items() if (a, "s2") not in again},
        negatives=[n for n in found["negatives"] if (n["arm"], n["model"]) not in again],
        curves=[c for c in found["curves"] if (c["arm"], c["model"]) not in again],
        field=field_rows(found),
        front=[v for v in variants(found["cells"]) if v["on_front"]],
        several_arms=len(found["protocol"]["arms"]) > 1,
        several_seeds=len(found["protocol"]["seeds"]) > 1,
    )


def places(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(language, caption length) as scored."""
    return list(dict.fromkeys((s["language"], s["text_class"]) for s in found["spread"]))


def glance(found: Mapping[str, Any]) -> list[Row]:
    """An arm each: its heads with what a text query and the index cost, and by place R@1 both ways of every head."""
    best = {(a["arm"], a["language"], a["text_class"], a["direction"]): a["variant"] for a in found["advice"]}
    never = untrained(found["rows"])
    out = []
    for arm in found["protocol"]["arms"]:
        mine = [s for s in found["spread"] if s["arm"] == arm]
        r1 = {(s["model"], s["head"], s["language"], s["text_class"], s["direction"]): s["r1"] for s in mine}
        heads = []
        for model, head in dict.fromkeys((s["model"], s["head"]) for s in mine):
            text = [s for s in mine if (s["model"], s["head"], s["direction"]) == (model, head, "t2v")]
            text = [s for s in text if (arm, model, s["language"], s["text_class"]) not in never] or text
            heads.append(
                {
                    "variant": f"{model}/{head}",
                    "ms": _range(s["query_ms_p50"] for s in text),
                    "gflop": _range(s["query_gflop"] for s in text),
                    "index_ms": _range(
                        r["index_ms_per_video"] for r in found["rows"] if (r["arm"], r["model"]) == (arm, model)
                    ),
                    "index": next((s["index_bytes_per_video"] for s in text), None),
                    "cells": [
                        {
                            **{d: r1.get((model, head, *where, d)) for d in ("t2v", "v2t")},
                            "best": [d for d in ("t2v", "v2t") if best.get((arm, *where, d)) == f"{model}/{head}"],
                            "untrained": (arm, model, *where) in never,
                        }
                        for where in places(found)
                    ],
                }
            )
        out.append({"arm": arm, "heads": heads})
    return out


def _range(values: Iterable[float | None]) -> tuple[float, float] | None:
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else None


def both_ways(spread: list[Row]) -> list[tuple[Row | None, Row | None]]:
    """Rows of `spread`, text to video and video to text side by side."""
    sides: dict[tuple[str, ...], dict[str, Row]] = {}
    for s in spread:
        key = (s["arm"], s["model"], s["head"], s["language"], s["text_class"])
        sides.setdefault(key, {})[s["direction"]] = s
    return [(pair.get("t2v"), pair.get("v2t")) for pair in sides.values()]


def compared(found: Mapping[str, Any]) -> list[Row]:
    """Paired rows over all seeds, grouped by what is compared: {title, between, rows: (t2v, v2t) pairs}."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    pairs = pooled(found["paired"])
    for p in [p for p in pairs if _fair(found, p)] or pairs:
        groups.setdefault((p["arm"], p["a"], p["arm_b"], p["b"]), []).append(p)
    out: list[Row] = []
    several = len(found["protocol"]["arms"]) > 1
    for (arm, a, arm_b, b), some in groups.items():
        left, right = (f"{NAMES.get(h, h)}{f' of {w}' if several else ''}" for h, w in ((a, arm), (b, arm_b)))
        sides: dict[tuple[str, str], dict[str, Row]] = {}
        for p in some:
            sides.setdefault((p["language"], p["text_class"]), {})[p["direction"]] = p
        both = [(pair.get("t2v"), pair.get("v2t")) for pair in sides.values()]
        out.append({"title": f"{left} minus {right}", "between": arm != arm_b, "rows": both})
    return out


def _fair(found: Mapping[str, Any], p: Row) -> bool:
    """Whether both sides were trained on the captions, and the comparison is not another arm's already."""
    never, again = untrained(found["rows"]), shared(found)
    sides = [(p[arm], p[head].partition("/")[0]) for arm, head in (("arm", "a"), ("arm_b", "b"))]
    if any((*side, p["language"], p["text_class"]) in never for side in sides):
        return False
    told = [side in again for side in sides]
    return not (all(told) or (any(told) and p["arm"] != p["arm_b"]))


def decoding(found: Mapping[str, Any]) -> list[str]:
    """A line for each lot of frames: which decoders gave them, what is missing and why, what each decoder takes."""
    lines = []
    for frames in found["decoding"]:
        line = "Decoded by " + ", ".join(f"{name}: {num} clips" for name, num in frames["decoders"].items())
        lost = ", ".join(f"{num} {reason}" for reason, num in frames["reasons"].items())
        line += f"; without frames: {lost}." if lost else "; no clip is without frames."
        if frames.get("damaged"):
            line += f" {frames['damaged']} clips have damaged pictures (frames.damaged = drop leaves them out)."
        if took := frames["decoder_ms"]:
            line += f" A clip takes decord {took['decord']:.1f} and pyav {took['pyav']:.1f} ms of CPU"
            line += f" ({took['clips']} clips drawn by seed, resize included)."
        lines.append(line)
    return lines


def terminal(found: dict[str, Any]) -> str:
    """R@1 of every head by language and caption length, both directions, and the summary in brief."""
    scored = found["protocol"]["scored"]
    lines = [f"{scored['videos']} of {scored['of_videos']} videos scored; lost: {lost(scored)}", ""]
    for arm in glance(found):
        header = "".join(f"{f'{a} {b}':>13}" for a, b in places(found))
        lines.append(f"{'R@1 t2v/v2t':<14}{header}{'ms/query':>10}   {arm['arm']}")
        for head in arm["heads"]:
            both = [[num(c[d]) or "-" for d in ("t2v", "v2t")] for c in head["cells"]]
            cells = ["-" if c["untrained"] else "/".join(pair) for c, pair in zip(head["cells"], both)]
            ms = num(head["ms"][0]) if head["ms"] else ""
            lines.append(f"{head['variant']:<14}{''.join(f'{c:>13}' for c in cells)}{ms:>10}")
        lines.append("")
    for section in (s for s in found["summary"] if s.get("brief", True)):
        lines += [section["title"], *(f"- {line}" for line in section["lines"]), ""]
    return "\n".join(lines).rstrip()


def num(value: float | None, digits: int = 1) -> str:
    """A number, or nothing where there is none."""
    return "" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.0


def plus(value: float) -> str:
    """A difference with its sign."""
    return f"{round(value, 1) + 0.0:+.1f}"


def whole(value: float | None) -> str:
    """A count with its thousands apart."""
    return "" if value is None else f"{value:,.0f}"


def kib(size: float | None) -> str:
    """Bytes as KiB."""
    return "" if size is None else f"{size / 1024:.1f} KiB"


def p_value(value: float) -> str:
    """A p value no finer than anyone needs; report.json has it whole."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def place(where: tuple[str, str]) -> str:
    """English, short."""
    return f"{LANGUAGES.get(where[0], where[0])}, {where[1]}"


def name(variant: str) -> str:
    """s2 with matching, for s2/match."""
    return NAMES.get(variant, variant)
