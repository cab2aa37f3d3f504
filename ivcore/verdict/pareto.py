"""The front: what no other one beats at everything that counts."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
MORE, LESS = ("r1",), ("query_ms_p95", "index_bytes_per_video")


QUESTION = ("dataset", "language", "text_class", "direction")
VARIANT = ("arm", "model", "head", "k")


def variants(cells: Sequence[Row]) -> list[dict[str, Any]]:
    """Cells of several seeds as one row a question and variant, in the order of the cells.

    R@1 is the mean, costs are the worst; `on_front`: no variant of the question is at least as good, quick and small.
    dsl is never on it, nor k = 1 (similarity by another name), nor a model that was not trained on the question.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for c in cells:
        groups.setdefault(tuple(c[n] for n in (*QUESTION, *VARIANT)), []).append(c)
    out = []
    for key, mine in groups.items():
        worst = {n: None if None in (all_ := [c[n] for c in mine]) else max(all_) for n in LESS}
        row = {
            **dict(zip((*QUESTION, *VARIANT), key)),
            "trained": mine[0]["trained"],
            "r1": statistics.mean(c["r1"] for c in mine),
            **worst,
        }
        sure = mine[0] if len(mine) == 1 else {}
        out.append({**row, **{n: sure.get(n) for n in ("r1_low", "r1_high")}, "on_front": False})
    for question in {tuple(c[n] for n in QUESTION) for c in out}:
        asked = [c for c in out if tuple(c[n] for n in QUESTION) == question]
        asked = [c for c in asked if c["head"] != "dsl" and c["k"] != 1 and c["trained"] is not False]
        for c in front(asked):
            c["on_front"] = True  # type: ignore[index]
    return out


def front(rows: Sequence[Row], more: Sequence[str] = MORE, less: Sequence[str] = LESS) -> list[Row]:
    """The rows that no other row dominates, best first; rows that lack a figure are left out.

    A row dominates another when it is nowhere worse and somewhere better. Of rows that are level in everything the
    first stays.

    Args:
        more: columns of which more is better.
        less: columns of which less is better.

    >>> front([{"r1": 5, "ms": 1}, {"r1": 4, "ms": 2}, {"r1": 9, "ms": 7}], less=["ms"])
    [{'r1': 9, 'ms': 7}, {'r1': 5, 'ms': 1}]
    """
    known = [r for r in rows if all(r.get(name) is not None for name in (*more, *less))]
    costs = [tuple([-r[n] for n in more] + [r[n] for n in less]) for r in known]
    order = sorted(range(len(known)), key=lambda n: costs[n])  # whoever dominates comes first
    kept: list[int] = []
    for n in order:
        if not any(all(a <= b for a, b in zip(costs[m], costs[n])) for m in kept):
            kept.append(n)
    return [known[n] for n in kept]
