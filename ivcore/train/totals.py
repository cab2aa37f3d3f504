"""What the steps of a phase add up to so far; a part of every saved state."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Totals:
    """Counts, costs and curves after `step` steps: the same in every run of a recipe, but for the seconds.

    Those are of the loop alone and go on over a restart, on the clock and of this machine's CPU.
    """

    step: int = 0
    samples: int = 0
    gflop: float = 0.0
    cost: dict[str, float] = field(default_factory=dict)  # GFLOP of a step of each kind
    figures: dict[str, float] = field(default_factory=dict)  # one not taken at every step keeps its last value
    curves: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    skips: int = 0  # batches left out since a loss or gradient was no number
    spikes: int = 0
    loss_mean: float = 0.0
    loss_variance: float = 0.0
    best: float = -1.0  # R@1 on the validation split, and the step it was seen at
    best_step: int = 0
    looks_since_best: int = 0

    def note(self, phase: str, figures: dict[str, float]) -> None:
        """Add the figures of this step to the curves."""
        place = {"phase": phase, "step": self.step}
        self.curves += [{**place, "name": name, "value": value} for name, value in figures.items()]
