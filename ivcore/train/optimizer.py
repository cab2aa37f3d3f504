"""AdamW with the published parameter groups, and the learning rate of a phase."""

import math
import re
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from ivcore.config import Phase, StageConfig
from ivcore.models.base import VideoTextModel


def groups(model: VideoTextModel, stage: StageConfig) -> list[dict[str, Any]]:
    """Trained parameters by weight decay and by `factor` on the learning rate.

    No decay on vectors, biases, position tables and temp. The factor is that of the first expression of
    `different_lr` found in the name.
    """
    bare = set(model.no_weight_decay())
    found: dict[tuple[float, bool, bool], list[torch.nn.Parameter]] = {(1.0, True, False): [], (1.0, False, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((f for words, f in stage.different_lr.items() if re.search(words, name)), 1.0)
            decays = name not in bare and parameter.ndim >= 2
            # Whole tensors beside shards cannot be updated in one call on CUDA.
            found.setdefault((factor, decays, isinstance(parameter, DTensor)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": stage.weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays, _), parameters in found.items()
    ]


def adamw(model: VideoTextModel, stage: StageConfig, phase: Phase, fused: bool = False) -> torch.optim.AdamW:
    """The optimiser of a phase; eps as published. `fused`: one kernel for many tensors, for a GPU."""
    lr = stage.lr * phase.lr_scale
    return torch.optim.AdamW(groups(model, stage), lr=lr, betas=stage.betas, eps=1e-8, fused=fused or None)


def set_lr(optimiser: torch.optim.Optimizer, stage: StageConfig, phase: Phase, step: int) -> float:
    """Give every group its learning rate at `step` (from 0); returns that of a factor of 1."""
    lr = stage.lr * phase.lr_scale * lr_factor(phase, step)
    for group in optimiser.param_groups:
        group["lr"] = lr * group["factor"]
    return lr


def lr_factor(phase: Phase, step: int) -> float:
    """Share of the peak learning rate at `step` (from 0).

    level: linear warm-up, level, then half a cosine to `end_lr_factor`, which the step after the last would have; a
    warm-up that goes on beyond `decay_from` ends on the cosine. published: linear warm-up, then half a cosine to
    nothing, which the step after the last would have; neither falls below `end_lr_factor` (internvideo2's
    utils/scheduler.py).

    >>> phase = Phase(name="p", steps=100, warmup_steps=10, decay_from=0.5, end_lr_factor=0.0)
    >>> [round(lr_factor(phase, s), 2) for s in (0, 9, 49, 75, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    >>> phase = Phase(name="p", steps=110, warmup_steps=10, schedule="published", end_lr_factor=0.01)
    >>> [round(lr_factor(phase, s), 2) for s in (0, 5, 10, 60, 110)]
    [0.01, 0.5, 1.0, 0.5, 0.01]
    """
    if phase.schedule == "published":
        if step < phase.warmup_steps:
            return max(phase.end_lr_factor, step / phase.warmup_steps)
        progress = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
        return max(phase.end_lr_factor, 0.5 * (1 + math.cos(math.pi * progress)))
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    start = phase.decay_from * phase.steps
    if step < start or start >= phase.steps:
        return 1.0
    progress = min(1.0, (step - start) / (phase.steps - start))
    return phase.end_lr_factor + (1 - phase.end_lr_factor) * 0.5 * (1 + math.cos(math.pi * progress))
