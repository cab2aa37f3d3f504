"""Makes losses.json: the losses of 30 steps of s2 and of clip at `tiny`, fp32, one thread.

Run it (`python -m tests.golden.losses`) only when a change is meant to change the numbers, and say so in the commit.
"""

import json
import tempfile
from pathlib import Path

import torch

from tests.ivcore.train import made_up

FILE = Path(__file__).with_suffix(".json")


def losses(kind: str) -> list[dict[str, float]]:
    """The losses of each step by name."""
    loop, found = made_up.loop(kind, made_up.phase(kind)), []
    step = loop._step

    def watched(*args):
        step(*args)
        found.append({n: v for n, v in loop.totals.figures.items() if n.startswith("loss")})

    loop._step = watched
    with tempfile.TemporaryDirectory() as place:
        loop.run(made_up.batches(30), lambda figures, step: None, Path(place))
    return found


if __name__ == "__main__":
    cpu = torch.backends.cpu.get_cpu_capability()
    FILE.write_text(json.dumps({"cpu": cpu, **{kind: losses(kind) for kind in ("s2", "clip")}}, indent=1) + "\n")
    print(f"golden: 2 x 30 steps in {FILE}")
