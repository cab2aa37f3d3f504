"""Zero-shot recognition: which class does the video show, by the names of the classes in some prompts.

Shapes: V videos, C classes, P prompts, E embedding.
Source: InternVideo2 multi_modality, tasks_clip; average precision as torchnet's.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ivcore.errors import UserError

PROMPTS = Path(__file__).parent / "prompts"


def prompts(name: str) -> list[str]:
    """The prompts of the file prompts/NAME.toml, each with one {} for the class; UserError naming the known files."""
    path = PROMPTS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROMPTS.glob("*.toml")))
        raise UserError(f"eval.prompts = {name!r} is no file of ivcore/retrieval/prompts; known: {known}")
    found: list[str] = tomllib.loads(path.read_text(encoding="utf-8"))["prompts"]
    return found


def prompted(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every class in every prompt, the prompts of a class together.

    >>> prompted(["running", "tai chi"], ["a video of {}", "{}"])
    ['a video of running', 'running', 'a video of tai chi', 'tai chi']
    """
    return [template.replace("{}", name) for name in names for template in templates]


def mean_of_prompts(embeddings: Tensor, num_prompts: int) -> Tensor:
    """[C * P, E] unit embeddings of the prompts of each class -> [C, E], their means, not normalised again.

    So a dot product with a video is the mean of the P cosines, and not the cosine with a mean.

    >>> mean_of_prompts(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8]]), 2)
    tensor([[0.5000, 0.5000],
            [0.6000, 0.8000]])
    """
    if num_prompts < 1 or len(embeddings) % num_prompts:
        raise ValueError(f"{len(embeddings)} embeddings are not {num_prompts} for each class")
    by_class: Tensor = embeddings.unflatten(0, (-1, num_prompts))
    return by_class.mean(dim=1)


def compute(ranks: np.ndarray) -> dict[str, float]:
    """Top-1, top-5 and the mean of the two (0-100); ranks int [V] of the true class, from 1.

    >>> compute(np.array([1, 1, 4, 9]))
    {'top1': 50.0, 'top5': 75.0, 'top1_top5': 62.5}
    """
    if not len(ranks) or ranks.min() < 1:
        raise ValueError(f"ranks start at 1 and there is at least one, got {ranks[:5]}")
    top1, top5 = (100.0 * float(np.mean(ranks <= k)) for k in (1, 5))
    return {"top1": top1, "top5": top5, "top1_top5": (top1 + top5) / 2}


def class_scores(similarity: Tensor, temperature: float) -> Tensor:
    """softmax over the classes of cosine / temperature: [V, C], what average precision compares across videos."""
    return (similarity.float() / temperature).softmax(dim=1)


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Average precision of each class: float64 [C], 0-1; NaN for a class that no video shows.

    The mean over a class's true videos of the precision down to each, by descending score. At an equal score a wrong
    video stands before a true one.

    Args:
        scores: [V, C].
        truth: bool [V, C].

    >>> scores = torch.tensor([[0.9, 0.5], [0.8, 0.5], [0.7, 0.1]])
    >>> truth = torch.tensor([[True, True], [False, False], [True, False]])
    >>> average_precision(scores, truth)  # (1/1 + 2/3) / 2; the tie is lost: 1/2
    tensor([0.8333, 0.5000], dtype=torch.float64)
    """
    if scores.shape != truth.shape or scores.ndim != 2:
        raise ValueError(f"scores {list(scores.shape)} and truth {list(truth.shape)} are both [V, C]")
    if bool(scores.isnan().any()):
        raise ValueError("scores are not numbers")
    wrong_first = truth.int().argsort(dim=0, stable=True)
    order = wrong_first.gather(0, scores.gather(0, wrong_first).argsort(dim=0, descending=True, stable=True))
    hit = truth.gather(0, order).double()  # [V, C], best first
    place = torch.arange(1, len(hit) + 1, dtype=torch.float64)[:, None]
    return (hit * hit.cumsum(dim=0) / place).sum(dim=0) / hit.sum(dim=0)


def mean_average_precision(scores: Tensor, truth: Tensor) -> dict[str, float]:
    """mAP (0-100) over the classes that some video shows, and how many those are.

    >>> truth = torch.tensor([[True, False], [False, False]])
    >>> mean_average_precision(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), truth)
    {'map': 100.0, 'classes_shown': 1.0}
    """
    each = average_precision(scores, truth)
    shown = ~each.isnan()
    if not bool(shown.any()):
        raise ValueError("no video shows a class")
    return {"map": 100.0 * float(each[shown].mean()), "classes_shown": float(shown.sum())}
