"""What the steps of a phase add up to so far; a part of every saved state."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Tally:
    """Counts, costs and curves after `step` steps. Only what is the same in every run of the same recipe, but for
    `seconds`, which is of the loop alone and goes on over a restart."""

    step: int = 0
    samples: int = 0
    gflop: float = 0.0
    cost: dict[str, float] = field(default_factory=dict)  # GFLOP of a step of each kind
    figures: dict[str, float] = field(
        default_factory=dict
    )  # a loss that is not taken at every step keeps its last value
    curves: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        """As plain JSON values; `Tally(**state)` is the same again."""
        return asdict(self)
