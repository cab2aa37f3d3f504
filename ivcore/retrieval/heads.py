"""What a ranking can be made of, as functions of scores: dual softmax, matching.

Shapes: T texts, V videos, Q queries, C candidates of each, k of them looked at by matching.
"""

import numpy as np
import torch
from torch import Tensor

from ivcore.retrieval.ranking import MAX_ELEMENTS, UNSCORED


def dual_weights(texts: Tensor, videos: Tensor) -> tuple[Tensor, Tensor]:
    """What dual softmax multiplies by beside exp: ([T] one over the sum over videos, [V] one over that over texts)."""
    over_texts = torch.zeros(len(videos), dtype=torch.float64)
    over_videos = []
    for some in texts.split(max(1, MAX_ELEMENTS // len(videos))):
        e = (some @ videos.T).exp().double()  # cosines: no overflow to guard against
        over_texts += e.sum(dim=0)
        over_videos.append(e.sum(dim=1))
    return 1 / torch.cat(over_videos).float(), 1 / over_texts.float()


def dsl(sim: Tensor, weight: Tensor) -> Tensor:
    """Dual softmax: cosines [Q, C] times their softmax over all queries; weight [C] from `dual_weights`.

    It needs the whole test set at once: a candidate that many queries like counts for less with each of them.

    >>> sim = torch.tensor([[0.5, 0.4], [0.5, 0.1]])
    >>> torch.allclose(dsl(sim, 1 / sim.exp().sum(dim=0)), sim * sim.softmax(dim=0))
    True
    """
    return sim * sim.exp() * weight


def matched(top: np.ndarray, logits: Tensor, num_candidates: int) -> Tensor:
    """Matching: the logits [Q, k] at the candidates top [Q, k], UNSCORED at all others: float32 [Q, C].

    >>> matched(np.array([[2, 0]]), torch.tensor([[0.5, -3.0]]), 3).tolist()
    [[-3.0, -100.0, 0.5]]
    """
    out = torch.full((len(top), num_candidates), UNSCORED)
    return out.scatter_(1, torch.from_numpy(top), logits)
