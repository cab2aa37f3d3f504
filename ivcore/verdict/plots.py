"""The report's plots as SVG: recall with intervals, recall against latency, losses; those of cost in `plots_cost`."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ivcore.verdict.labels import DIRECTIONS, LANGUAGES, field_rows, shared, telling
from ivcore.verdict.plots_cost import choices, depths, field, fronts
from ivcore.verdict.plots_style import INK, OTHER, STYLE, legend, style, svg


def pictures(verdict: Mapping[str, Any]) -> dict[str, str]:
    """SVG by name: recall, latency, and losses where there are curves."""
    out = {"recall": _recall(verdict), "latency": _latency(verdict)}
    if choices(verdict):
        out["pareto"] = fronts(verdict)
    if verdict["k_curve"]:
        out["depth"] = depths(verdict)
    if field_rows(verdict):
        out["field"] = field(verdict)
    if verdict["curves"]:
        out["losses"] = _losses(verdict)
    return out


def _recall(verdict: Mapping[str, Any]) -> str:
    """One panel an arm and direction; a line a language and class, a marker a head that was trained on it."""
    with style("recall"):
        spread = telling(verdict, verdict["spread"])
        arms = [arm for arm in verdict["protocol"]["arms"] if arm in {s["arm"] for s in spread}]
        places = list(dict.fromkeys((s["language"], s["text_class"]) for s in spread))
        heads = list(dict.fromkeys(f"{s['model']}/{s['head']}" for s in spread))
        height = len(arms) * (0.7 + 0.13 * len(places) * (len(heads) + 1)) + 0.5
        fig = Figure(figsize=(8, height), layout="constrained")
        axes = fig.subplots(len(arms), 2, sharex=True, sharey=True, squeeze=False)
        for (arm, row), (column, direction) in ((x, y) for x in zip(arms, axes) for y in enumerate(DIRECTIONS)):
            ax: Axes = row[column]
            ax.set_title((f"{arm}: " if len(arms) > 1 else "") + DIRECTIONS[direction], loc="left")
            for s in spread:
                if (s["arm"], s["direction"]) != (arm, direction):
                    continue
                head = f"{s['model']}/{s['head']}"
                y = places.index((s["language"], s["text_class"])) + (heads.index(head) + 1) / (len(heads) + 1) - 0.5
                low, high = s["r1_ci95"]
                color, marker = STYLE.get(head, OTHER)
                ax.plot([low, high], [y, y], color=color, lw=1.3)
                ax.plot([s["r1"]], [y], color=color, marker=marker, ms=4.5, ls="")
            chance = 100 / next(s["n_videos"] for s in spread if s["arm"] == arm)
            ax.axvline(chance, color=INK, lw=0.6, ls=":")
            for line in range(1, len(places)):
                ax.axhline(line - 0.5, color="#888888", lw=0.5, alpha=0.5)
            ax.set_yticks(range(len(places)), [f"{LANGUAGES.get(lang, lang)}, {length}" for lang, length in places])
            ax.set_ylim(len(places) - 0.5, -0.5)
            ax.set_xlim(-2, 102)
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
        for ax in axes[-1]:
            ax.set_xlabel("R@1, percent (bar: 95 %; dotted: chance)")
        legend(fig, heads)
        return svg(fig, "recall", "R@1 of every model and head by language, with 95 percent intervals")


def _latency(verdict: Mapping[str, Any]) -> str:
    """R@1 against the median time of a query, a marker a head, language and class the model was trained on."""
    with style("latency"):
        spread = telling(verdict, [s for s in verdict["spread"] if s["query_ms_p50"]])
        heads = list(dict.fromkeys(f"{s['model']}/{s['head']}" for s in spread))
        fig = Figure(figsize=(8, 3.4), layout="constrained")
        axes = fig.subplots(1, 2, sharex=True, sharey=True)
        for ax, direction in zip(axes, DIRECTIONS):
            ax.set_title(DIRECTIONS[direction], loc="left")
            for s in spread:
                if s["direction"] == direction:
                    color, marker = STYLE.get(f"{s['model']}/{s['head']}", OTHER)
                    ax.plot([s["query_ms_p50"]], [s["r1"]], color=color, marker=marker, ms=5, ls="", alpha=0.85)
            ax.set_xlabel("median time of one query, milliseconds (log)")
            ax.set_ylim(-3, 103)
            ax.grid()
            ax.tick_params(which="both", length=3)
            if spread:
                ax.set_xscale("log")
                ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                ax.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else ""))
        axes[0].set_ylabel("R@1, percent")
        if spread:
            times = [s["query_ms_p50"] for s in spread]
            axes[0].set_xlim(min(times) / 2, max(times) * 2)
        legend(fig, heads)
        return svg(fig, "latency", "R@1 against the median time of one query")


def _losses(verdict: Mapping[str, Any]) -> str:
    """One panel an arm and model; a colour a loss, a line a seed, a bar where a phase begins."""
    with style("losses"):
        arms = verdict["protocol"]["arms"]
        own = [c for c in verdict["curves"] if (c["arm"], c["model"]) not in shared(verdict)]
        curves = [c for c in own if c["name"] != "loss"] or own
        panels = sorted(
            dict.fromkeys((c["arm"], c["model"]) for c in curves), key=lambda p: (arms.index(p[0]), p[1] == "clip")
        )
        names = list(dict.fromkeys(c["name"] for c in curves))
        colors = ["#3f87d0", "#d9772b", "#2a9d74", "#9467bd", "#8a9a5b"]
        columns = min(2, len(panels))
        lines = -(-len(panels) // columns)
        fig = Figure(figsize=(8, 0.4 + 2.3 * lines), layout="constrained")
        axes = fig.subplots(lines, columns, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        for ax, panel in zip(axes, panels):
            ax.set_title(": ".join(panel) if len(arms) > 1 else panel[1], loc="left")
            mine = [c for c in curves if (c["arm"], c["model"]) == panel]
            for c in mine:
                color = colors[names.index(c["name"]) % len(colors)]
                ax.plot(c["step"], c["value"], color=color, lw=1.1, alpha=0.9)
            for phase in dict.fromkeys(c["phase"] for c in mine):
                start = min(c["step"][0] for c in mine if c["phase"] == phase)
                ax.axvline(start, color=INK, lw=0.5, ls=":")
                ax.annotate(
                    phase, (start, 1), (2, -2), ("data", "axes fraction"), "offset points", va="top", fontsize=7
                )
            ax.set_xlabel("optimiser step")
            ax.set_ylabel("loss, nats")
            ax.set_ylim(bottom=0)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.grid(axis="y")
        handles = [
            Line2D([], [], color=colors[n % len(colors)], label=name.removeprefix("loss/"))
            for n, name in enumerate(names)
        ]
        fig.legend(handles=handles, loc="outside upper right", ncols=len(names))
        return svg(fig, "losses", "Training losses by step")
