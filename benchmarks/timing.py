"""Both sides of a row, timed in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Sides = Mapping[str, Callable[[], Tensor]]


def interleaved(sides: Sides, repeats: int) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Wall seconds of each side, in turns, after one run to warm up; and what each gave in that run."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    out = {name: side() for name, side in sides.items()}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    return times, out


def row(name: str, times: dict[str, list[float]], ours: str, plain: str) -> dict:
    """A row of the results, seconds; `equal` and `how_equal` are still to be added."""
    return {
        "name": name,
        "ours": statistics.median(times[ours]),
        "baseline": statistics.median(times[plain]),
        "unit": "s",
        "spread": {side: [min(times[side]), max(times[side])] for side in (ours, plain)},
        "threads": torch.get_num_threads(),
    }


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
