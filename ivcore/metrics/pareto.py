"""The front: what no other one beats at everything that counts."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
MORE, LESS = ("r1",), ("query_ms_p95", "index_bytes_per_video")


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
