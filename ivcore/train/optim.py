"""AdamW with the published parameter groups, and the learning rate of a phase."""

import math

import torch

from ivcore.config import Phase, StageConfig
from ivcore.models.base import VideoTextModel


def groups(model: VideoTextModel, weight_decay: float) -> list[dict[str, object]]:
    """Trained parameters in two groups: with weight decay, and without (vectors, biases, position tables, temp)."""
    bare = set(model.no_weight_decay())
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (free if name in bare or parameter.ndim < 2 else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def adamw(model: VideoTextModel, stage: StageConfig, phase: Phase) -> torch.optim.AdamW:
    """The optimiser of a phase; eps as published."""
    return torch.optim.AdamW(
        groups(model, stage.weight_decay), lr=stage.lr * phase.lr_scale, betas=stage.betas, eps=1e-8
    )


def lr_factor(phase: Phase, step: int) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, level, then half a cosine down.

    >>> phase = Phase(name="p", steps=100, warmup_steps=10, decay_from=0.5, end_lr_factor=0.0)
    >>> [round(lr_factor(phase, s), 2) for s in (0, 9, 49, 75, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    start = phase.decay_from * phase.steps
    if step < start or start >= phase.steps:
        return 1.0
    progress = min(1.0, (step - start) / (phase.steps - start))
    return phase.end_lr_factor + (1 - phase.end_lr_factor) * 0.5 * (1 + math.cos(math.pi * progress))
