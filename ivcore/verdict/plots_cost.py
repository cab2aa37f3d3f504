"""The pictures of cost and depth: the front of recall against latency, what k buys, the field beside ours.

Drawn as those of `ivcore/verdict/plots.py`: SVG in the page's colour, the same bytes for the same verdict.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ivcore.verdict.labels import DIRECTIONS, LANGUAGES, field_rows, telling
from ivcore.verdict.pareto import variants
from ivcore.verdict.plots_style import INK, OTHER, STYLE, legend, style, svg

COLORS = ("#3f87d0", "#d9772b", "#2a9d74", "#9467bd", "#8a9a5b", "#c2556b")


def fronts(verdict: Mapping[str, Any]) -> str:
    """One panel a language and length: every variant by time and R@1 of text queries, the front as a line."""
    with style("pareto"):
        cells = choices(verdict)
        places = list(dict.fromkeys((c["dataset"], c["language"], c["text_class"]) for c in cells))
        columns = min(3, max(1, len(places)))
        lines = -(-len(places) // columns) or 1
        fig = Figure(figsize=(8, 0.4 + 2.3 * lines), layout="constrained")
        axes = fig.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, place in zip(axes, places):
            mine = [c for c in cells if (c["dataset"], c["language"], c["text_class"]) == place]
            best = sorted((c["query_ms_p95"], c["r1"]) for c in mine if c["on_front"])
            ax.step(*zip(*best), where="post", color=INK, lw=0.8) if best else None
            for c in mine:
                color, marker = STYLE.get(f"{c['model']}/{c['head']}", OTHER)
                ax.plot(
                    [c["query_ms_p95"]], [c["r1"]], color=color, marker=marker, ls="",
                    ms=5 if c["on_front"] else 3.5, alpha=1 if c["on_front"] else 0.5,
                )  # fmt: skip
                if c["k"]:
                    ax.annotate(
                        f"k={c['k']}", (c["query_ms_p95"], c["r1"]), (3, -8), textcoords="offset points", fontsize=6
                    )
            several = len({p[0] for p in places}) > 1
            ax.set_title(f"{place[0]}: " * several + f"{LANGUAGES.get(place[1], place[1])}, {place[2]}", loc="left")
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            ax.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else ""))
            ax.tick_params(axis="x", which="both", labelbottom=True)
            ax.set_ylim(-3, 103)
            ax.grid()
        for ax in axes[len(places) :]:
            ax.set_visible(False)
        fig.supxlabel("95th percentile of one text query, milliseconds (log)", fontsize=9)
        fig.supylabel("R@1, percent", fontsize=9)
        legend(fig, list(dict.fromkeys(f"{c['model']}/{c['head']}" for c in cells)))
        return svg(fig, "pareto", "R@1 against the time of a text query, with the front")


def choices(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Variants of text queries that can be taken, of the kinds of query for which there are several."""
    timed = [v for v in variants(verdict["cells"]) if v["direction"] == "t2v" and v["query_ms_p95"]]
    fit = [v for v in timed if v["head"] != "dsl" and v["k"] != 1 and v["trained"] is not False]
    each = Counter((v["dataset"], v["language"], v["text_class"]) for v in fit)
    return [v for v in fit if each[v["dataset"], v["language"], v["text_class"]] > 1]


def depths(verdict: Mapping[str, Any]) -> str:
    """R@1 of matching by the number of candidates it re-scores, a line a language and length, first arm."""
    with style("depth"):
        arm = verdict["k_curve"][0]["arm"]
        rows = telling(verdict, [r for r in verdict["k_curve"] if r["arm"] == arm])
        places = list(dict.fromkeys((r["language"], r["text_class"]) for r in rows))
        fig = Figure(figsize=(8, 3), layout="constrained")
        axes = fig.subplots(1, 2, sharex=True, sharey=True)
        for ax, direction in zip(axes, DIRECTIONS):
            for place, color in zip(places, COLORS * len(places)):
                mine = [r for r in rows if (r["language"], r["text_class"], r["direction"]) == (*place, direction)]
                if not mine:  # a choice is asked of videos alone
                    continue
                k, low, high = [r["k"] for r in mine], *zip(*(r["r1_ci95"] for r in mine))
                words = f"{LANGUAGES.get(place[0], place[0])}, {place[1]}"
                ax.plot(k, [r["r1"] for r in mine], color=color, marker="o", ms=3, lw=1.1, label=words)
                ax.fill_between(k, low, high, color=color, alpha=0.12, lw=0)
            ax.set_title(DIRECTIONS[direction], loc="left")
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            ax.set_xlabel("candidates re-scored, k (1: similarity alone)")
            ax.set_ylim(-3, 103)
            ax.grid()
        axes[0].set_ylabel("R@1, percent")
        lines = {text: line for ax in axes for line, text in zip(*ax.get_legend_handles_labels())}
        fig.legend(lines.values(), lines.keys(), loc="outside upper right", ncols=min(3, len(places)))
        return svg(fig, "depth", "R@1 of matching by the number of candidates")


def field(verdict: Mapping[str, Any]) -> str:
    """Published figures of this data set as bars, ours with their intervals above them."""
    with style("field"):
        bars = field_rows(verdict)
        names = list(dict.fromkeys(b["name"] for b in bars))
        fig = Figure(figsize=(8, 0.8 + 0.24 * len(names)), layout="constrained")
        axes = fig.subplots(1, 2, sharex=True, sharey=True)
        for ax, direction in zip(axes, DIRECTIONS):
            for b in (b for b in bars if b["direction"] == direction):
                y, ours = names.index(b["name"]), b["source"] == "measured"
                ax.barh([y], [b["r1"]], color=COLORS[1] if ours else "#7d8fa3", alpha=0.9 if ours else 0.6, height=0.7)
                if b["r1_ci95"]:
                    ax.plot(b["r1_ci95"], [y, y], color=INK, lw=1.2)
            ax.set_title(DIRECTIONS[direction], loc="left")
            ax.set_yticks(range(len(names)), names)
            ax.set_ylim(len(names) - 0.5, -0.5)
            ax.set_xlim(0, 100)
            ax.grid(axis="x")
            ax.set_xlabel("R@1, percent (grey: published, no interval known)")
        return svg(fig, "field", "Published R@1 of the field beside ours")
