"""How training is doing: batches whose loss is no number, losses that jump, and how fast it goes."""

import json
import math
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ivcore.train.batches import Batch
from ivcore.train.totals import Totals

SPIKE = 6.0  # deviations above the running mean
MEMORY = 0.98  # of the running mean, a step
SETTLED = 30  # steps before a spike can be told


def is_spike(totals: Totals, loss: float, step: int) -> bool:
    """The loss of a step stands far above those before; it enters their running mean and deviation."""
    deviation = math.sqrt(totals.loss_variance)
    spike = step >= SETTLED and loss > totals.loss_mean + SPIKE * max(deviation, 1e-3)
    away = 0.0 if step == 0 else loss - totals.loss_mean
    totals.loss_mean = loss if step == 0 else totals.loss_mean + (1 - MEMORY) * away
    totals.loss_variance = MEMORY * (totals.loss_variance + (1 - MEMORY) * away * away)
    return spike


def write_bad_batch(file: Path, step: int, batch: Batch, clip_ids: list[str], figures: Mapping[str, float]) -> None:
    """Write what is needed to replay a bad step (from 1): clips, captions and figures."""
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "step": step,
        "clip_ids": [clip_ids[row] for row in batch.rows],
        "captions": batch.captions,
        "views": batch.views,
        "figures": {name: repr(value) for name, value in figures.items()},  # JSON has no NaN
    }
    file.write_text(json.dumps(found, indent=1))


@dataclass
class Speed:
    """Work done and seconds waited for data since it was made."""

    begun: float = field(default_factory=time.monotonic)
    videos: float = 0.0
    tokens: float = 0.0
    waited: float = 0.0

    def figures(self, device: torch.device) -> dict[str, float]:
        """Rates, the share of the time that the loop waited for data, and the most memory taken so far."""
        seconds = max(time.monotonic() - self.begun, 1e-9)
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device) / 2**20
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "speed/videos_per_s": self.videos / seconds,
            "speed/tokens_per_s": self.tokens / seconds,
            "speed/data_wait_share": self.waited / seconds,
            "speed/memory_mb": memory,
        }
