"""How the report's plots look: SVG whose words stay words, in the page's own colour, so one serves dark and light.

The same verdict gives the same bytes.
"""

import contextlib
import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK = "#010203"  # stands for the page's own colour until the SVG is done
STYLE: dict[str, tuple[str, str]] = {  # colour, marker: both tell heads apart, and both read on white and on black
    "s2/sim": ("#3f87d0", "o"),
    "s2/dsl": ("#7d8fa3", "D"),
    "s2/match": ("#d9772b", "^"),
    "clip/sim": ("#2a9d74", "s"),
    "clip/dsl": ("#8a9a5b", "v"),
}
OTHER = ("#9467bd", "P")
RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#888888",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}


def style(name: str) -> contextlib.AbstractContextManager[None]:
    """What a plot is drawn in; `name` makes its ids, the same each time."""
    return matplotlib.rc_context(RC | {"svg.hashsalt": name})  # type: ignore[arg-type]  # one key of three hundred


def legend(fig: Figure, heads: list[str]) -> None:
    """A marker a head, above the panels."""
    handles = [
        Line2D([], [], color=STYLE.get(h, OTHER)[0], marker=STYLE.get(h, OTHER)[1], ls="", label=h) for h in heads
    ]
    if handles:
        fig.legend(handles=handles, loc="outside upper right", ncols=len(handles), handletextpad=0.2)


def svg(fig: Figure, name: str, words: str) -> str:
    """The figure as an <svg> element: no prolog, no date, ids of its own, text and axes in the page's colour."""
    out = io.StringIO()
    fig.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{words}" ', 1)
